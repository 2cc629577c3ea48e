"""The other owner's work stands on its own clock, and never on the data owner's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import thread_time

import pytest

from cosilo.boundary.messages import Ask, Completion
from cosilo.clock import Clock, install, timed
from cosilo.models.base import TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.timed import Timed
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Chat, Delta, Generation, Sampling, user

ASK = Ask(chat=user("q"))


def burn(seconds: float) -> None:
    end = thread_time() + seconds
    while thread_time() < end:
        pass


class Working(ScriptedModel):
    """Works on this machine for each reply, and for each piece of one."""

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        await asyncio.to_thread(burn, 0.01)
        burn(0.01)
        return Generation("a")

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        for text in ("a", "b"):
            await asyncio.sleep(0)
            burn(0.01)
            yield Delta(text)


@pytest.fixture(autouse=True)
async def clocked() -> None:
    install(asyncio.get_running_loop())


async def asked(model: TextModel, clock: Clock) -> None:
    party = Timed(LMOwner(model), clock)
    burn(0.005)
    assert await party.handle(ASK) == Completion(generation=Generation("a"))
    burn(0.005)


async def streamed(model: TextModel, clock: Clock) -> None:
    pieces = []
    async for delta in Timed(LMOwner(model), clock).handle_stream(ASK):
        burn(0.005)  # what is done with a piece is the data owner's work
        pieces.append(delta.text)
    assert pieces == ["a", "b"]


@pytest.mark.parametrize("ask", [asked, streamed])
async def test_work_of_the_lms_owner_is_not_the_data_owners(ask: object) -> None:
    own, other = Clock(), Clock()
    await timed(ask(Working(), other), own)  # type: ignore[operator]
    assert 0.019 < other.cpu_seconds < 0.03
    assert 0.009 < own.cpu_seconds < 0.018


async def test_leaving_a_stream_closes_it() -> None:
    class Endless(ScriptedModel):
        closed = False

        async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
            try:
                while True:
                    yield Delta("x")
            finally:
                self.closed = True

    model = Endless()
    pieces = Timed(LMOwner(model)).handle_stream(ASK)
    await anext(pieces)
    await pieces.aclose()
    assert model.closed
