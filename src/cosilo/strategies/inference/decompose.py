"""Documents stay at home: the large model says what to look for, and is told what was found.

    question ─────────▶ LM ─▶ jobs, as data ─┐                         ┌─▶ LM ─▶ answer
    document ─▶ parts ─▶ small model, or encoder, does them ─▶ findings ┘ ▲
                                                  │  "none" is dropped    │ up to `rounds` times
                                                  └─▶ share meter ─▶ defences

Narayan et al., "Minions: Cost-efficient Collaboration Between On-device and Cloud Language Models"
(arXiv 2502.15964). Theirs has the large model write code that makes the jobs, and sends whatever is
found; here a plan is data of one closed form (`documents/jobs.py`), and what leaves of a document is
metered (`documents/share.py`), whatever the plan asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from cosilo.boundary.messages import Ask
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, ask, strategies
from cosilo.strategies.documents.findings import (
    Finding,
    admitted,
    in_place,
    listed,
    typed,
)
from cosilo.strategies.documents.jobs import (
    MOST_FINDINGS,
    MOST_JOBS,
    DocumentJob,
    read_plan,
)
from cosilo.strategies.documents.parting import LONGEST, PartedChat, parted
from cosilo.strategies.documents.share import InFile, InMemory, ShareMeter
from cosilo.strategies.documents.worker import DocumentWorker, Worker
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Delta, Sampling, assemble, closing, user

Planner = Literal["large", "question"]

PLAN_TOKENS = 400

_PLANS = f"""You plan how to answer a question about documents that you cannot see. They stay with \
their owner, who looks for what you ask for and tells you what was found. Reply with JSON only:
{{"jobs": [{{"instruction": "what to look for", "parts": "all", "findings": 3}}]}}
At most {MOST_JOBS} jobs, of at most {MOST_FINDINGS} findings each. "parts" is "all" or a list of \
numbers. When enough was found, reply {{"jobs": []}}"""


@strategies.register("decompose")
@dataclass(frozen=True, kw_only=True)
class Decompose:
    """The large model answers questions about documents from findings; the documents stay at home.

    Attributes:
        planner: "large": the LM plans what to look for, in up to `rounds` rounds; "question": the last
            question itself is looked for, once, and the LM is asked nothing but for the answer.
        worker: who looks: "find", passages by their words and, where the owner has an encoder, by
            meaning; "small", the small model reads every part; "both", it reads the parts found.
        findings: how many are wanted, where the question is what is looked for.
        rounds: of plans, at most.
        share: of each document's letters that may leave, 0 to 1, in all requests together.
        kept: a file that notes what has left, for all workers of a gateway and after it was started
            anew (a relative path is taken from where they run); without it each process counts for
            itself.
        part: words of the parts that the small model reads.
        passage: words of a finding, at most.
        longest: characters of a message without `<document>` marks that holds no document.
        at_once: parts that the small model reads at the same time.
    """

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))
    guide: ClassVar[Guide] = Guide(
        crosses="the question, how many parts the documents have, and findings up to a share of each",
        choose="questions about long documents that must not cross, of which a few passages answer",
    )

    planner: Planner = "large"
    worker: Worker = "find"
    findings: int = 5
    rounds: int = 1
    share: float = 0.1
    kept: str = ""
    part: int = 300
    passage: int = 40
    longest: int = LONGEST
    at_once: int = 4

    def __post_init__(self) -> None:
        for name in ("findings", "rounds", "part", "longest", "at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if self.findings > MOST_FINDINGS:
            raise ValueError(f"findings = {self.findings!r} is more than {MOST_FINDINGS}")
        if self.rounds > 8:
            raise ValueError(f"rounds = {self.rounds!r} is more than 8")
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share!r} is not above 0 and up to 1")
        if not 5 <= self.passage <= self.part:
            raise ValueError(
                f"passage = {self.passage!r} is not between 5 and part = {self.part!r}"
            )

    @cached_property
    def meter(self) -> ShareMeter:
        """Counts what has left, for all that this strategy answers."""
        return ShareMeter(self.share, InFile(Path(self.kept)) if self.kept else InMemory())

    def forecast(self) -> Forecast:
        answers = Expected("answers")  # without the documents, and with less than them in findings
        if self.planner == "question":
            return (answers,)
        plans = Expected(
            "answers", each=self.rounds, reads=("question", 400), writes=(PLAN_TOKENS,)
        )
        return (plans, answers)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        asked = await self._asked(session, chat)
        return Answer((await ask(session, asked)).generation, by="both")

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        asked = await self._asked(session, chat)
        said = []
        crossing = session.lm.stream(Ask(chat=asked, sampling=session.sampling))
        async with closing(crossing) as deltas:
            async for delta in deltas:
                said.append(delta)
                yield delta
        yield Answer(assemble(said), by="both")

    async def _asked(self, session: Session, chat: Chat) -> Chat:
        """The last thing that the LM is asked: the chat, with findings where documents were."""
        split = parted(chat, self.longest)
        if not split.documents:
            return split.chat
        await asyncio.to_thread(self.meter.begin, split.documents, typed(split.chat))
        worker = DocumentWorker(
            session.owner,
            split.documents,
            self.worker,
            part=self.part,
            passage=self.passage,
            at_once=self.at_once,
        )
        try:
            found = await self._found(session, split, worker)
        finally:
            worker.close()
        return in_place(split.chat, len(split.documents), found)

    async def _found(
        self, session: Session, split: PartedChat, worker: DocumentWorker
    ) -> list[Finding]:
        if not worker.count:  # the documents are empty
            return []
        if self.planner == "question":
            job = DocumentJob(instruction=split.question, findings=self.findings)
            return await admitted(self.meter, split.documents, await worker.do([job]))
        told: list[Finding] = []
        for _ in range(self.rounds):
            reply = await session.lm.send(self._plan(split, worker.count, told))
            plan = read_plan(reply.generation.text, worker.count)
            if not plan.jobs:
                break
            new = [each for each in await worker.do(plan.jobs) if each not in told]
            told += await admitted(self.meter, split.documents, new)
        return told

    def _plan(self, split: PartedChat, count: int, told: Sequence[Finding]) -> Ask:
        about = f"{typed(split.chat)}\n\nThe documents have {count} parts, numbered from 1."
        if told:
            about += f"\n\nFound so far:\n{listed([each.text for each in told])}"
        return Ask(chat=user(about, system=_PLANS), sampling=Sampling(max_tokens=PLAN_TOKENS))
