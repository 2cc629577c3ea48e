"""Owners of tiny models whose updates are summed and seen by nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.unit.strategies.upward.test_federated import (
    LABELS,
    by_hand,
    changed,
    examples,
    federation,
    prepared,
)

from cosilo.boundary.messages import Enrolled, Masked
from cosilo.errors import CapabilityError, ConfigError, FederationError, ModelError
from cosilo.federation.private import UpdateNoise, in_sum
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.adapters import (
    adapter_of,
)
from cosilo.parties.lm_owner import LMOwner
from cosilo.privacy.mechanisms import Gaussian
from cosilo.strategies.base import Session, strategies

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

OWNERS = ("a", "b", "c")
assert len(LABELS) == len(OWNERS)


class Hearing(LMOwner):
    """Notes what it hears, and is not heard where `deaf` says so."""

    said: list[Any]
    deaf: Any = None

    async def handle(self, message: Any) -> Any:
        self.said.append((self.client, message))
        if self.deaf is not None and self.deaf(self.client, message):
            raise ModelError("killed")
        return await super().handle(message)


def party(coordinator: Any, name: str, said: list[Any], deaf: Any = None) -> LMOwner:
    kind = type("Heard", (Hearing,), {"said": said, "deaf": staticmethod(deaf) if deaf else None})
    return kind(ScriptedModel(), client=name, federation=coordinator)


def trained(session: Session) -> dict[str, Any]:
    return dict(adapter_of(session.owner.model.module).tensors)


def together(
    said: list[Any], *, options: Any = None, noisy: Any = None, **settings: Any
) -> list[Any]:
    async def run() -> list[Any]:
        coordinator = federation(*OWNERS, secure=True, **settings)
        try:
            return await asyncio.gather(
                *(
                    prepared(
                        party(coordinator, name, said, noisy), name, of,
                        secure=True, **(options or {}),
                    )
                    for of, name in enumerate(OWNERS)
                ),
                return_exceptions=True,
            )  # fmt: skip
        finally:
            coordinator.close()

    return asyncio.run(run())


def test_it_comes_to_the_average_and_no_update_crosses() -> None:
    said: list[Any] = []
    sessions = together(said)
    found = [trained(s) for s in sessions]
    wanted = by_hand(3, 2)
    for name, tensor in wanted.items():
        assert all(np.array_equal(one[name], found[0][name]) for one in found)
        assert np.allclose(found[0][name], tensor, atol=1e-5)
    kinds = [type(m).__name__ for owner, m in said if owner == "a"]
    assert "Contribute" not in kinds
    steps = ["Advertise", "HandShares", "Masked", "Unmask"]
    assert [k for k in kinds if k in steps] == steps * 2
    net = 4 * sum(t.size for t in wanted.values())
    assert all(len(m.vector) == net + 4 for _, m in said if isinstance(m, Masked))
    (card,) = sessions[0].cards
    assert card.facts["updates taken"] == 2


@pytest.mark.parametrize("kind", ["Advertise", "HandShares", "Masked", "Unmask", "NextStep"])
def test_an_owner_killed_at_any_step_says_the_same_and_nobody_sees_it(
    tmp_path: Path, kind: str
) -> None:
    said: list[Any] = []
    told: set[str] = set()

    def deaf(owner: str, message: Any) -> bool:
        if owner == "b" and type(message).__name__ == kind and kind not in told:
            told.add(kind)
            return True
        return False

    async def run() -> list[dict[str, Any]]:
        coordinator = federation(*OWNERS, secure=True, path=tmp_path / "f.sqlite", rounds=1)

        async def one(of: int, name: str) -> Session:
            for attempt in range(2):
                heard = party(coordinator, name, said, deaf)
                try:
                    return await prepared(heard, name, of, secure=True, checkpoints=tmp_path / name)
                except ModelError:
                    assert attempt == 0
            raise AssertionError

        try:
            return [
                trained(s) for s in await asyncio.gather(*(one(i, n) for i, n in enumerate(OWNERS)))
            ]
        finally:
            coordinator.close()

    found = asyncio.run(run())
    wanted = by_hand(3, 1)
    assert told == {kind}
    for name, tensor in wanted.items():
        assert np.allclose(found[1][name], tensor, atol=1e-5)
    given: dict[str, Any] = {}
    for owner, message in said:
        if owner == "b" and type(message).__name__ in (
            "Advertise",
            "HandShares",
            "Masked",
            "Unmask",
        ):
            assert given.setdefault(type(message).__name__, message) == message


def test_all_noise_of_a_sum_counts_where_owners_are_relied_on() -> None:
    said: list[Any] = []
    options = {"noise": 0.05, "clip": 0.5, "relied_on": 3}
    sessions = together(said, options=options, rounds=1)
    found = trained(sessions[0])
    noise = UpdateNoise(0.5, 0.05, "group")
    for _, message in said:
        if isinstance(message, Masked):
            assert message.release is not None
            assert message.release.mechanism == in_sum(noise, 3).mechanism
            assert message.release.mechanism == Gaussian(
                sigma=pytest.approx(0.025 * 3**0.5), sensitivity=0.5
            )
            assert message.release.draw
    # What is in the mean: the owners' ways, each cut, and a third of the noise of three.
    from tests.unit.strategies.upward.test_federated import (
        first_adapter,
        layers_to_adapt,
        tiny,
        trained_adapter,
    )

    model = tiny(1)
    first = first_adapter(layers_to_adapt(model.module), 2, alpha=4.0, seed=0)
    plain = np.zeros(sum(t.size for t in first.tensors.values()))
    names = sorted(first.tensors)
    for of in range(3):
        adapter, _ = trained_adapter(
            model.module, first, [model.tokenize(e.chat, e.target) for e in examples(of)],
            steps=3, batch=4, learning_rate=1e-2, seed=1,
        )  # fmt: skip
        way = np.concatenate([(adapter.tensors[n] - first.tensors[n]).ravel() for n in names])
        plain += way * min(1.0, 0.5 / np.linalg.norm(way)) / 3
    rest = np.concatenate([(found[n] - first.tensors[n]).ravel() for n in names]) - plain
    assert rest.std() == pytest.approx(0.025 / 3**0.5, rel=0.05)


def test_a_round_that_too_few_finish_is_told_to_all() -> None:
    said: list[Any] = []

    def deaf(owner: str, message: Any) -> bool:
        return owner in "bc" and isinstance(message, Masked)

    found = together(said, noisy=deaf, rounds=1, step_s=0.3)
    assert isinstance(found[0], FederationError)
    assert "1 good masked updates of the 3 that it needs, and no update was seen" in str(found[0])


def test_numbers_without_room_in_the_sum_are_not_sent() -> None:
    said: list[Any] = []
    options = {"least_owners": 2}
    found = together(said, options=options, rounds=1, quorum=2, secure_largest=1e-6, deadline_s=0.3)
    assert all(isinstance(one, FederationError) for one in found), found
    assert not [m for _, m in said if type(m).__name__ in ("Advertise", "Masked")]


@pytest.mark.parametrize(
    ("settings", "options", "why"),
    [
        ({"secure": False}, {"secure": True}, "secure = true, or the owner secure = false"),
        ({"secure": True}, {}, "set secure = true"),
        ({"secure": True, "quorum": 2}, {"secure": True}, "sums of 2 updates, .* of 3 in each"),
        (
            {"secure": True, "quorum": 2},
            {"secure": True, "least_owners": 2, "relied_on": 3, "noise": 1.0},
            "of 3 in each",
        ),
        (
            {"secure": True, "counts": True, "most_examples": 9},
            {"secure": True, "relied_on": 2, "noise": 1.0},
            "noise has several sizes",
        ),
        (
            {"secure": True, "counts": True, "most_examples": 9},
            {"secure": True, "noise": 1.0},
            "without noise: no ε is for that; set tell_count = true",
        ),
    ],
)
def test_it_takes_part_only_where_it_is_summed_as_it_wants(
    settings: Any, options: Any, why: str
) -> None:
    async def run() -> None:
        coordinator = federation(*OWNERS, **settings)
        try:
            await prepared(coordinator, "a", **options)
        finally:
            coordinator.close()

    with pytest.raises(CapabilityError, match=why):
        asyncio.run(run())


class Lying(LMOwner):
    lie: Any

    async def handle(self, message: Any) -> Any:
        return type(self).lie(await super().handle(message))


@pytest.mark.parametrize(
    ("lie", "error", "why"),
    [
        (changed(Enrolled, sums=None), CapabilityError, "would see this owner's updates"),
        (changed(Enrolled, rule="median"), ConfigError, "'median' reads each owner's update"),
    ],
)
def test_a_coordinator_that_would_look_is_refused(lie: Any, error: Any, why: str) -> None:
    async def run() -> None:
        coordinator = federation(*OWNERS, secure=True)
        kind = type("Liar", (Lying,), {"lie": staticmethod(lie)})
        try:
            await prepared(
                kind(ScriptedModel(), client="a", federation=coordinator), "a", secure=True
            )
        finally:
            coordinator.close()

    with pytest.raises(error, match=why):
        asyncio.run(run())


def test_options_that_do_not_go_together_are_refused() -> None:
    for options in ({"relied_on": 2}, {"relied_on": 2, "noise": 1.0}, {"least_owners": 1}):
        with pytest.raises(ConfigError, match="relied_on"):
            strategies.create("federated", **options)
    needs = strategies.create("federated", secure=True).needs
    assert "Contribute" not in {m.__name__ for m in needs.sends}
    assert "cryptography" in needs.loads.packages  # said before a round is trained
    assert "cryptography" not in strategies.create("federated").needs.loads.packages
