"""Logit distillation on tiny models: what crosses, what is learned, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosilo.boundary.messages import Score
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import BudgetExceededError, CapabilityError, DataError
from cosilo.models.base import Access, Shows, require
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Sampling

pytest.importorskip("torch")

from white_box import opened, tiny


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "jsd"])
async def test_the_small_model_comes_nearer_to_the_large_one(loss: str) -> None:
    ledger = MemoryLedger()
    strategy, session = opened(loss=loss, ledger=ledger)
    before = session.owner.model
    _, after = await strategy.prepare(session)
    labels, training = after.cards
    assert labels.facts["asked"] == 24
    assert training.facts["steps"] == 30
    assert training.facts["loss on these after"] < 0.8 * training.facts["loss on these before"]  # type: ignore[operator]
    assert after.owner.model is not before
    kinds = [e.kind for e in ledger.entries() if e.direction == "up"]
    assert kinds.count("Ask") == 24
    kept = labels.facts["kept"]
    assert isinstance(kept, int)
    assert kept > 12
    assert kinds.count("Score") == 1 + math.ceil(kept / 8)  # the first to see the vocabulary
    await after.owner.model.close()


async def test_on_policy_it_is_the_small_models_own_replies_that_are_scored() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(
        loss="jsd", on_policy=1.0, gold=True, steps=2, batch=4, ledger=ledger
    )
    _, after = await strategy.prepare(session)
    scores = [e.message for e in ledger.entries() if e.kind == "Score"]
    assert len(scores) == 1 + 3 + 2
    sampled = [i.reply for s in scores[4:] if isinstance(s, Score) for i in s.items]
    assert len(sampled) == 8
    assert len(set(sampled)) > 1
    assert "the refund" not in sampled
    assert after.cards[-1].facts["steps"] == 2


async def test_the_same_seed_gives_the_same_model() -> None:
    losses = []
    for _ in range(2):
        strategy, session = opened(loss="jsd", on_policy=0.5, gold=True, steps=4, batch=4, seed=3)
        losses.append((await strategy.prepare(session))[1].cards[-1].facts)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("rank", [0, 4])
async def test_a_model_in_bfloat16_stays_one(rank: int) -> None:
    small = tiny(1)
    small = small.with_module(small.module.bfloat16())
    strategy, session = opened(small=small, gold=True, steps=4, batch=4, rank=rank)
    _, after = await strategy.prepare(session)
    trained = require(after.owner.model, Access.WEIGHTS, by="the test")
    assert str(trained.module.dtype) == "torch.bfloat16"
    facts = after.cards[-1].facts
    assert facts["loss on these after"] < facts["loss on these before"]  # type: ignore[operator]


async def test_gold_targets_need_no_reply_of_the_large_model() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(gold=True, steps=2, ledger=ledger)
    await strategy.prepare(session)
    assert {e.kind for e in ledger.entries()} == {"Score", "Scores"}


async def test_another_vocabulary_is_refused_before_replies_are_asked_for() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(large=tiny(0, words=("hello",)), ledger=ledger)
    with pytest.raises(CapabilityError, match="distil_across"):
        await strategy.prepare(session)
    assert [e.kind for e in ledger.entries()] == ["Score", "Scores"]


@pytest.mark.parametrize("exposes", [Access.TEXT.shows, Access.LOGPROBS.shows])
def test_a_teacher_without_logits_is_refused_before_anything_is_sent(exposes: Shows) -> None:
    with pytest.raises(CapabilityError, match="needs logits of the large model"):
        opened(exposes=exposes)


def test_a_small_model_without_weights_is_refused() -> None:
    with pytest.raises(CapabilityError, match="needs weights"):
        opened(small=ScriptedModel())


async def test_an_empty_pool_is_refused() -> None:
    strategy, session = opened(count=0)
    with pytest.raises(DataError, match="no pool"):
        await strategy.prepare(session)


async def test_a_budget_that_does_not_hold_stops_it() -> None:
    strategy, session = opened(meter=Meter(Budget(messages=5)))
    with pytest.raises(BudgetExceededError):
        await strategy.prepare(session)
    assert session.lm.totals.messages <= 5


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"temperature": 0}, {"beta": 2}, {"on_policy": -1}, {"steps": 0}, {"rank": -1}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, Exception), match=next(iter(options))):
        strategies.create("distil_logits", **options)


class TestContract(StrategyContract):
    def strategy(self) -> Any:
        return strategies.create("distil_logits", steps=3, batch=4, items=8)

    def open(self, **kwargs: Any) -> Session:
        given = self.owner()
        held = DataOwner(tiny(1), given.private, given.pool, calibration=given.calibration)
        lm = LMOwner(tiny(0), exposes=Access.LOGITS.shows)
        choices = Sampling(choices=LABELS)
        return open_session(held, lm, self.strategy(), sampling=choices, **kwargs)
