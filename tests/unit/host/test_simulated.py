"""An owner that is begun anew for each message says what it would have said: without Flower."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, Completion, decode, encode
from cosilo.errors import CapabilityError
from cosilo.host import simulated
from cosilo.host.simulated import asks_next
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.types import Generation, user


def reply(text: str) -> bytes:
    return encode(Completion(generation=Generation(text)))


async def takes_part(number: int, party: Any) -> str:
    """Asks twice, each time with what was said before."""
    said = ""
    for _ in range(2):
        answer = await party.handle(Ask(chat=user(f"{number} {said}")))
        said += answer.generation.text
    return said


def asked(payload: bytes) -> str:
    return str(decode(payload).chat[0].content)  # type: ignore[attr-defined]


async def test_it_asks_what_has_no_answer_yet_and_is_left_there() -> None:
    assert asked(await asks_next(takes_part, 7, [])) == "7 "
    assert asked(await asks_next(takes_part, 7, [reply("a")])) == "7 a"
    assert await asks_next(takes_part, 7, [reply("a"), reply("b")]) == b""
    assert len(asyncio.all_tasks()) == 1  # nothing of it goes on


async def test_what_fails_in_it_is_raised() -> None:
    async def fails(number: int, party: Any) -> None:
        raise KeyError("private")

    with pytest.raises(KeyError):
        await asks_next(fails, 0, [])


async def test_nothing_comes_in_pieces() -> None:
    async def streams(number: int, party: Any) -> None:
        async for _ in party.handle_stream(Ask(chat=user("x"))):
            pass

    with pytest.raises(CapabilityError, match="no replies in pieces"):
        await asks_next(streams, 0, [])


@pytest.mark.timeout(20)
def test_an_engine_that_fails_ends_the_simulation() -> None:
    """Where replies are fetched, too, while all else waits for them."""

    class Grid:
        def get_node_ids(self) -> list[int]:
            return []

        def pull_messages(self, wanted: list[str]) -> list[Any]:
            raise RuntimeError("the engine is gone")

    settings = FederationSettings(owners=("bank", "town"), rounds=1, rank=2)
    served = simulated._Served(Federation(settings, None), settings.owners, None)
    served._waits["asked"] = Any  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="engine is gone"):
        served.run(Grid())
