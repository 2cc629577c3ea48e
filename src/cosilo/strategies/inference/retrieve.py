"""Passages of the owner's documents go into a prompt: those found at home, and only those.

    folder ─▶ index at home (FTS5, vectors) ─┐
    question ────────────────────────────────┴─▶ passages ─▶ share meter ─▶ defences ─▶ LM ─▶ answer
                                                     └─────▶ the small model: nothing crosses

Lewis et al., "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks" (arXiv 2005.11401),
with the index on the data owner's side of the boundary, and what leaves of each document metered as for
`decompose` (`documents/share.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from cosilo.boundary.messages import Ask
from cosilo.errors import ConfigError
from cosilo.models.base import stream
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, ask, strategies
from cosilo.strategies.cards import Card
from cosilo.strategies.confidence import confidence
from cosilo.strategies.documents.findings import Finding, admitted, in_front, typed
from cosilo.strategies.documents.index import IndexChange, PassageFound, PassageIndex
from cosilo.strategies.documents.share import InFile, InMemory, ShareMeter
from cosilo.strategies.documents.worker import encoder_of
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Delta, assemble, closing, last_user

MOST_FOUND = 50

SUFFIXES = (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".html", ".xml", ".log")


@strategies.register("retrieve")
@dataclass(frozen=True, kw_only=True)
class Retrieve:
    """The large model, or the small one, answers with passages of the owner's documents.

    Attributes:
        documents: the folder of text files, with its sub-folders; a relative path is taken from where
            the process runs.
        index: the file that the index is kept in. `prepare` reads only what has changed since.
        to: who answers: "large", or "small", so that nothing crosses.
        findings: passages in a prompt, at most.
        share: of each document's letters that may leave, 0 to 1, in all requests together.
        kept: a file that notes what has left, as for `decompose`.
        passage: words of a passage, at most.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="the question, and the passages found for it, up to a share of each document",
        choose="answers stand in the owner's own documents, too many or too private to send",
    )

    documents: str
    index: str = ".cosilo/retrieve.sqlite"
    to: Literal["large", "small"] = "large"
    findings: int = 5
    share: float = 0.1
    kept: str = ""
    passage: int = 40

    def __post_init__(self) -> None:
        if not self.documents or not self.index:
            raise ValueError("documents and index must name a folder and a file")
        if not 1 <= self.findings <= MOST_FOUND:
            raise ValueError(f"findings = {self.findings!r} is not between 1 and {MOST_FOUND}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share!r} is not above 0 and up to 1")
        if self.passage < 5:
            raise ValueError(f"passage = {self.passage!r} is less than 5 words")

    @property
    def needs(self) -> Needs:
        return Needs(sends=frozenset({Ask}) if self.to == "large" else frozenset())

    @cached_property
    def meter(self) -> ShareMeter:
        """Counts what has left, for all that this strategy answers."""
        return ShareMeter(self.share, InFile(Path(self.kept)) if self.kept else InMemory())

    def forecast(self) -> Forecast:
        passages = (
            2 * self.findings * self.passage
        )  # tokens: fewer than two a word, and some words more
        return (Expected("answers", reads=("question", passages + 50)),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        folder = TextFolder(Path(self.documents))

        def read() -> IndexChange:
            index = self._opened(session)
            try:
                return index.update(folder)
            finally:
                index.close()

        change = await asyncio.to_thread(read)
        facts: dict[str, float | str] = {
            "documents": len(folder),
            "read anew": change.read,
            "taken out": change.gone,
            "found by": "words" if encoder_of(session.owner) is None else "words and meaning",
        }
        return self, session.with_card(Card(by="retrieve", title="index of documents", facts=facts))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        asked = await self._asked(session, chat)
        if self.to == "large":
            return Answer((await ask(session, asked)).generation, by="both")
        reply = await session.owner.model.generate(asked, session.sampling)
        return Answer(reply, by="small", confidence=confidence(reply, session.sampling))

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        asked, said = await self._asked(session, chat), []
        if self.to == "large":
            crossing = session.lm.stream(Ask(chat=asked, sampling=session.sampling))
        else:
            crossing = stream(session.owner.model, asked, session.sampling)
        async with closing(crossing) as deltas:
            async for delta in deltas:
                said.append(delta)
                yield delta
        reply = assemble(said)
        if self.to == "large":
            yield Answer(reply, by="both")
        else:
            yield Answer(reply, by="small", confidence=confidence(reply, session.sampling))

    async def _asked(self, session: Session, chat: Chat) -> Chat:
        """`chat` with what was found for its last question."""

        def look() -> tuple[list[PassageFound], dict[str, str]]:
            index = self._opened(session)
            try:
                found = index.search(last_user(chat), self.findings)
                return found, {each.document: index.text(each.document) for each in found}
            finally:
                index.close()

        passages, texts = await asyncio.to_thread(look)
        names = list(texts)
        found = [Finding(names.index(each.document), each.text) for each in passages]
        if self.to == "large" and found:
            documents = [texts[name] for name in names]
            await asyncio.to_thread(self.meter.begin, documents, typed(chat))
            found = await admitted(self.meter, documents, found)
        return in_front(chat, found)

    def _opened(self, session: Session) -> PassageIndex:
        encoder = encoder_of(session.owner)
        known = getattr(encoder, "identity", type(encoder).__name__)
        return PassageIndex(Path(self.index), encoder, encoded_by=known, passage=self.passage)


class TextFolder(Mapping[str, str]):
    """The text files of a folder and its sub-folders: path within it → text, read when it is asked for.
    Hidden files and folders are left out, and so are links.

    Raises:
        ConfigError: no such folder, or it holds no text file.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"documents: there is no folder {str(folder)!r}")
        self._folder = folder
        paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")))
        self._names = [
            path.as_posix()
            for path in paths
            if path.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in path.parts)
            and (folder / path).is_file()
            and not (folder / path).is_symlink()
        ]
        if not self._names:
            raise ConfigError(
                f"documents: {str(folder)!r} holds no text file ({', '.join(SUFFIXES)})"
            )

    def __getitem__(self, name: str) -> str:
        """The text of a file.

        Raises:
            ConfigError: it is no UTF-8, or cannot be read.
        """
        try:
            return (self._folder / name).read_text("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"documents: {name!r} is no text in UTF-8") from None
        except OSError as error:
            raise ConfigError(f"documents: {name!r} cannot be read: {error.strerror}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
