"""A point whose strategy asks several upstreams together: a chain each, one budget, no fallback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.meter import Budget, Price
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import connect
from cosilo.errors import ConfigError, UnreachableError
from cosilo.gateway.accounts.accounts import Limits
from cosilo.gateway.accounts.keys import derive
from cosilo.gateway.record.store_sqlite import SqliteStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import user
from house import Failing, House, house


def says(text: str) -> ScriptedModel:
    return ScriptedModel({"hello": text})


async def asking(*large: Any, **options: Any) -> House:
    return await house(large=list(large), strategy="ensemble", **options)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_most_of_them_say_is_answered_and_each_has_a_chain(stream: bool) -> None:
    h = await asking(says("maybe"), says("yes"), says("Yes"))
    reply = await h.chat(stream=stream)
    assert reply.status == 200
    assert b"yes" in reply.body
    assert b"maybe" not in reply.body
    assert set(h.books.ledgers) == {"x", "x/peers/lm1", "x/peers/lm2"}
    for ledger in h.books.ledgers.values():
        up, down = ledger.entries()
        assert (up.direction, down.direction, down.answers) == ("up", "down", up.number)
    [(_, spent, facts)] = h.books.settled
    tokens = [e.message.usage() for x in h.books.ledgers.values() for e in x.entries()]
    assert spent.tokens_in == sum(t for t, _ in tokens)
    assert spent.usd == pytest.approx(sum(t + 2 * out for t, out in tokens) / 1e6)
    assert facts.upstream == "lm0+lm1+lm2"
    assert facts.bytes_up == sum(
        e.size for x in h.books.ledgers.values() for e in x.entries() if e.direction == "up"
    )
    assert not h.books.open


async def test_when_one_cannot_be_reached_the_request_fails_and_what_was_asked_is_paid() -> None:
    gone = Failing(fail=UnreachableError("gone"))
    h = await asking(says("yes"), gone, says("yes"))
    reply = await h.chat()
    assert reply.status >= 500
    assert not h.books.open
    assert h.upstreams["lm1"].breaker.state == "closed"
    [(_, spent, _)] = h.books.settled
    assert spent.usd > 0


async def test_a_requests_budget_and_a_keys_limit_are_for_all_of_them_together() -> None:
    h = await asking(says("yes"), says("yes"), says("yes"), budget=Budget(messages=2))
    assert (await h.chat()).error["code"] == "request_over_budget"
    once = Price(1.0, 2.0).bound(Ask(chat=user("hello")))
    models = [says("yes") for _ in range(3)]
    h = await asking(*models, limits=Limits(tokens=2 * (once.tokens_in + 64)))
    assert (await h.chat()).error["code"] == "insufficient_quota"
    assert [model.seen for model in models] == [[], [], []]


async def test_too_few_and_the_same_twice_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="asks 2 large models or more together, but large names 1"
    ):
        await asking(says("yes"))
    with pytest.raises(ConfigError, match="needs large"):
        await asking()


async def test_a_workers_chains_stand_in_one_record(tmp_path: Path) -> None:
    secret = b"s" * 32
    for attempt in range(2):
        store = SqliteStore(tmp_path / "store", secret=secret)
        for upstream in ("", "lm1", "lm2"):
            ledger = store.ledger("x", upstream)
            assert store.ledger("y", upstream) is ledger
            ask = Ask(chat=user(f"hello {upstream}"))
            await ledger.append("r", "up", ask, encode(ask))
            assert {e.attempt for e in ledger.entries()} == set(range(attempt + 1))
        await store.close()
    db = connect(tmp_path / "store" / "ledger.sqlite")
    assert not verify(db, key=derive(secret, "ledger"))
    chains = db.execute("SELECT chain, count FROM heads ORDER BY chain").fetchall()
    db.close()
    assert chains == [("worker-0", 2), ("worker-0/peers/lm1", 2), ("worker-0/peers/lm2", 2)]
