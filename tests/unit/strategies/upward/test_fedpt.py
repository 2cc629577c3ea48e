"""Owners federate a small expert, and the LM is steered by it: `federated` then `proxy` (FedPT)."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from cosilo.boundary.messages import Ask, Step
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import Access
from cosilo.models.white_box.adapters import Adapter, merged_with
from cosilo.models.white_box.layers import is_adapted
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, forecast, strategies
from cosilo.strategies.federating.adapters import stacked
from cosilo.strategies.inference.proxy import untuned
from cosilo.types import Demonstration, Sampling, user
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LABELS = ("refund", "billing", "delivery")


def examples(of: int) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(f"{of}-{i}", user(f"about {i % 5}"), LABELS[of if i % 4 else 2])
        for i in range(8)
    )


async def owner(
    coordinator: Federation, name: str, of: int, ledger: MemoryLedger | None = None, **options: Any
) -> tuple[Strategy, Session]:
    how = {"steps": 6, "batch": 4, "learning_rate": 1e-2, "rank": 2, "then": "proxy"} | options
    strategy = strategies.create("federated", **how)
    lm = LMOwner(tiny(0), Access.LOGITS.shows, client=name, federation=coordinator)
    session = open_session(
        DataOwner(tiny(1), private=examples(of)),
        lm,
        strategy,
        sampling=Sampling(choices=LABELS),
        ledger=ledger,
    )
    return await strategy.prepare(session)


async def all_owners(
    rule: str, *ledgers: MemoryLedger, **options: Any
) -> list[tuple[Strategy, Session]]:
    settings = FederationSettings(owners=("a", "b"), rounds=2, rank=2, held_s=5.0, rule=rule)
    coordinator = Federation(settings)
    try:
        told = ledgers or (None, None)
        return await asyncio.gather(
            *(owner(coordinator, "ab"[i], i, told[i], **options) for i in range(2))
        )
    finally:
        coordinator.close()


@pytest.mark.parametrize("rule", ["average", "flora"])
def test_the_lm_is_steered_by_what_the_federation_added_and_by_nothing_else(rule: str) -> None:
    async def run() -> None:
        (steered, session), _ = await all_owners(rule)
        alone = (await all_owners(rule, then="small"))[0][1]
        expert, base = session.owner.model, untuned(session.owner.model)  # type: ignore[arg-type]
        assert is_adapted(expert.module)  # type: ignore[attr-defined]
        as_it_was = tiny(1)
        question = as_it_was.tokenize(user("about 3"), "billing")
        (wanted,) = await alone.owner.model.logits([question])  # type: ignore[attr-defined]
        (before,) = await as_it_was.logits([question])
        (with_it,) = await expert.logits([question])  # type: ignore[attr-defined]
        (without,) = await base.logits([question])  # type: ignore[attr-defined]
        assert np.array_equal(without, before), "the other small model is the one nobody trained"
        assert np.abs(with_it - wanted).max() < 1e-4, "the expert is the federation's"
        assert np.abs(with_it - before).max() > 0.05, "which is another one"
        answer = await steered.answer(session.bind("1"), user("about 1"))
        assert answer.text in LABELS

    asyncio.run(run())


def test_neither_examples_nor_questions_of_training_cross_and_the_lm_sees_no_adapter_twice() -> (
    None
):
    ledgers = MemoryLedger(), MemoryLedger()

    async def run() -> None:
        for i, (steered, session) in enumerate(await all_owners("average", *ledgers)):
            await steered.answer(session.bind("1"), user(f"question {i}"))

    asyncio.run(run())
    for i, ledger in enumerate(ledgers):
        up = [e for e in ledger.entries() if e.direction == "up"]
        kinds = [e.kind for e in up]
        assert kinds.count("Contribute") == 2, "one a round"
        assert set(kinds) == {"Enrol", "NextRound", "Contribute", "Step"}
        texts = [p.text for e in up for p in e.message.passages()]
        assert f"question {i}" in texts
        assert not any(text.startswith("about") for text in texts)
    assert not any(isinstance(e.message, Ask) for e in ledgers[0].entries())


def test_it_needs_and_forecasts_what_both_parts_send() -> None:
    strategy = strategies.create("federated", then="proxy", then_options={"alpha": 0.5})
    assert Step in strategy.needs.sends
    assert strategy.needs.untuned
    kinds = [e.message.__name__ for e in forecast(strategy)]
    assert kinds == ["Enrol", "NextRound", "Contribute", "Step", "Step"]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_stack_adds_what_its_adapters_add_up_to_full_rank(count: int) -> None:
    rng = np.random.default_rng(count)
    module = tiny(1).module
    name = "model.layers.0.self_attn.k_proj"

    def adapter(rank: int) -> Adapter:
        tensors = {
            f"{name}.lora_A": rng.normal(size=(rank, 64)).astype(np.float32),
            f"{name}.lora_B": 0.1 * rng.normal(size=(32, rank)).astype(np.float32),
        }
        return Adapter(rank, 1.5 * rank, tensors)

    adapters = [adapter(1 + i % 3) for i in range(count)]
    whole = stacked(adapters)
    assert whole.rank == min(32, sum(a.rank for a in adapters))
    wanted = sum(a.product(name).astype(np.float64) for a in adapters)
    assert np.abs(whole.product(name) - wanted).max() < 1e-4 * np.abs(wanted).max()
    one_by_one = module
    for each in adapters:
        one_by_one = merged_with(one_by_one, each)
    weight, merged = (
        dict(each.named_modules())[name].weight.detach().numpy()
        for each in (one_by_one, merged_with(module, whole))
    )
    assert np.abs(weight - merged).max() < 1e-3 * np.abs(weight).max()
