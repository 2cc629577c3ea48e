"""Every paid call is booked before it is made, and the budget holds across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cosilo.benchmark.spend import Busy, Paid
from cosilo.benchmark.store import Store
from cosilo.boundary.meter import Budget, Price
from cosilo.errors import BudgetExceededError, UnreachableError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Chat, Generation, Sampling, user
from toy_lm import ToyLM

PRICE = Price(1e6, 1e6)  # a dollar a token


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "run", write=True)
    yield found
    found.close()


async def test_what_was_used_is_what_is_booked(store: Store) -> None:
    paid = Paid(ScriptedModel({"q": "one two"}), store, Budget(), PRICE)
    await paid.generate(user("q w e"), Sampling())
    assert (store.paid().tokens_in, store.paid().tokens_out, store.paid().usd) == (3, 2, 5.0)
    assert store.paid() == paid.totals
    assert paid.calls == 1


async def test_the_budget_counts_what_earlier_processes_paid(store: Store) -> None:
    budget = Budget(tokens_out=5)
    first = Paid(ScriptedModel({"q": "one two"}), store, budget, PRICE)
    await first.generate(user("q"), Sampling(max_tokens=3))
    inner = ScriptedModel({"q": "one two"})
    second = Paid(inner, store, budget, PRICE)
    await second.generate(user("q"), Sampling(max_tokens=3))
    with pytest.raises(BudgetExceededError):
        await second.generate(user("q"), Sampling(max_tokens=3))
    assert len(inner.seen) == 1
    assert store.paid().tokens_out == 4


async def test_what_was_confirmed_is_the_most_that_is_spent(store: Store) -> None:
    inner = ScriptedModel({"q": "one two"})
    paid = Paid(inner, store, Budget(usd=1000), PRICE)
    await paid.generate(user("q"), Sampling(max_tokens=3))
    paid.promise(paid.totals.usd)  # as much again as a call has cost: no room for a longer reply
    with pytest.raises(BudgetExceededError):
        await paid.generate(user("q"), Sampling(max_tokens=900))
    paid.promise(10_000.0)  # the plan's own budget still holds
    with pytest.raises(BudgetExceededError):
        await paid.generate(user("q"), Sampling(max_tokens=1_001))
    assert len(inner.seen) == 1


async def test_a_call_cut_off_by_a_crash_stays_booked_at_its_most(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = Paid(ScriptedModel({"q": "one"}), store, Budget(), PRICE)
    monkeypatch.setattr(store, "settle", lambda *_: None)  # killed before it could be settled
    await paid.generate(user("q"), Sampling(max_tokens=7))
    assert store.paid().tokens_out == 7


async def test_a_refused_call_costs_no_tokens(store: Store) -> None:
    paid = Paid(ScriptedModel(fail=UnreachableError("down", worked=0)), store, Budget(), PRICE)
    with pytest.raises(UnreachableError):
        await paid.generate(user("q"), Sampling())
    assert store.paid().usd == 0


async def test_a_call_that_was_worked_on_in_vain_is_paid(store: Store) -> None:
    late = UnreachableError("no reply within 120 s (tried 5 times)", worked=5)
    price = Price(0, 1e6, attempts=5)
    paid = Paid(ScriptedModel(fail=late), store, Budget(), price)
    with pytest.raises(UnreachableError):
        await paid.generate(user("q"), Sampling(max_tokens=7))
    assert store.paid().usd == 5 * 7


async def test_a_cancelled_call_may_be_billed_all_the_same(store: Store) -> None:
    class Hanging(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

    started = asyncio.Event()
    paid = Paid(Hanging(), store, Budget(), PRICE)
    task = asyncio.create_task(paid.generate(user("q"), Sampling(max_tokens=7)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.paid().tokens_out == 7


async def test_reading_for_logits_is_paid_like_a_prompt(store: Store) -> None:
    model = ToyLM()
    tokens = model.tokenize(user("question"), "yes")
    paid = Paid(model, store, Budget(tokens_in=len(tokens)), PRICE)
    (found,) = await paid.logits([tokens])
    np.testing.assert_array_equal(found, (await model.logits([tokens]))[0])
    assert (store.paid().tokens_in, store.paid().usd) == (len(tokens), len(tokens))
    asked = len(model.scored)
    with pytest.raises(BudgetExceededError):
        await paid.logits([tokens])
    assert len(model.scored) == asked
    assert paid.totals == store.paid()


def test_work_side_by_side_is_busy_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 5.0, 10.0, 12.0, 13.0))
    monkeypatch.setattr("cosilo.benchmark.spend.perf_counter", lambda: next(times))
    busy = Busy()
    with busy, busy:
        assert busy.seconds == 5.0
    assert busy.seconds == 10.0
    with busy:
        pass
    assert busy.seconds == 11.0
