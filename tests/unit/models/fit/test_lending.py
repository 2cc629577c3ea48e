"""A model that lends: one emulator for all, poor enough; adapters for one client each, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import lent
from cosilo.boundary.wire.weights import pack_weights, unpack_weights
from cosilo.errors import CapabilityError, RejectedError, StoreError, UnknownAdapterError
from cosilo.models.fit import lending
from cosilo.models.fit.lending import Lender, LendingTerms
from cosilo.models.lent import Loan, lends
from cosilo.models.white_box.adapters import A, Adapter, B, first_adapter, merged_with
from cosilo.models.white_box.emulator import built
from cosilo.types import Sampling, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


def lend(model: Lender, client: str = "", aligned_to: str = "") -> Loan:
    return asyncio.run(model.lend(client, aligned_to, pack_weights, unpack_weights))


def adapter(model: Lender, seed: int = 0, rank: int = 2) -> Adapter:
    begun = first_adapter(model.tunable, rank, seed=seed)
    rng = np.random.default_rng(seed)
    tensors = {n: rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in begun.tensors.items()}
    return Adapter(rank, 2.0, tensors)


def plug(model: Lender, what: Adapter, client: str = "", base: str = "") -> str:
    given = (client, base or model.base, what.rank, what.alpha, what.tensors)
    return asyncio.run(model.plug_in(*given))


def said(model: Any) -> str:
    return asyncio.run(model.generate(user("about 3"), Sampling(max_tokens=6))).text


@pytest.fixture(scope="module")
def model() -> Lender:
    return lent.lender()


def test_it_is_the_model_it_lends(model: Lender) -> None:
    assert lends(model)
    assert not lends(lent.plain_model())
    assert model.identity == lent.plain_model().identity
    assert said(model) == said(lent.plain_model())


def test_the_emulator_is_made_once_for_all(model: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    loan = lend(model, "one")
    monkeypatch.setattr(lending, "emulator_of", None)
    assert lend(model, "two").packed == loan.packed
    made = built(loan.config, unpack_weights(loan.packed))
    assert (len(made.model.layers), loan.ends, len(loan.kept)) == (3, 1, 3)
    assert len(loan.packed) < 2.2 * sum(p.numel() for p in made.parameters())


def test_one_that_can_do_too_much_alone_stays_where_it_is(model: Lender) -> None:
    gap = lend(model).alone - lend(model).whole
    with pytest.raises(CapabilityError, match="nats per token worse"):
        lend(lent.lender(least_gap=gap + 0.01))
    assert lend(lent.lender(least_gap=gap - 0.01)).packed == lend(model).packed


def test_it_is_there_again_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lent.lender(checkpoints=tmp_path, recipe=replace(lent.RECIPE, noise=0.1))
    loan, name = lend(first), plug(first, adapter(first), "me")
    monkeypatch.setattr(lending, "emulator_of", None)
    second = lent.lender(checkpoints=tmp_path, recipe=replace(lent.RECIPE, noise=0.1))
    again = lend(second)
    assert again.packed == loan.packed
    assert (again.alone, again.whole, again.kept) == (loan.alone, loan.whole, loan.kept)
    there = asyncio.run(second.plugged("me", name))
    assert lent.same(there.module, asyncio.run(first.plugged("me", name)).module)
    for client, called in (("you", name), ("me", "../" + name), ("me", 32 * "0")):
        with pytest.raises(UnknownAdapterError):
            asyncio.run(second.plugged(client, called))
    with pytest.raises(StoreError, match="another model, recipe or text"):
        lend(lent.lender(checkpoints=tmp_path))


def test_what_is_plugged_in_answers_for_its_client_alone(model: Lender) -> None:
    what = adapter(model)
    name = plug(model, what, "me")
    answering = asyncio.run(model.plugged("me", name))
    assert lent.same(answering.module, merged_with(model.module, what))
    assert said(answering) != said(model)
    assert said(model) == said(lent.plain_model()), "the model itself stays as it was"
    shared = answering.module.model.embed_tokens.weight
    assert shared is model.module.model.embed_tokens.weight
    with pytest.raises(UnknownAdapterError, match="plug it in again"):
        asyncio.run(model.plugged("you", name))
    assert plug(model, what, "you") != name
    assert plug(model, what, "me") == name, "its name is its content"


def test_the_longest_unused_is_forgotten(tmp_path: Path) -> None:
    model = lent.lender(adapters=2, checkpoints=tmp_path)
    names = [plug(model, adapter(model, seed), "me") for seed in (1, 2)]
    for name in (*names, names[0]):
        asyncio.run(model.plugged("me", name))
    names.append(plug(model, adapter(model, 3), "me"))
    other = plug(model, adapter(model, 1), "you")
    asyncio.run(model.plugged("you", other))
    for name, there in zip(names, (True, False, True), strict=True):
        if there:
            asyncio.run(model.plugged("me", name))
        else:
            with pytest.raises(UnknownAdapterError):
                asyncio.run(model.plugged("me", name))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Adapter], dict[str, Any]]:
    def tensors(of: Adapter) -> dict[str, Any]:
        return {n: change(t) if n.endswith(name) else t for n, t in of.tensors.items()}

    return tensors


def named(part: str, other: str) -> Callable[[Adapter], dict[str, Any]]:
    return lambda of: {n.replace(part, other): t for n, t in of.tensors.items()}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (changed(B, lambda t: t * np.float32(np.nan)), "no number"),
        (changed(A, lambda t: np.full_like(t, 3e38)), "no number"),
        (changed(A, lambda t: t[:, 1:]), "does not fit"),
        (changed(A, lambda t: t[1:]), "ranks"),
        (named("layers.0", "layers.1"), "not lent"),
        (named("layers.0", "layers.9"), "no such layer"),
        (lambda of: {}, "no adapter"),
    ],
)  # fmt: skip
def test_what_is_no_adapter_of_it_is_refused(
    model: Lender, bad: Callable[[Adapter], dict[str, Any]], why: str
) -> None:
    what = adapter(model)
    with pytest.raises(RejectedError, match=why):
        asyncio.run(model.plug_in("me", model.base, what.rank, what.alpha, bad(what)))


def test_another_base_or_rank_is_refused(model: Lender) -> None:
    with pytest.raises(RejectedError, match="another model or tokeniser"):
        plug(model, adapter(model), base=32 * "0")
    narrow = lent.lender(largest_rank=1)
    with pytest.raises(RejectedError, match="rank 2"):
        plug(narrow, adapter(narrow))
    with pytest.raises(RejectedError, match="rank"):
        asyncio.run(model.plug_in("me", model.base, 0, 1.0, adapter(model).tensors))


def test_an_emulator_is_aligned_to_what_came_back_and_not_for_ever() -> None:
    model = lent.lender(alignments=1)
    plain = lend(model, "me")
    names = [plug(model, adapter(model, seed), "me") for seed in (1, 2)]
    aligned = lend(model, "me", names[0])
    assert (aligned.config, aligned.kept) == (plain.config, plain.kept)
    tensors = unpack_weights(aligned.packed)
    assert {n.split(".")[2] for n in tensors} == {"1"}, "the middle alone comes again"
    before = unpack_weights(plain.packed)
    assert any(not np.array_equal(t, before[n]) for n, t in tensors.items())
    assert lend(model, "me", names[0]).packed == aligned.packed
    with pytest.raises(CapabilityError, match="no more"):
        lend(model, "me", names[1])
    with pytest.raises(UnknownAdapterError):
        lend(model, "you", names[0])


@pytest.mark.parametrize(
    "wrong", [{"largest_rank": 0}, {"adapters": 0}, {"least_gap": float("nan")}, {"alignments": -1}]
)
def test_terms_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LendingTerms(**wrong)
