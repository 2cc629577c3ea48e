"""An owner leaves and takes its updates back; the others notice, go on, and end without it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.unit.strategies.upward.test_federated import (
    HOW,
    by_hand,
    examples,
    federation,
    prepared,
)
from tests.unit.strategies.upward.test_federated_sums import trained

from cosilo.boundary.messages import Advertise, Contribute, Forget, Forgotten, Masked
from cosilo.boundary.messages.forget import InFederation
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import strategies
from cosilo.strategies.federating.owner import FederationOwner
from white_box import tiny

pytestmark = pytest.mark.timeout(120)  # torch on a busy machine takes its time


class Leaves(LMOwner):
    """Its client asks to be forgotten when round 1 has closed, and 2 cannot without it."""

    told: list[Forgotten]

    async def handle(self, message: Any) -> Any:
        if isinstance(message, Contribute | Advertise) and message.number == 2:
            assert self.federation is not None
            own = InFederation(federation=self.federation.name)
            answer = await super().handle(Forget(forget=32 * "f", federations=(own,)))
            assert isinstance(answer, Forgotten)
            self.told.append(answer)
        return await super().handle(message)


def run(
    *,
    owners: dict[str, Any] | None = None,
    heard: Any = None,
    folder: Path | None = None,
    **how: Any,
) -> tuple[list[Any], Forgotten]:
    """Three owners, of which the last leaves; what became of each, and what that one was told."""
    told: list[Forgotten] = []

    async def together() -> list[Any]:
        coordinator = federation("a", "b", "c", **how)
        leaves = type("LeavesNow", (Leaves,), {"told": told})
        parties = [
            LMOwner(ScriptedModel(), client="a", federation=coordinator),
            (heard or LMOwner)(ScriptedModel(), client="b", federation=coordinator),
            leaves(ScriptedModel(), client="c", federation=coordinator),
        ]
        try:
            return await asyncio.gather(
                *(
                    prepared(
                        party, party.client, of, **(owners or {}),
                        checkpoints=folder and folder / party.client,
                    )
                    for of, party in enumerate(parties)
                ),
                return_exceptions=True,
            )  # fmt: skip
        finally:
            coordinator.close()

    found = asyncio.run(together())
    assert isinstance(found[2], RejectedError)
    assert "has left this federation" in str(found[2])
    return found[:2], told[0]


@pytest.mark.parametrize("keep", [0, 1])
def test_the_others_end_as_if_it_had_never_been_there(keep: int) -> None:
    found, told = run(keep_updates=keep, owners={"kept_updates": keep})
    (item,) = told.outcomes
    assert (item.how, item.first, item.last) == ("redone" if keep else "rolled back", 1, 1)
    assert item.left == ("others were given it",)
    wanted = by_hand(2, 2)
    for session in found:
        adapter = trained(session)
        assert all(np.array_equal(adapter[n], wanted[n]) for n in wanted)
        (card,) = session.cards
        assert card.facts["rounds were taken back"].startswith("1 times")


def test_stacked_adapters_are_taken_off_again() -> None:
    def weights(session: Any) -> dict[str, Any]:
        module = session.owner.model.module
        return {n: p.detach().numpy().copy() for n, p in module.named_parameters()}

    how = {"rule": "flora", "rounds": 2}
    found, told = run(**how)
    assert told.outcomes[0].how == "rolled back"

    async def two() -> list[Any]:
        coordinator = federation("a", "b", **how)
        try:
            return await asyncio.gather(
                *(prepared(coordinator, name, of) for of, name in enumerate("ab"))
            )
        finally:
            coordinator.close()

    for mine, apart in zip(found, asyncio.run(two()), strict=True):
        one, other = weights(mine), weights(apart)
        assert all(np.array_equal(one[n], other[n]) for n in other)


def test_sums_are_made_anew_under_other_masks(tmp_path: Path) -> None:
    said: list[Masked] = []

    class Hearing(LMOwner):
        async def handle(self, message: Any) -> Any:
            if isinstance(message, Masked):
                said.append(message)
            return await super().handle(message)

    found, told = run(
        secure=True,
        owners={"secure": True, "least_owners": 2},
        heard=Hearing,
        folder=tmp_path,
    )
    assert told.outcomes[0].how == "rolled back"
    one, other = map(trained, found)
    wanted = by_hand(2, 2)
    for name in wanted:
        assert np.array_equal(one[name], other[name])
        np.testing.assert_allclose(one[name], wanted[name], atol=1e-5)
    again = [m for m in said if m.number == 1]
    assert {m.epoch for m in again} == {0, 1}
    assert len({m.vector for m in again}) == 2, "no mask is used for another sum"


def test_noise_is_drawn_anew_and_booked_again(tmp_path: Path) -> None:
    said: list[Contribute] = []

    class Hearing(LMOwner):
        async def handle(self, message: Any) -> Any:
            if isinstance(message, Contribute):
                said.append(message)
            return await super().handle(message)

    run(owners={"noise": 0.5, "clip": 1.0}, heard=Hearing, folder=tmp_path)
    first, again = [m for m in said if m.number == 1]
    assert first.packed != again.packed, "trained from the same adapter, it has another noise"
    assert first.release is not None
    assert again.release is not None
    assert (first.release.series, first.release.draw) != (again.release.series, again.release.draw)


async def test_it_gives_no_more_updates_than_it_takes_part_with() -> None:
    how = strategies.create("federated", **HOW, rounds=2)
    owner = FederationOwner(how, tiny(1), examples(0))  # type: ignore[arg-type]
    coordinator = federation("a")
    try:
        for epoch in (0, 1):
            owner.agree(await coordinator.enrol("a", owner.enrol()))
            owner.update(1)
            owner.told(1, "taken", "")
            owner.begin_again(epoch + 1)
        owner.agree(await coordinator.enrol("a", owner.enrol()))
        with pytest.raises(CapabilityError, match="set rounds"):
            owner.update(1)
    finally:
        coordinator.close()


async def test_updates_are_kept_by_a_coordinator_that_may() -> None:
    coordinator = federation("a", keep_updates=2)
    try:
        with pytest.raises(CapabilityError, match="set kept_updates"):
            await prepared(coordinator, "a", kept_updates=1)
        assert (await prepared(coordinator, "a", kept_updates=2)).cards
    finally:
        coordinator.close()


async def test_a_run_that_begins_after_it_follows_what_stands() -> None:
    coordinator = federation("a", "b", rounds=1, quorum=1)
    try:
        await asyncio.gather(prepared(coordinator, "a"), prepared(coordinator, "b", 1))
        own = InFederation(federation=coordinator.name)
        leaves = LMOwner(ScriptedModel(), client="b", federation=coordinator)
        answer = await leaves.handle(Forget(forget=32 * "f", federations=(own,)))
        assert isinstance(answer, Forgotten)
        assert answer.outcomes[0].how == "rolled back"
        assert coordinator.closed == 0
        (card,) = (await prepared(coordinator, "a")).cards
        assert card.facts["rounds were taken back"].startswith("1 times")
        assert coordinator.closed == 1
    finally:
        coordinator.close()
