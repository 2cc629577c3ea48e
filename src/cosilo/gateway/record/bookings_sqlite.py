"""What requests set aside and spend, written into a store's SQLite file: many of them at once.

Within one turn of the event loop many requests reserve or settle. Those of one key are added up: its
row is changed once for all of them, and their rows go in together. What does not fit a key's limits
all together is tried one by one, so that the same requests are refused as if each had come alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cosilo.errors import CosiloError, StoreError
from cosilo.gateway.accounts.accounts import Key, RequestFacts, Reservation, Spend, SpendKind
from cosilo.gateway.record.store_records import (
    RATE_WINDOW,
    REQUEST_COLUMNS,
    Amounts,
    at_most,
    facts_columns,
    over,
    period_start,
    what_was,
)

_RESERVE = """
UPDATE keys SET held_usd = held_usd + :usd, held_in = held_in + :in, held_out = held_out + :out,
    held_requests = held_requests + :requests, held_entities = held_entities + :entities,
    held_epsilon = held_epsilon + :epsilon, admitted = admitted + :requests
WHERE id = :key
    AND (limit_usd IS NULL OR used_usd + held_usd + :usd <= limit_usd)
    AND (limit_tokens IS NULL
         OR used_in + used_out + held_in + held_out + :in + :out <= limit_tokens)
    AND (limit_entities IS NULL OR used_entities + held_entities + :entities <= limit_entities)
    AND (limit_epsilon IS NULL OR used_epsilon + held_epsilon + :epsilon <= limit_epsilon)
"""

_SETTLE = """
UPDATE keys SET
    held_usd = held_usd - ?, held_in = held_in - ?, held_out = held_out - ?,
    held_requests = held_requests - ?, held_entities = held_entities - ?,
    held_epsilon = held_epsilon - ?,
    used_usd = used_usd + ?, used_in = used_in + ?, used_out = used_out + ?,
    used_requests = used_requests + ?, used_entities = used_entities + ?,
    used_epsilon = used_epsilon + ?
WHERE id = ?
"""

_HOLD = "INSERT INTO reservations VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"

# Without RETURNING, for which SQLite opens a temporary file each time: what is returned is known here.
_RELEASE = "DELETE FROM reservations WHERE id = ?"

_ROLL = """
UPDATE keys SET past_usd = past_usd + used_usd, past_in = past_in + used_in,
    past_out = past_out + used_out, past_requests = past_requests + used_requests,
    past_entities = past_entities + used_entities,
    used_usd = 0, used_in = 0, used_out = 0, used_requests = 0, used_entities = 0, since = :start
WHERE id = :key AND since < :start
"""

_PLACE = """
SELECT k.admitted % ?1, s.at FROM keys k
LEFT JOIN starts s ON s.key = k.id AND s.place = k.admitted % ?1 WHERE k.id = ?2
"""

_LAST = "SELECT max(at) FROM starts WHERE key = ? AND place BETWEEN ? AND ?"

_START = "INSERT OR REPLACE INTO starts VALUES (?,?,?)"

_FACTS = f"""
INSERT INTO requests ({REQUEST_COLUMNS}) VALUES ({", ".join("?" * len(REQUEST_COLUMNS.split(",")))})
ON CONFLICT (request) DO UPDATE SET usd = usd + excluded.usd,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
    entities = entities + excluded.entities, epsilon = epsilon + excluded.epsilon
"""

_KINDS = """
INSERT INTO kinds VALUES (?,?,?,?)
ON CONFLICT (at, key, kind) DO UPDATE SET count = count + excluded.count
"""


class Reserving(NamedTuple):
    """`amounts` to be set aside for `request` under the reservation's `id`."""

    key: Key
    amounts: Amounts
    id: str
    request: str


class Settling(NamedTuple):
    """A reservation to be replaced by what was spent."""

    reservation: Reservation
    spent: Spend
    facts: RequestFacts


Change = Reserving | Settling | Callable[[sqlite3.Connection], None]
"""Part of a transaction. It raises a CosiloError before it has written anything, or not at all."""


