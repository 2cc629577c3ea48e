"""Owners of a tiny model train it together with a larger one of the coordinator's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cosilo.boundary.wire import tensors
from cosilo.errors import CapabilityError, ConfigError, FederationError, StoreError
from cosilo.federation.low_rank import truncated
from cosilo.federation.rules import rules
from cosilo.federation.updates import OwnerUpdate
from cosilo.models.fit.mutual import MutualLM
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    first_adapter,
    layers_to_adapt,
    trained_adapter,
    upper_layers,
)
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Demonstration, Sampling, user
from mutual_pair import LABELS, mutual
from white_box import tiny

pytestmark = pytest.mark.timeout(300)

HOW: dict[str, Any] = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "rank": 2}


def examples(of: int) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(f"{of}-{i}", user(f"about {i % 5}"), LABELS[(of + i % 2) % 3])
        for i in range(8)
    )


def federation(
    *owners: str, pair: MutualLM | None = None, path: Path | None = None, **options: Any
) -> Federation:
    settings = {"owners": owners, "rounds": 2, "rank": 2, "held_s": 5.0} | options
    return Federation(FederationSettings(**settings), path, mutual=pair or mutual())


async def prepared(
    coordinator: Federation, name: str, of: int, strategy: str = "fedcollm", **options: Any
) -> Session:
    made = strategies.create(strategy, **HOW | options)
    party = LMOwner(ScriptedModel(), client=name, federation=coordinator)
    owner = DataOwner(tiny(1), private=examples(of))
    session = open_session(owner, party, made, sampling=Sampling(choices=LABELS))
    return (await made.prepare(session))[1]


def together(coordinator: Federation, *ranks: int) -> list[Session]:
    async def run() -> list[Session]:
        try:
            return await asyncio.gather(
                *(
                    prepared(coordinator, name, of, rank=rank)
                    for of, (name, rank) in enumerate(zip("abc", ranks, strict=False))
                )
            )
        finally:
            coordinator.stop()
            coordinator.close()

    return asyncio.run(run())


def by_hand(ranks: tuple[int, ...], rule: str, rounds: int = 2) -> tuple[Any, Any]:
    """What comes of it for the small and the large model, written out."""
    model, pair, large = tiny(1), mutual(), None
    starts = [first_adapter(layers_to_adapt(model.module), r, seed=0) for r in ranks]
    top = dict(starts[int(np.argmax(ranks))].tensors)
    for number in range(1, rounds + 1):
        updates = []
        for of, rank in enumerate(ranks):
            start = Adapter(rank, 2.0 * rank, truncated(top, rank))
            found, _ = trained_adapter(
                model.module, start,
                [model.tokenize(e.chat, e.target) for e in examples(of)],
                steps=3, batch=4, learning_rate=1e-2, seed=number,
            )  # fmt: skip
            updates.append(OwnerUpdate("abc"[of], 1.0, found.tensors))
        made = rules.create(rule)(updates, top)
        exchanged = pair.exchange(number, made.tensors, 2.0, large, None)
        top, large = dict(exchanged.small), exchanged.large
    return top, large


def test_owners_go_on_from_what_the_large_model_taught(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    sessions = together(federation("a", "b", path=path), 2, 2)
    small, large = by_hand((2, 2), "average")
    for session in sessions:
        found = adapter_of(session.owner.model.module).tensors
        assert all(np.array_equal(found[n], small[n]) for n in small)
        (card,) = session.cards
        assert card.by == "fedcollm"
        assert (card.facts["rounds"], card.facts["updates taken"]) == (2, 2)
    folder = tmp_path / "f.mutual"
    (kept,) = folder.glob("round-2-*")
    assert kept.stat().st_mode & 0o77 == 0 == folder.stat().st_mode & 0o77
    there = tensors.unpack(kept.read_bytes())
    assert all(np.array_equal(there[n], large[n]) for n in large)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert not list(folder.glob("training-*"))


def test_owners_may_adapt_the_last_layers_alone() -> None:
    async def run() -> list[Session]:
        coordinator = federation("a", "b")
        try:
            return await asyncio.gather(
                *(prepared(coordinator, n, i, rank=2, upper=1) for i, n in enumerate("ab"))
            )
        finally:
            coordinator.stop()
            coordinator.close()

    one, other = (adapter_of(s.owner.model.module) for s in asyncio.run(run()))
    assert one.layers == upper_layers(tiny(1).module, 1)
    assert all(np.array_equal(one.tensors[n], other.tensors[n]) for n in one.tensors)


def test_owners_of_unequal_ranks() -> None:
    sessions = together(federation("a", "b", rule="hetlora"), 2, 1)
    small, _ = by_hand((2, 1), "hetlora")
    for session, rank in zip(sessions, (2, 1), strict=True):
        found = adapter_of(session.owner.model.module).tensors
        assert all(np.array_equal(found[n], t) for n, t in truncated(small, rank).items())


class Dying(MutualLM):
    """Dies in its second exchange."""

    def __init__(self, whole: MutualLM) -> None:
        super().__init__(whole, whole.small, whole.public, whole.terms)

    def exchange(self, number: int, *args: Any) -> Any:
        if number == 2:
            raise StoreError("the disk is full")
        return super().exchange(number, *args)


def test_a_coordinator_that_began_anew_goes_on_with_the_large_model_of_the_round_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.sqlite"
    with pytest.raises(StoreError, match="the disk is full"):
        together(federation("a", path=path, pair=Dying(mutual())), 2)
    (session,) = together(federation("a", path=path), 2)
    found, small = adapter_of(session.owner.model.module).tensors, by_hand((2,), "average")[0]
    assert all(np.array_equal(found[n], small[n]) for n in small)


def test_a_large_model_whose_adapter_is_gone_does_not_begin_again(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    with pytest.raises(StoreError, match="full"):
        together(federation("a", path=path, pair=Dying(mutual())), 2)
    for file in (tmp_path / "f.mutual").glob("round-1-*"):
        file.unlink()
    with pytest.raises(StoreError, match="of round 1 is not in"):
        together(federation("a", path=path), 2)


def test_another_public_set_or_large_model_is_another_federation(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    federation("a", path=path).close()
    federation("a", path=path).close()
    other = mutual()
    other.public = other.public[1:]
    with pytest.raises(ConfigError, match="other settings \\(mutual\\)"):
        federation("a", path=path, pair=other)
    with pytest.raises(ConfigError, match="other settings \\(mutual\\)"):
        Federation(FederationSettings(owners=("a",), rounds=2, rank=2, held_s=5.0), path)


def test_who_may_not_take_part_is_told_before_anything_is_trained() -> None:
    coordinator = federation("a")
    with pytest.raises(CapabilityError, match="by the strategy fedcollm"):
        asyncio.run(prepared(coordinator, "a", 0, "federated"))
    coordinator.close()
    plain = Federation(FederationSettings(owners=("a",), rounds=2, rank=2))
    with pytest.raises(CapabilityError, match="the coordinator has none"):
        asyncio.run(prepared(plain, "a", 0))
    plain.close()
    coordinator = federation("a", pair=mutual(small=tiny(7)))
    with pytest.raises(CapabilityError, match="base model and tokeniser"):
        asyncio.run(prepared(coordinator, "a", 0))
    coordinator.close()


def test_models_that_cannot_teach_each_other_begin_no_federation() -> None:
    with pytest.raises(CapabilityError, match="other tokenisers"):
        federation("a", pair=mutual(small=tiny(1, words=("refund",))))
    with pytest.raises(ConfigError, match="hetlora for unequal ranks"):
        federation("a", rule="flora")
    with pytest.raises(ConfigError, match="secure"):
        federation("a", "b", secure=True)
    with pytest.raises(ConfigError, match="must be the same"):
        federation("a", base="f" * 32)


def test_a_large_model_that_predicts_no_numbers_ends_the_federation() -> None:
    broken = tiny(0, layers=3)
    with torch.no_grad():
        broken.module.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FederationError, match=r"nothing comes of round 1.*nan"):
        together(federation("a", pair=mutual(large=broken)), 2)
