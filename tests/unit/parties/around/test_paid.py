"""Every paid call is booked before it is made, and the budget holds across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, Score, Scored, Scores
from cosilo.boundary.meter import Budget, Price, Totals
from cosilo.errors import BudgetExceededError, CapabilityError, UnreachableError
from cosilo.models.base import Access, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.paid import BusyTime, Paid, Purse
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Chat, Delta, Generation, Sampling, user
from toy_lm import ToyLM

PRICE = Price(1e6, 1e6)  # a dollar a token


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "run", write=True)
    yield found
    found.close()


def opened(model: TextModel, store: Store, budget: Budget, price: Price) -> Paid:
    return Paid(LMOwner(model, exposes=Access.WEIGHTS.shows), Purse(store, budget), price)


def ask(text: str, most: int = 256) -> Ask:
    return Ask(chat=user(text), sampling=Sampling(max_tokens=most))


async def test_what_was_used_is_what_is_booked(store: Store) -> None:
    paid = opened(ScriptedModel({"q": "one two"}), store, Budget(), PRICE)
    await paid.handle(ask("q w e"))
    assert (store.paid().tokens_in, store.paid().tokens_out, store.paid().usd) == (3, 2, 5.0)
    assert store.paid() == paid.purse.totals
    assert paid.purse.calls == 1


async def test_the_budget_counts_what_earlier_processes_paid(store: Store) -> None:
    budget = Budget(tokens_out=5)
    first = opened(ScriptedModel({"q": "one two"}), store, budget, PRICE)
    await first.handle(ask("q", 3))
    inner = ScriptedModel({"q": "one two"})
    second = opened(inner, store, budget, PRICE)
    await second.handle(ask("q", 3))
    with pytest.raises(BudgetExceededError):
        await second.handle(ask("q", 3))
    assert len(inner.seen) == 1
    assert store.paid().tokens_out == 4


async def test_what_was_confirmed_is_the_most_that_is_spent(store: Store) -> None:
    inner = ScriptedModel({"q": "one two"})
    paid = opened(inner, store, Budget(usd=1000), PRICE)
    await paid.handle(ask("q", 3))
    paid.purse.promise(
        paid.purse.totals.usd
    )  # as much again as a call has cost: no room for a longer reply
    with pytest.raises(BudgetExceededError):
        await paid.handle(ask("q", 900))
    paid.purse.promise(10_000.0)  # the plan's own budget still holds
    with pytest.raises(BudgetExceededError):
        await paid.handle(ask("q", 1_001))
    assert len(inner.seen) == 1


async def test_a_call_cut_off_by_a_crash_stays_booked_at_its_most(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = opened(ScriptedModel({"q": "one"}), store, Budget(), PRICE)
    monkeypatch.setattr(store, "settle", lambda *_: None)  # killed before it could be settled
    await paid.handle(ask("q", 7))
    assert store.paid().tokens_out == 7


async def test_a_refused_call_costs_no_tokens(store: Store) -> None:
    paid = opened(ScriptedModel(fail=UnreachableError("down", worked=0)), store, Budget(), PRICE)
    with pytest.raises(UnreachableError):
        await paid.handle(ask("q"))
    assert store.paid().usd == 0


async def test_a_call_that_was_worked_on_in_vain_is_paid(store: Store) -> None:
    late = UnreachableError("no reply within 120 s (tried 5 times)", worked=5)
    price = Price(0, 1e6, attempts=5)
    paid = opened(ScriptedModel(fail=late), store, Budget(), price)
    with pytest.raises(UnreachableError):
        await paid.handle(ask("q", 7))
    assert store.paid().usd == 5 * 7


async def test_a_cancelled_call_may_be_billed_all_the_same(store: Store) -> None:
    class Hanging(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

    started = asyncio.Event()
    paid = opened(Hanging(), store, Budget(), PRICE)
    task = asyncio.create_task(paid.handle(ask("q", 7)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.paid().tokens_out == 7


async def test_reading_for_logits_is_paid_like_a_prompt(store: Store) -> None:
    model = ToyLM()
    items = tuple(Scored(user("question"), reply) for reply in ("yes", "no"))
    score = Score(items=items, top=3)
    most, _ = score.tokens_bound()
    paid = opened(model, store, Budget(tokens_in=most + 20), PRICE)
    reply = await paid.handle(score)
    assert isinstance(reply, Scores)
    read = sum(map(len, model.scored))
    assert (store.paid().tokens_in, store.paid().usd) == (read, read)
    assert (store.paid().messages, paid.purse.calls) == (1, 2)  # the model ran once for each reply
    with pytest.raises(BudgetExceededError):
        await paid.handle(score)
    assert len(model.scored) == 2
    assert paid.purse.totals == store.paid()


async def test_what_the_owner_refuses_is_not_paid(store: Store) -> None:
    model = ScriptedModel({"q": "one"})
    paid = Paid(LMOwner(model), Purse(store, Budget()), PRICE)
    with pytest.raises(CapabilityError):
        await paid.handle(Score(items=(Scored(user("q"), "yes"),)))
    assert store.paid().usd == paid.purse.totals.usd == 0
    assert not model.seen


async def test_the_privacy_that_a_message_spends_is_booked(store: Store) -> None:
    paid = opened(ScriptedModel({"q": "one"}), store, Budget(epsilon=1.5), PRICE)
    await paid.handle(Ask(chat=user("q"), epsilon=1.0))
    assert store.paid().epsilon == paid.purse.totals.epsilon == 1.0
    with pytest.raises(BudgetExceededError):
        await paid.handle(Ask(chat=user("q"), epsilon=1.0))


async def test_a_stream_is_booked_before_it_begins_and_paid_as_it_ends(store: Store) -> None:
    paid = opened(ScriptedModel({"q": "one two"}), store, Budget(), PRICE)
    async for delta in paid.handle_stream(ask("q w e", 9)):
        if delta.text == "one":
            assert store.paid().tokens_out == 9  # the most it can be
    assert (store.paid().tokens_in, store.paid().tokens_out) == (3, 2)
    assert store.paid() == paid.purse.totals


async def test_of_a_stream_that_is_left_what_came_is_paid(store: Store) -> None:
    class Long(ScriptedModel):
        async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
            for _ in range(100):
                yield Delta("x")

    paid = opened(Long(), store, Budget(), PRICE)
    pieces = paid.handle_stream(ask("q", 50))
    await anext(pieces)
    await anext(pieces)
    await pieces.aclose()
    most_in, _ = ask("q", 50).tokens_bound()
    assert (store.paid().tokens_in, store.paid().tokens_out) == (most_in, 2)
    assert store.paid() == paid.purse.totals


async def test_of_a_stream_that_never_began_the_most_is_paid(store: Store) -> None:
    late = UnreachableError("no reply within 120 s", worked=1)
    paid = opened(ScriptedModel(fail=late), store, Budget(), PRICE)
    with pytest.raises(UnreachableError):
        _ = [d async for d in paid.handle_stream(ask("q", 7))]
    assert store.paid().tokens_out == 7
    refused = opened(ScriptedModel({"q": "one"}), store, Budget(tokens_out=8), PRICE)
    with pytest.raises(BudgetExceededError):
        _ = [d async for d in refused.handle_stream(ask("q", 7))]


async def test_a_book_that_has_no_more_to_give_stops_a_message(store: Store) -> None:
    class Empty(Store):
        def pay(self, most: Totals) -> int:
            raise BudgetExceededError("the lease is used up")

    model = ScriptedModel({"q": "one"})
    store.__class__ = Empty
    paid = opened(model, store, Budget(), PRICE)
    with pytest.raises(BudgetExceededError):
        await paid.handle(ask("q"))
    assert not model.seen
    assert (paid.purse.totals, paid.purse.calls, paid.purse.busy.seconds) == (Totals(), 0, 0.0)


async def test_the_owner_is_busy_while_a_message_is_with_it(store: Store) -> None:
    class Watched(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            before = paid.purse.busy.seconds
            await asyncio.sleep(0)
            under_way.append(paid.purse.busy.seconds > before)
            return await super().generate(chat, sampling)

    under_way: list[bool] = []
    paid = opened(Watched(), store, Budget(), PRICE)
    await asyncio.gather(*(paid.handle(ask(text)) for text in ("a", "b")))
    assert under_way == [True, True]
    after = paid.purse.busy.seconds
    assert after == paid.purse.busy.seconds > 0


def test_work_side_by_side_is_busy_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 5.0, 10.0, 12.0, 13.0))
    monkeypatch.setattr("cosilo.parties.around.paid.perf_counter", lambda: next(times))
    busy = BusyTime()
    with busy, busy:
        assert busy.seconds == 5.0
    assert busy.seconds == 10.0
    with busy:
        pass
    assert busy.seconds == 11.0
