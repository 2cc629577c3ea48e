"""Does jobs in documents at home: finds passages, has the small model copy out what helps, or both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Literal

from cosilo.labels import plain
from cosilo.models.base import Embedder, TextModel
from cosilo.parties.data_owner import DataOwner
from cosilo.reasoning import spoken
from cosilo.strategies.documents.findings import Finding
from cosilo.strategies.documents.index import PassageFound, PassageIndex
from cosilo.strategies.documents.jobs import DocumentJob
from cosilo.strategies.documents.parting import parts
from cosilo.strategies.fanout import fan_out
from cosilo.types import Sampling, user

Worker = Literal["find", "small", "both"]

_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.)\]])\s+")
_NONE = re.compile(
    r"(?:none|nothing|n a|not (?:found|mentioned|stated|applicable)"
    r"|no (?:answer|relevant|information))\b"
)
_SYSTEM = "You read a part of a document and copy out what helps with a task. You add nothing."


class DocumentWorker:
    """Reads the documents of one request.

    Args:
        worker: "find": passages by words, and by meaning where the owner has an encoder; "small": the
            small model reads every part; "both": it reads the parts that hold the passages found.
        part, passage: words of a part and of a passage.
        at_once: parts that the small model reads at the same time.
    """

    def __init__(
        self,
        owner: DataOwner,
        documents: Sequence[str],
        worker: Worker,
        *,
        part: int,
        passage: int,
        at_once: int,
    ) -> None:
        self._model: TextModel = owner.model
        self._worker = worker
        self._passage, self._at_once = passage, at_once
        self._parts = [(i, text) for i, d in enumerate(documents) for text in parts(d, part)]
        self._index: PassageIndex | None = None
        self._encoder = encoder_of(owner)

    @property
    def count(self) -> int:
        """How many parts the documents have together."""
        return len(self._parts)

    async def do(self, jobs: Sequence[DocumentJob]) -> list[Finding]:
        """What `jobs` find, the best of each job first; nothing twice."""
        done = [await self._one(job) for job in jobs]
        found = chain.from_iterable(zip_longest(*done))
        return list(dict.fromkeys(each for each in found if each is not None))

    def close(self) -> None:
        if self._index is not None:
            self._index.close()

    async def _one(self, job: DocumentJob) -> list[Finding]:
        wanted = range(self.count) if job.parts == "all" else [n - 1 for n in job.parts]
        if self._worker == "small":
            return await self._copied(job, list(wanted))
        found = await asyncio.to_thread(self._found, job, list(wanted))
        if self._worker == "find":
            return [Finding(self._parts[p.part - 1][0], p.text) for p in found]
        return await self._copied(job, list(dict.fromkeys(p.part - 1 for p in found)))

    def _found(self, job: DocumentJob, wanted: Sequence[int]) -> list[PassageFound]:
        if self._index is None:
            self._index = PassageIndex(None, self._encoder, passage=self._passage, part=1 << 30)
            # Every part is a document of its own here, so that a part's number is its name.
            self._index.update({str(i): text for i, (_, text) in enumerate(self._parts)})
        within = {(str(i), 1) for i in wanted}
        found = self._index.search(job.instruction, job.findings, within=within)
        return [PassageFound(p.document, int(p.document) + 1, p.text) for p in found]

    async def _copied(self, job: DocumentJob, wanted: Sequence[int]) -> list[Finding]:
        sampling = Sampling(max_tokens=3 * self._passage)

        async def read(part: int) -> list[Finding]:
            document, text = self._parts[part]
            asked = (
                f"Part of a document:\n{text}\n\nTask: {job.instruction}\n\nCopy the sentences of the "
                f"part that help with the task, at most {job.findings}, each on a line of its own. If "
                "none helps, write only: none"
            )
            reply = await self._model.generate(user(asked, system=_SYSTEM), sampling)
            said = findings_in(reply.text, self._passage)
            return [Finding(document, line) for line in said[: job.findings]]

        done = await fan_out(read, wanted, concurrency=self._at_once)
        # The first of each part before the second of any.
        found = chain.from_iterable(zip_longest(*done))
        return [each for each in found if each is not None][: job.findings]


def findings_in(text: str, words: int) -> list[str]:
    """The findings in a small model's reply, one a line, cut to `words` words each; none where it
    says that there are none."""
    found = []
    for line in spoken(text).splitlines():
        said = _BULLET.sub("", line).strip()
        if said and plain(said) and not _NONE.match(plain(said)):
            found.append(" ".join(said.split()[:words]))
    return found


def encoder_of(owner: DataOwner) -> Embedder | None:
    """What turns the owner's texts into vectors: its encoder, or its model where that can; None where
    neither does."""
    if owner.embedder is not None:
        return owner.embedder
    return owner.model if isinstance(owner.model, Embedder) else None
