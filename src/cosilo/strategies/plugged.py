"""Asking the LM with an adapter of the owner's, and what to send where its owner has forgotten it.

Ask(adapter) ──▶ answer
    └ not known any more ──▶ again: it is sent once more ──▶ Ask(adapter) ──▶ answer
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from cosilo.boundary.messages import Ask, Completion
from cosilo.errors import UnknownAdapterError
from cosilo.strategies.base import Session
from cosilo.types import Answer, Chat, Delta, assemble, closing

Again = Callable[[], Awaitable[str]]
"""Sends what makes the adapter once more; the name that it then has."""


async def answered(session: Session, chat: Chat, name: str, again: Again) -> Answer:
    """The LM's answer with the adapter `name`; without one, as it is."""
    ask = Ask(chat=chat, sampling=session.sampling, adapter=name)
    try:
        reply: Completion = await session.lm.send(ask)
    except UnknownAdapterError:
        ask = Ask(chat=chat, sampling=session.sampling, adapter=await again())
        reply = await session.lm.send(ask)
    return Answer(reply.generation, by="large")


async def streamed(
    session: Session, chat: Chat, name: str, again: Again
) -> AsyncIterator[Delta | Answer]:
    """The same in pieces, the whole `Answer` last."""
    received: list[Delta] = []
    for second in (False, True):
        called = await again() if second else name
        ask = Ask(chat=chat, sampling=session.sampling, adapter=called)
        try:
            async with closing(session.lm.stream(ask)) as pieces:
                async for delta in pieces:
                    received.append(delta)
                    yield delta
            break
        except UnknownAdapterError:
            if second or received:
                raise
    yield Answer(assemble(received), by="large")
