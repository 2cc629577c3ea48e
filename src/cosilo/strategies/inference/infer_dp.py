"""The large model answers a text that was made unreadable; the small one writes the answer from both.

    text ──▶ defences (text_dp) ──▶ LM: a reply to other words ──┐
      └────────────────────────────────────────────────▶ small model ──▶ the answer

Tong et al., "InferDPT: Privacy-preserving Inference for Black-box Large Language Models" (arXiv
2310.12214): what the LM writes about a text whose words were replaced at random holds what such texts
have in common, and the small model, which has the text itself, takes from it what fits
("extraction"). The replacing is a defence's, so that what crosses is what its mechanism let through
and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from cosilo.boundary.messages import Ask
from cosilo.models.base import stream as stream_of
from cosilo.reasoning import spoken
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    Strategy,
    ask,
    strategies,
)
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Delta, Generation, Turn, assemble, closing

NOTES = (
    "\n\nNotes by somebody who saw this text with many of its words replaced by others. They may be "
    "wrong or beside the point; use only what fits the text:\n<notes>\n{reply}\n</notes>\n\n"
    "Now reply to the text itself, as it stands above the notes."
)


@strategies.register("infer_dp")
@dataclass(frozen=True, kw_only=True)
class InferDP:
    """The small model answers every question, with the LM's reply to it as notes. Put the defence
    `text_dp` around it: without a defence, the question crosses as it is.

    Attributes:
        longest: of the LM's reply so many characters are read, so that the small model's context
            holds them beside the question.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="every question, as the defence text_dp leaves it: other words, as many",
        choose="each word of a question must be deniable, and the small model writes well with notes",
    )

    longest: int = 4000

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ValueError(f"longest = {self.longest!r} is not positive")

    def forecast(self) -> Forecast:
        return (Expected("answers"),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        noted = await self._noted(session, chat)
        return _answer(await session.owner.model.generate(noted, session.sampling))

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        noted = await self._noted(session, chat)
        pieces = []
        async with closing(stream_of(session.owner.model, noted, session.sampling)) as deltas:
            async for delta in deltas:
                pieces.append(delta)
                yield delta
        yield _answer(assemble(pieces))

    async def _noted(self, session: Session, chat: Chat) -> Chat:
        reply = (await ask(session, chat)).generation
        return with_notes(chat, spoken(reply.text)[: self.longest])


def with_notes(chat: Chat, reply: str) -> Chat:
    """`chat` with the LM's reply at the end of its last user turn; as it is where nothing was said."""
    # What the LM wrote is text of the other side: it ends where we say, not where it says.
    notes = reply.replace("</notes>", "").strip()
    if not notes:
        return chat
    said = NOTES.format(reply=notes)
    last = max((i for i, turn in enumerate(chat) if turn.role == "user"), default=None)
    if last is None:
        return (*chat, Turn("user", said.strip()))
    turn = chat[last]
    noted = msgspec.structs.replace(turn, content=turn.content + said)
    return (*chat[:last], noted, *chat[last + 1 :])


def _answer(generation: Generation) -> Answer:
    return Answer(generation, by="both")
