"""Many reservations and settlements at once leave the books as if each had come alone."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.gateway.accounts.accounts import Key, Limits, RequestFacts, Reservation, Spend
from cosilo.gateway.record.bookings_sqlite import (
    Reserving,
    Settling,
    SqliteBookings,
    UnknownReservationError,
)
from cosilo.gateway.record.store_records import at_most, limit_nano
from cosilo.gateway.record.store_sqlite import SCHEMA

KEYS = (
    Key(id="a", name="a", limits=Limits(usd=40.0, requests_per_minute=7)),
    Key(id="b", name="b", limits=Limits(tokens=60, entities=9, period="day")),
    Key(id="c", name="c"),
)

amounts = st.builds(
    Spend,
    usd=st.integers(0, 9).map(float),
    tokens_in=st.integers(0, 9),
    requests=st.sampled_from([1, 1, 1, 1, 0]),
    entities=st.integers(0, 2),
)
asked = st.tuples(st.just("reserve"), st.integers(0, 2), amounts)
ended = st.tuples(st.just("settle"), st.integers(0, 30), amounts)
turns = st.lists(
    st.tuples(st.sampled_from([0.0, 5.0, 61.0]), st.lists(asked | ended, max_size=9)), max_size=8
)


class Books:
    """One store's tables, written together or one by one."""

    def __init__(self) -> None:
        self.now = 1e9
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(SCHEMA)
        for key in KEYS:
            limits = key.limits
            self.db.execute(
                "INSERT INTO keys (id, name, hash, admin, points, created, period, limit_usd,"
                " limit_tokens, limit_entities, limit_rpm) VALUES (?,?,x'00',0,'[]',0,?,?,?,?,?)",
                (key.id, key.name, limits.period, limit_nano(limits.usd), limits.tokens,
                 limits.entities, limits.requests_per_minute),
            )  # fmt: skip
        self.bookings = SqliteBookings(
            self.db, lambda: self.now, slot=0, run="r", worker="worker-0"
        )

    def tables(self) -> list[Any]:
        names = ("keys", "reservations", "starts", "requests", "kinds")
        return [self.db.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in names]


@settings(deadline=None)
@given(turns)
def test_together_is_as_one_by_one(turns: list[tuple[float, list[Any]]]) -> None:
    many, single = Books(), Books()
    made: list[tuple[Key, Spend, str]] = []
    for wait, steps in turns:
        many.now = single.now = single.now + wait
        ending: dict[str, Settling] = {}
        batch: list[Any] = []
        for what, number, spend in steps:
            if what == "reserve":
                key = KEYS[number]
                id = f"{len(made):03}"
                made.append((key, spend, id))
                batch.append(Reserving(key, at_most(spend), id, f"request {id}"))
            elif number < len(made) and made[number][2] not in ending:
                key, most, id = made[number]
                facts = RequestFacts(
                    request=f"request {id}", point="p", strategy="s", endpoint="chat",
                    outcome="ok", status=200, kinds={"name": 1}, at=single.now,
                )  # fmt: skip
                reservation = Reservation(id=id, key=key.id, request=f"request {id}", most=most)
                ending[id] = Settling(reservation, spend, facts)
        batch = [*ending.values(), *batch]
        many.db.execute("BEGIN IMMEDIATE")
        try:
            refused = many.bookings.make(batch)
            many.db.execute("COMMIT")
        except UnknownReservationError:  # one was refused, or settled before
            many.db.execute("ROLLBACK")
            refused = many.bookings.make(batch, together=False)
        one_by_one = [single.bookings.make([change], together=False)[0] for change in batch]
        assert [str(error) for error in refused] == [str(error) for error in one_by_one]
        assert many.tables() == single.tables()


def test_one_that_is_settled_already_stops_all_before_anything_is_booked() -> None:
    books = Books()
    key = KEYS[2]
    facts = RequestFacts(
        request="r", point="p", strategy="s", endpoint="chat", outcome="ok", status=200, at=1.0
    )
    spend = Spend(usd=1.0, requests=1)
    books.bookings.make([Reserving(key, at_most(spend), "1", "r")])
    one = Settling(Reservation(id="1", key="c", request="r", most=spend), spend, facts)
    gone = Settling(Reservation(id="2", key="c", request="r", most=spend), spend, facts)
    books.db.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnknownReservationError):
        books.bookings.make([one, gone])
    books.db.execute("ROLLBACK")
    assert books.bookings.make([one, gone], together=False) == [None, None]
    used, held = books.db.execute("SELECT used_usd, held_usd FROM keys WHERE id = 'c'").fetchone()
    assert (used, held) == (10**9, 0)
