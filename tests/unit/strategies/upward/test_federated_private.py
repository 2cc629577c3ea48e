"""Owners that send scalars, and owners whose steps of training have noise."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.unit.strategies.upward.test_federated import LABELS, examples, federation, prepared
from tests.unit.strategies.upward.test_federated_sums import Hearing, party, trained

from cosilo.boundary.messages import Contribute, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import tensors
from cosilo.errors import CapabilityError, ConfigError, ModelError
from cosilo.federation.scalars import SCALARS, Directions, moved, walked
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    layers_to_adapt,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.training import Schedule, order
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.privacy.mechanisms import SampledGaussian
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Sampling
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

WALK: dict[str, Any] = {"method": "scalars", "steps": 4}
FEW = {"method": "scalars", "directions": 16, "rate": 1e-3}


def together(names: str, said: list[Any], settings: Any, **options: Any) -> list[Session]:
    async def run() -> list[Session]:
        coordinator = federation(*names, **settings)
        try:
            return await asyncio.gather(
                *(
                    prepared(party(coordinator, n, said), n, i, **options)
                    for i, n in enumerate(names)
                )
            )
        finally:
            coordinator.close()

    return asyncio.run(run())


def walk_by_hand(owners: int, rounds: int) -> dict[str, Any]:
    """What comes of scalars, written out."""
    import torch

    model, directions = tiny(1), Directions(0, 16)
    first = first_adapter(layers_to_adapt(model.module), 2, alpha=4.0, seed=0)
    total = np.zeros(16, np.float32)

    def loss_at(weights: Any, batch: Any) -> float:
        with torch.no_grad():
            return float(reply_loss(with_adapter(model.module, Adapter(2, 4.0, weights)), batch))

    for number in range(1, rounds + 1):
        given = []
        for of in range(owners):
            own = [model.tokenize(e.chat, e.target) for e in examples(of)]
            schedule = Schedule(steps=4, batch=4, seed=number)

            def loss(step: int, w: Any, own: Any = own, schedule: Any = schedule) -> float:
                return loss_at(w, [own[i] for i in order(len(own), schedule, step)])

            start = moved(first.tensors, total, directions, rate=1e-3)
            _, scalars = walked(loss, start, directions, steps=4, rate=1e-3, seed=number)
            given.append((total + scalars).astype(np.float32))
        total = np.mean([g.astype(np.float64) for g in given], axis=0).astype(np.float32)
    return moved(first.tensors, total, directions, rate=1e-3)


def test_what_comes_of_scalars_is_where_their_mean_leads() -> None:
    said: list[Any] = []
    found = [trained(s) for s in together("ab", said, FEW, **WALK)]
    wanted = walk_by_hand(2, 2)
    for name, tensor in wanted.items():
        assert np.allclose(found[0][name], tensor, atol=1e-6)
        assert np.array_equal(found[0][name], found[1][name])
    sent = [m for _, m in said if isinstance(m, Contribute)]
    assert {n: t.shape for n, t in tensors.unpack(sent[0].packed).items()} == {SCALARS: (16,)}


def test_an_owner_and_round_take_less_than_18_kb() -> None:
    ledger = MemoryLedger()

    async def run() -> None:
        coordinator = federation("a", method="scalars", rounds=3)
        strategy = strategies.create("federated", rank=2, batch=4, **WALK | {"steps": 1})
        session = open_session(
            DataOwner(tiny(1), private=examples(0)),
            LMOwner(ScriptedModel(), client="a", federation=coordinator),
            strategy,
            ledger=ledger,
            sampling=Sampling(choices=LABELS),
        )
        await strategy.prepare(session)
        coordinator.close()

    asyncio.run(run())
    entries = [e for e in ledger.entries() if e.kind not in ("Enrol", "Enrolled")]
    assert sum(e.kind == "Contribute" for e in entries) == 3
    assert 16_384 < sum(e.size for e in entries) / 3 <= 18_000


def test_scalars_can_be_summed_so_that_nobody_sees_them() -> None:
    said: list[Any] = []
    plain = [trained(s) for s in together("abc", [], FEW | {"rounds": 1}, **WALK)]
    settings = FEW | {"rounds": 1, "secure": True}
    found = [trained(s) for s in together("abc", said, settings, secure=True, **WALK)]
    for name, tensor in plain[0].items():
        assert np.allclose(found[0][name], tensor, atol=1e-6)
    assert not [m for _, m in said if isinstance(m, Contribute)]
    assert max(len(encode(m)) for _, m in said) < 4000


def test_a_walk_that_was_killed_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    said: list[Any] = []
    wanted = trained(together("a", said, FEW | {"rounds": 1}, **WALK)[0])

    async def once(coordinator: Any) -> Session:
        return await prepared(
            party(coordinator, "a", said), "a", checkpoints=tmp_path / "own", **WALK
        )

    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        from cosilo.models.white_box.adapters import AdapterLoss

        real = AdapterLoss.__call__

        def failing(self: Any, weights: Any, batch: Any) -> float:
            calls.append(1)
            if len(calls) == 6:  # in the third step
                raise ModelError("killed")
            return real(self, weights, batch)

        patch.setattr(AdapterLoss, "__call__", failing)
        coordinator = federation("a", **FEW | {"rounds": 1})
        with pytest.raises(ModelError, match="killed"):
            asyncio.run(once(coordinator))
        (kept,) = (tmp_path / "own").glob("*/walk")
        assert kept.stat().st_size == 16
        assert kept.stat().st_mode & 0o777 == 0o600
        kept.write_bytes(kept.read_bytes() + b"half")
        session = asyncio.run(once(coordinator))
        coordinator.close()
    assert len(calls) == 6 + 2 * 2 + 1  # two further steps, and the loss of the last one
    found = trained(session)
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted)
    assert not list((tmp_path / "own").glob("*/walk"))


@pytest.mark.parametrize(
    ("settings", "options"), [(FEW, {}), ({}, WALK)], ids=["owner", "coordinator"]
)
def test_adapters_and_scalars_do_not_meet(settings: Any, options: Any) -> None:
    with pytest.raises(CapabilityError, match="set method"):
        together("a", [], settings, **options)


def test_settings_of_scalars_are_looked_at() -> None:
    for settings, why in (
        ({"rule": "flora"}, "puts adapters together"),
        ({"directions": 0}, "directions"),
        ({"rate": 0.0}, "rate"),
    ):
        with pytest.raises(ValueError, match=why):
            federation("a", "b", **FEW | settings)
    with pytest.raises(ConfigError, match="epsilon"):
        strategies.create("federated", epsilon=0.0)


# ── noise on steps ───────────────────────────────────────────────────────────

STEPS: dict[str, Any] = {"noise": 0.8, "noise_on": "step", "protects": "record", "clip": 0.5}


class Book:
    """Counts what is booked, once for each draw."""

    def __init__(self) -> None:
        self.required: list[Any] = []
        self.spent: dict[str, Any] = {}

    async def require(self, releases: Any) -> None:
        self.required = list(releases)

    def spending(self, release: Any, epsilon: float = 0.0) -> Any:
        from contextlib import nullcontext

        if release is not None:
            self.spent[release.draw] = release
        return nullcontext()


def noisy(folder: Path, book: Any, said: list[Any], deaf: Any = None, **options: Any) -> Session:
    async def run() -> Session:
        coordinator = federation("a", path=folder / "f.sqlite")
        strategy = strategies.create(
            "federated", rank=2, steps=3, batch=4, learning_rate=1e-2,
            key_file=folder / "key", checkpoints=folder / "own", **STEPS | options,
        )  # fmt: skip
        unheard = staticmethod(deaf) if deaf else None
        kind = type("Heard", (Hearing,), {"said": said, "deaf": unheard})
        session = open_session(
            DataOwner(tiny(1), private=examples(0)),
            kind(ScriptedModel(), client="a", federation=coordinator),
            strategy,
            account=book,
            sampling=Sampling(choices=LABELS),
        )
        try:
            return (await strategy.prepare(session))[1]
        finally:
            coordinator.close()

    return asyncio.run(run())


def test_noise_on_steps_is_booked_for_each_record_and_each_round_once(tmp_path: Path) -> None:
    book, said = Book(), []

    def deaf(_: str, message: Any) -> bool:
        return isinstance(message, Contribute) and message.number == 2 and len(said) == 5

    with pytest.raises(ModelError, match="killed"):
        noisy(tmp_path, book, said, deaf)
    for kept in (tmp_path / "own").glob("*.update"):
        kept.unlink()  # it is trained again, with the same noise
    session = noisy(tmp_path, book, said)
    wanted = SampledGaussian(noise=0.8, rate=0.5, steps=3)
    assert [r.mechanism for r in book.required] == [wanted] * 2
    assert [(r.mechanism, r.unit) for r in book.spent.values()] == [(wanted, "record")] * 2
    second = [m for _, m in said if isinstance(m, Contribute) and m.number == 2]
    assert len(second) == 2
    assert second[0] == second[1]
    (card,) = session.cards
    assert "at δ = 1e-05" in str(card.facts["ε of all of its records together"])


def test_steps_have_other_noise_under_another_key(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, two = (trained(noisy(tmp_path / n, Book(), [])) for n in "12")
    assert any(not np.array_equal(one[n], two[n]) for n in one)  # each has a key of its own


def test_what_noise_on_steps_cannot_be_is_refused() -> None:
    for options, why in (
        ({"protects": "group"}, 'protects = "record"'),
        ({"noise": 0.0}, "set noise"),
        ({"method": "scalars"}, "scalars have none"),
        ({"secure": True, "relied_on": 2}, "noise on the update"),
    ):
        with pytest.raises(ConfigError, match=why):
            strategies.create("federated", **STEPS | options)
