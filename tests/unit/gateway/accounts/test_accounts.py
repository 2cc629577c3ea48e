"""Amounts neither drift nor give anything away, and a store that cannot record refuses."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.boundary.messages import Ask, encode
from cosilo.errors import StoreError
from cosilo.gateway.accounts.accounts import Limits, RequestFacts, Spend
from cosilo.gateway.record.store_records import (
    MOST,
    NANO,
    at_most,
    limit_nano,
    over,
    period_start,
    postgres,
    what_was,
)
from cosilo.gateway.record.store_sqlite import SqliteStore
from cosilo.types import user

SECRET = b"s" * 32


@settings(deadline=None)
@given(st.integers(1, 10_000_000), st.integers(1, 200))
def test_a_limit_for_n_admits_exactly_n(micros: int, n: int) -> None:
    """Whatever a price of so many millionths is as a float, n of it fit into n × it, and no more."""
    price = micros / 1e6
    each, limit = at_most(Spend(usd=price)).usd, limit_nano(n * price)
    assert limit is not None
    assert n * each <= limit < (n + 1) * each


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=4e6))
def test_what_is_held_is_rounded_up(price: float) -> None:
    exact = Fraction(price) * NANO
    rounding = exact / 2**52 + Fraction(1, 50)  # of the float itself
    assert exact - rounding <= at_most(Spend(usd=price)).usd < exact + 1 + rounding


@settings(deadline=None)
@given(st.floats(0, 1e6), st.integers(0, 10**12))
def test_what_was_spent_is_never_above_what_was_held_for_it(usd: float, tokens: int) -> None:
    spend = Spend(usd=usd, tokens_in=tokens, epsilon=usd)
    most, spent = at_most(spend), what_was(spend, at_most(Spend()))
    assert all(s <= m for s, m in zip(spent, most, strict=True))
    assert abs(spent.usd - Fraction(usd) * NANO) <= Fraction(1, 2) + Fraction(usd) / 10**6


@pytest.mark.parametrize("field", ["usd", "tokens_in", "tokens_out", "entities", "epsilon"])
def test_nonsense_is_refused_beforehand_and_booked_whole_afterwards(field: str) -> None:
    for nonsense in (-1, math.nan):
        spend = Spend(**{field: nonsense})  # type: ignore[arg-type]
        with pytest.raises(StoreError):
            at_most(spend)
        most = at_most(Spend(usd=1, tokens_in=2, tokens_out=3, entities=4, epsilon=5))
        assert what_was(spend, most) == most
    assert getattr(at_most(Spend(**{field: math.inf})), field) == MOST  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("period", "moment", "start"),
    [
        ("total", "2026-06-15T12:34:56", "1970-01-01T00:00:00"),
        ("day", "2026-06-15T12:34:56", "2026-06-15T00:00:00"),
        ("day", "2026-06-15T00:00:00", "2026-06-15T00:00:00"),
        ("month", "2026-06-15T12:34:56", "2026-06-01T00:00:00"),
        ("month", "2028-02-29T23:59:59", "2028-02-01T00:00:00"),
    ],
)
def test_periods_begin_in_utc(period: Any, moment: str, start: str) -> None:
    at, expected = (
        datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp() for t in (moment, start)
    )
    assert period_start(period, at) == expected


def test_a_refusal_names_the_limit() -> None:
    limits = Limits(usd=2.5, requests_per_minute=7)
    assert over("usd", limits).limit == 2.5
    error = over("requests", limits, 12.0)
    assert (error.kind, error.limit, error.retry_after) == ("requests", 7, 12.0)
    assert "2.5 usd" in str(over("usd", limits))


def test_named_parameters_are_rewritten_for_postgres() -> None:
    assert postgres("SELECT :a WHERE b = :b_c LIMIT :n") == (
        "SELECT %(a)s WHERE b = %(b_c)s LIMIT %(n)s"
    )


# A store that cannot write.


def facts(request: str) -> RequestFacts:
    return RequestFacts(
        request=request, point="p", strategy="s", endpoint="chat", outcome="ok", status=200
    )


async def test_a_full_disk_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store", secret=SECRET)
    made = await store.create_key("a", limits=Limits(usd=100))
    held = await store.reserve(made.key, Spend(usd=1.0, requests=1), request="early")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")  # from here on the disk is full
    names: list[str] = []

    async def reserve_on() -> None:
        while len(names) < 1000:
            names.append(f"r{len(names)}")
            await store.reserve(made.key, Spend(usd=0.001, requests=1), request=names[-1])

    async def settle_on() -> None:
        for i in range(1000):
            extra = await store.reserve(made.key, Spend(), request=f"more{i}")
            await store.settle(extra, Spend(), request=facts(f"more{i}" + "x" * 500))

    with pytest.raises(StoreError, match="full"):
        await reserve_on()
    now = (await store.list_keys())[0]
    admitted = len(names) - 1  # the refused one left no trace
    assert now.held == Spend(usd=pytest.approx(1.0 + admitted * 0.001), requests=1 + admitted)
    with pytest.raises(StoreError, match="full"):
        await settle_on()
    store._db.execute("PRAGMA max_page_count = 1000000")
    await store.check()
    await store.settle(held, Spend(usd=0.5, requests=1), request=facts("early"))
    assert (await store.list_keys())[0].used.usd == 0.5
    await store.close()


async def test_a_full_disk_stops_the_ledger_before_anything_is_sent(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store", secret=SECRET)
    ledger: Any = store.ledger("p")
    ask = Ask(chat=user("hello"))
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")

    async def append_on() -> None:
        for i in range(1000):
            await ledger.append(f"r{i}", "up", ask, encode(ask))

    with pytest.raises(StoreError, match="nothing was sent"):
        await append_on()
    before = len(list(ledger.entries()))
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    await ledger.append("after", "up", ask, encode(ask))
    assert [e.number for e in ledger.entries()] == list(range(before + 1))
    await store.close()


async def test_a_store_that_is_locked_too_long_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosilo.gateway.record.store_sqlite.BUSY_MS", 20)
    store = SqliteStore(tmp_path / "store", secret=SECRET)
    made = await store.create_key("a")
    other = SqliteStore(tmp_path / "store", secret=SECRET)
    other._db.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        await store.reserve(made.key, Spend(), request="r")
    with pytest.raises(StoreError, match="locked"):
        await store.check()
    other._db.execute("ROLLBACK")
    await store.check()
    await store.close()
    await other.close()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "accounts.sqlite").write_text("no database " * 500)
    with pytest.raises(StoreError, match=r"store.*cannot be read"):
        SqliteStore(tmp_path / "store", secret=SECRET)
    assert not (tmp_path / "store" / "ledger.sqlite-wal").exists()