class UnknownReservationError(Exception):
    """One of those to be settled together is settled already: the transaction is to be done again, one
    by one."""


class SqliteBookings:
    """What is written of requests, by one worker.

    Args:
        db: the store's file; whoever calls has begun a transaction in it.
        clock: seconds since the epoch.
        slot: the worker's place, `run` the process in it, `worker` its name in the record.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        clock: Callable[[], float],
        *,
        slot: int,
        run: str,
        worker: str,
    ) -> None:
        self._db = db
        self._clock = clock
        self._slot = slot
        self._run = run
        self._worker = worker

    def make(
        self, changes: Sequence[Change], *, together: bool = True
    ) -> Sequence[Exception | None]:
        """Make all `changes`: for each the error that it was refused with. What is settled gives its
        room to what is reserved at the same time.

        Raises:
            UnknownReservationError: they cannot be made `together`.
        """
        refused: dict[int, Exception] = {}
        settling: list[Settling] = []
        reserving: dict[str, list[tuple[int, Reserving]]] = {}
        for at, change in enumerate(changes):
            if isinstance(change, Settling):
                settling.append(change)
            elif isinstance(change, Reserving):
                reserving.setdefault(change.key.id, []).append((at, change))
        if together:
            self._settle(settling)
        else:
            for one in settling:
                if self._db.execute(_RELEASE, (one.reservation.id,)).rowcount:
                    self._book([one])
        for group in reserving.values():
            if len(group) > 1 and self._reserve_together([change for _, change in group]):
                continue
            for at, change in group:
                try:
                    self._reserve(change)
                except CosiloError as error:
                    refused[at] = error
        for at, change in enumerate(changes):
            if not isinstance(change, Settling | Reserving):
                try:
                    change(self._db)
                except CosiloError as error:
                    refused[at] = error
        return [refused.get(at) for at in range(len(changes))]

    # ── settling ─────────────────────────────────────────────────────────────

    def _settle(self, group: Sequence[Settling]) -> None:
        if group:
            ids = [(one.reservation.id,) for one in group]
            if self._db.executemany(_RELEASE, ids).rowcount != len(group):
                raise UnknownReservationError
            self._book(group)

    def _book(self, group: Sequence[Settling]) -> None:
        booked = []
        for one in group:
            most = at_most(one.reservation.most)
            booked.append((one.reservation.key, most, what_was(one.spent, most), one.facts))
        self.book(booked)

    def book(self, booked: Sequence[tuple[str, Amounts, Amounts, RequestFacts]]) -> None:
        """Move what is spent from what is held to what is used, and keep the facts: (key, held, spent,
        facts) of each."""
        db = self._db
        sums: dict[str, list[int]] = {}
        rows, kinds = [], []
        for key, held, spent, facts in booked:
            now = facts.at or self._clock()
            if (total := sums.get(key)) is None:
                sums[key] = [*held, *spent]
            else:
                sums[key] = [a + b for a, b in zip(total, (*held, *spent), strict=True)]
            rows.append(facts_columns(facts, key=key, worker=self._worker, now=now, amounts=spent))
            if facts.kinds and spent.requests:
                hour = now - now % 3600
                kinds += [(hour, key, kind, count) for kind, count in facts.kinds.items()]
        for key, total in sums.items():
            db.execute(_SETTLE, (*total, key))
        db.executemany(_FACTS, rows)
        if kinds:
            db.executemany(_KINDS, kinds)

    # ── reserving ────────────────────────────────────────────────────────────

    def _reserve_together(self, group: Sequence[Reserving]) -> bool:
        """Set aside all that one key's requests want, as long as all of it may be; else nothing is
        written, and the answer is no.

        Limits only ever count upwards within a transaction: what fits in all fits one by one.
        """
        db, now, key = self._db, self._clock(), group[0].key
        total = Amounts(*map(sum, zip(*(one.amounts for one in group), strict=True)))
        rpm = key.limits.requests_per_minute
        starts: list[tuple[str, int, float]] = []
        if rpm is not None and total.requests:
            if total.requests != len(group) or max(one.amounts.requests for one in group) > 1:
                return False
            row = db.execute(_PLACE, (max(rpm, 1), key.id)).fetchone()
            if row is None or row[0] + len(group) > rpm:  # they would go round
                return False
            first, last = row[0], row[0] + len(group) - 1
            latest = db.execute(_LAST, (key.id, first, last)).fetchone()[0]
            if latest is not None and latest > now - RATE_WINDOW:
                return False
            starts = [(key.id, place, now) for place in range(first, last + 1)]
        self._roll(key, now)
        if not db.execute(_RESERVE, _marks(key, total)).rowcount:
            return False
        if starts:
            db.executemany(_START, starts)
        db.executemany(_HOLD, [self._row(one, now) for one in group])
        return True

    def _reserve(self, one: Reserving) -> None:
        db, now, key, amounts = self._db, self._clock(), one.key, one.amounts
        self._roll(key, now)
        limited = key.limits.requests_per_minute is not None and amounts.requests > 0
        place = self._place(key, amounts, now) if limited else 0
        if not db.execute(_RESERVE, _marks(key, amounts)).rowcount:
            raise self._refused(key, amounts) or StoreError(
                f"the store refused a reservation of key {key.id!r} for no reason"
            )
        if limited:
            db.execute(_START, (key.id, place, now))
        db.execute(_HOLD, self._row(one, now))

    def _row(self, one: Reserving, now: float) -> tuple[object, ...]:
        return (one.id, one.key.id, one.request, self._slot, self._run, now, *one.amounts)

    def _roll(self, key: Key, now: float) -> None:
        if key.limits.period != "total":
            start = period_start(key.limits.period, now)
            self._db.execute(_ROLL, {"key": key.id, "start": start})

    def _place(self, key: Key, amounts: Amounts, now: float) -> int:
        """Where the start of the key's next request is kept: the request admitted `rpm` requests ago
        stands there, and must have begun a minute ago. An exact window, for one row.

        Raises:
            OverBudgetError: it has not.
        """
        rpm = key.limits.requests_per_minute or 0
        row = self._db.execute(_PLACE, (max(rpm, 1), key.id)).fetchone()
        if row is None:
            raise _gone(key)
        place, last = row
        if rpm and (last is None or last <= now - RATE_WINDOW):
            return int(place)
        raise self._refused(key, amounts) or over(
            "requests", key.limits, (now if last is None else last) + RATE_WINDOW - now
        )

    def _refused(self, key: Key, amounts: Amounts) -> Exception | None:
        """Which limit, other than the rate, refuses `amounts`."""
        row = self._db.execute(
            "SELECT limit_usd, used_usd + held_usd, limit_tokens,"
            " used_in + used_out + held_in + held_out, limit_entities,"
            " used_entities + held_entities, limit_epsilon, used_epsilon + held_epsilon"
            " FROM keys WHERE id = ?",
            (key.id,),
        ).fetchone()
        if row is None:
            return _gone(key)
        kinds: tuple[tuple[SpendKind, int], ...] = (
            ("usd", amounts.usd), ("tokens", amounts.tokens),
            ("entities", amounts.entities), ("epsilon", amounts.epsilon),
        )  # fmt: skip
        for i, (kind, wanted) in enumerate(kinds):
            limit, taken = row[2 * i], row[2 * i + 1]
            if limit is not None and taken + wanted > limit:
                return over(kind, key.limits)
        return None


def _marks(key: Key, amounts: Amounts) -> dict[str, object]:
    return {
        "key": key.id, "usd": amounts.usd, "in": amounts.tokens_in, "out": amounts.tokens_out,
        "requests": amounts.requests, "entities": amounts.entities, "epsilon": amounts.epsilon,
    }  # fmt: skip


def _gone(key: Key) -> StoreError:
    return StoreError(f"the store knows no key {key.id!r} any more")
