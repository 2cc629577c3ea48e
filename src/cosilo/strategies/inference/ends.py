"""The two ends between which every collaboration lies: small model alone, large model alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from cosilo.boundary.messages import Ask
from cosilo.models.base import stream
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, ask, strategies
from cosilo.strategies.confidence import confidence
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Delta, assemble, closing


@strategies.register("small")
@dataclass(frozen=True)
class Small:
    """The small model answers alone; nothing crosses."""

    guide: ClassVar[Guide] = Guide(
        crosses="nothing",
        choose="it is good enough; beside all others in any case, as their measure",
    )

    needs: ClassVar[Needs] = Needs()

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        reply = await session.owner.model.generate(chat, session.sampling)
        return Answer(reply, by="small", confidence=confidence(reply, session.sampling))

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        pieces = []
        async with closing(stream(session.owner.model, chat, session.sampling)) as deltas:
            async for delta in deltas:
                pieces.append(delta)
                yield delta
        reply = assemble(pieces)
        yield Answer(reply, by="small", confidence=confidence(reply, session.sampling))


@strategies.register("large")
@dataclass(frozen=True)
class Large:
    """The large model answers everything."""

    guide: ClassVar[Guide] = Guide(
        crosses="every question, as the owner put it",
        choose="everything may cross; beside all others in any case, as their measure",
    )

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))

    def forecast(self) -> Forecast:
        return (Expected("answers", plain=True),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return Answer((await ask(session, chat)).generation, by="large")

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        pieces = []
        crossing = session.lm.stream(Ask(chat=chat, sampling=session.sampling))
        async with closing(crossing) as deltas:  # a client that leaves cancels the LM's work
            async for delta in deltas:
                pieces.append(delta)
                yield delta
        yield Answer(assemble(pieces), by="large")
