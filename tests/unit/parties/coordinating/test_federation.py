"""A federation as owners ask it: who waits is held, and woken by what others do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import NextRound
from cosilo.errors import CapabilityError, FederationError, RejectedError
from cosilo.federation import ServerStep
from cosilo.models.base import Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.kind import Coordinating
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import make_model, owned, read_model
from cosilo.types import Sampling, user
from federations import adapter, enrol, settings, update


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def parties(federation: Federation, *names: str) -> list[LMOwner]:
    return [
        LMOwner(ScriptedModel(), client=name, name="host", federation=federation) for name in names
    ]


async def ask(party: Any, federation: str, have: int = 0, patience: float = 60.0) -> Any:
    return await party.handle(
        NextRound(federation=federation, have=have, most=1 << 20, patience=patience)
    )


def test_who_waits_is_woken_by_the_last_update() -> None:
    async def run() -> None:
        federation = Federation(settings("bank", "town", rounds=1))
        bank, town = parties(federation, "bank", "town")
        name = (await bank.handle(enrol())).federation
        begins = asyncio.create_task(ask(bank, name))
        await town.handle(enrol())
        assert (await begins).state == "open"
        await bank.handle(update(name, 1, 0))
        waits = asyncio.create_task(ask(bank, name))
        assert not (await asyncio.wait([waits], timeout=0.05))[0]
        await town.handle(update(name, 1, 1))
        async with asyncio.timeout(10):
            ended = await waits
        assert ended.state == "ended"
        assert adapter(ended)
        federation.close()

    asyncio.run(run())


def test_who_waits_too_long_is_told_to_wait() -> None:
    async def run() -> None:
        federation = Federation(settings("bank", "town", held_s=0.05))
        (bank,) = parties(federation, "bank")
        name = (await bank.handle(enrol())).federation
        state = await ask(bank, name)
        assert (state.state, state.waits_for, state.here, state.wanted) == ("wait", "owners", 1, 2)
        assert (await ask(bank, name, patience=0.0)).state == "wait"
        federation.close()

    asyncio.run(run())


def test_a_deadline_ends_the_waiting_in_the_error_for_all() -> None:
    async def run() -> None:
        clock = Hand()
        federation = Federation(settings("bank", "town"), clock=clock)
        both = parties(federation, "bank", "town")
        name = (await both[0].handle(enrol())).federation
        await both[1].handle(enrol())
        await both[0].handle(update(name, 1, 0))
        clock.now = 61
        for party in both:
            with pytest.raises(FederationError, match="1 good updates of the 2"):
                await ask(party, name)
        federation.close()

    asyncio.run(run())


def test_a_coordinator_that_stops_holds_nobody() -> None:
    async def run() -> None:
        federation = Federation(settings("bank", "town"))
        (bank,) = parties(federation, "bank")
        name = (await bank.handle(enrol())).federation
        waits = asyncio.create_task(ask(bank, name))
        await asyncio.sleep(0)
        federation.stop()
        async with asyncio.timeout(10):
            assert (await waits).state == "wait"
        federation.close()

    asyncio.run(run())


def test_an_owner_that_leaves_while_it_is_worked_for_wakes_the_others() -> None:
    async def run() -> None:
        federation = Federation(settings("bank", "town", rounds=1))
        bank, town = parties(federation, "bank", "town")
        name = (await bank.handle(enrol())).federation
        await town.handle(enrol())
        await bank.handle(update(name, 1, 0))
        waits = asyncio.create_task(ask(bank, name))
        leaves = asyncio.create_task(town.handle(update(name, 1, 1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaves.cancel()
        async with asyncio.timeout(10):
            assert (await waits).state == "ended"
        federation.close()

    asyncio.run(run())


def test_an_owner_of_a_model_coordinates_nothing() -> None:
    with pytest.raises(CapabilityError, match=r"host coordinates no federation.*\[federation\]"):
        asyncio.run(LMOwner(ScriptedModel(), name="host").handle(enrol()))


def test_the_kind_federation_is_a_coordinator_and_no_model(tmp_path: Path) -> None:
    config = read_model(
        {
            "kind": "federation",
            "rounds": 1,
            "rank": 2,
            "state_file": "f.sqlite",
            "momentum": 0.5,
            "server_rate": 0.5,
        },
        where="x",
        base=tmp_path,
    )
    model = make_model(config)
    assert isinstance(model, Coordinating)
    assert model.federation.settings.server_step == ServerStep(0.5, 0.5)
    party = owned(model, Shows.TEXT)

    async def run() -> None:
        name = (await party.handle(enrol())).federation  # type: ignore[attr-defined]
        assert (await party.handle(update(name, 1, 0))).fate == "taken"  # type: ignore[attr-defined]
        with pytest.raises(RejectedError, match="no large model"):
            await model.generate(user("hello"), Sampling())
        await model.close()

    asyncio.run(run())
    assert (tmp_path / "f.sqlite").exists()
