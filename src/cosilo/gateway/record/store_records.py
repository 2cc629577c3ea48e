"""What both stores share: amounts as whole numbers, periods, and the rows that people look at.

Money and ε are kept in billionths, as integers: sums of floats drift, and a budget must not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from cosilo.boundary.record.ledger import Ledger
from cosilo.errors import StoreError
from cosilo.gateway.accounts.accounts import (
    Accounts,
    AccountStore,
    Key,
    Limits,
    OverBudgetError,
    Period,
    RequestFacts,
    Spend,
    SpendKind,
)
from cosilo.gateway.accounts.keys import KeyState, KeyStore
from cosilo.record_keys import Shredded

NANO = 1_000_000_000
MOST = 1 << 52  # exact as a float, and two thousand of them fit a database's integer

RATE_WINDOW = 60.0  # seconds
SLOTS = 256  # workers that can share a store
SESSION_SECONDS = 8 * 3600.0

# What a killed worker's request is recorded as, and what it costs.
KILLED = "killed"


class Amounts(NamedTuple):
    """A `Spend` in whole numbers: money in billionths of a dollar, ε in billionths."""

    usd: int
    tokens_in: int
    tokens_out: int
    requests: int
    entities: int
    epsilon: int

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    @property
    def spend(self) -> Spend:
        return Spend(
            usd=self.usd / NANO,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            requests=self.requests,
            entities=self.entities,
            epsilon=self.epsilon / NANO,
        )


def at_most(most: Spend) -> Amounts:
    """`most` in whole billionths, rounded up, so that too little is never set aside.

    Raises:
        StoreError: it is negative or not a number, so nothing can be set aside for it.
    """
    try:
        return Amounts(
            _up(most.usd), _whole(most.tokens_in), _whole(most.tokens_out), _whole(most.requests),
            _whole(most.entities), _up(most.epsilon),
        )  # fmt: skip
    except ValueError:
        raise StoreError("a reservation is negative or not a number") from None


def what_was(spent: Spend, otherwise: Amounts) -> Amounts:
    """`spent` in whole billionths, rounded to the nearest; `otherwise` when it is negative or not a
    number.

    A back end that reports nonsense must not give money back.
    """
    try:
        return Amounts(
            _near(spent.usd), _whole(spent.tokens_in), _whole(spent.tokens_out),
            _whole(spent.requests), _whole(spent.entities), _near(spent.epsilon),
        )  # fmt: skip
    except ValueError:
        return otherwise


def limit_nano(limit: float | None) -> int | None:
    return None if limit is None else min(math.floor(limit * NANO + 1e-2), 1 << 62)


def _up(value: float) -> int:
    # 0.07 × 10⁹ is 70000000.00000001 as a float: without the slack each rounding adds a billionth.
    return math.ceil(value * NANO - 1e-2) if 0 < value < _MOST_UNITS else _edge(value)


def _near(value: float) -> int:
    return round(value * NANO) if 0 < value < _MOST_UNITS else _edge(value)


def _whole(value: int) -> int:
    return int(value) if 0 < value < MOST else _edge(value)


def _edge(value: float) -> int:
    """The integer for an amount outside the range that is scaled: 0 for 0, `MOST` for one too
    large.

    Raises:
        ValueError: it is negative or NaN.
    """
    if value == 0:
        return 0
    if value > 0:
        return MOST
    raise ValueError


_MOST_UNITS = MOST / NANO


def period_start(period: Period, now: float) -> float:
    """When the period that `now` lies in began, in seconds since the epoch."""
    if period == "total":
        return 0.0
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day.replace(day=1) if period == "month" else day).timestamp()


def over(kind: SpendKind, limits: Limits, retry_after: float | None = None) -> OverBudgetError:
    """The error for a key whose limit of `kind` would be passed."""
    limit = limits.requests_per_minute if kind == "requests" else getattr(limits, kind)
    return OverBudgetError(kind, 0.0 if limit is None else limit, retry_after)


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A finished request as it stands on record: counts only."""

    request: str
    key: str
    worker: str
    at: float
    seconds: float
    point: str
    strategy: str
    endpoint: str
    outcome: str
    status: int
    by: str
    stream: bool
    lm_calls: int
    upstream: str
    fallback: bool
    bytes_up: int
    bytes_down: int
    spent: Spend
    kinds: Mapping[str, int]
    disputes: int = 0
    sent_to: str = ""
    withheld: Mapping[str, int] = {}

    @property
    def processed(self) -> str:
        """Where it was processed; of one recorded by an earlier version, as far as that is known."""
        if not self.lm_calls:
            return "home"
        return f"home, {self.sent_to or self.upstream or 'a large model'}"


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One hour, or one point, of what happened. `at` is when the hour began."""

    name: str = ""
    at: float = 0.0
    requests: int = 0
    alone: int = 0  # answered without the large model: the calls saved
    errors: int = 0
    usd: float = 0.0
    tokens: int = 0
    bytes_up: int = 0
    entities: int = 0
    p50: float = 0.0
    p95: float = 0.0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `/ui` shows of a time span."""

    total: Slice
    hours: Sequence[Slice]
    points: Sequence[Slice]
    kinds: Mapping[str, int]
    recent: Sequence[RequestRow]


class Sessions(Protocol):
    """Who is logged in at `/ui`. Only a hash of the session's token is kept."""

    async def open_session(self, key: Key) -> str:
        """A token that stands for `key` for some hours."""

    async def session_key(self, token: str) -> Key | None:
        """The key that `token` stands for; None when either has ended."""

    async def close_session(self, token: str) -> None: ...


class GatewayStore(AccountStore, Accounts, KeyStore, Sessions, Protocol):
    """Everything a store does: what the server, the command line and the page need."""

    async def summary(self, since: float, *, key: str | None = None, recent: int = 50) -> Summary:
        """The requests since `since` (of `key` alone, when given) by hour and by point, and the
        last `recent` of them.
        """

    async def request_rows(
        self, *, request: str = "", key: str = "", since: float = 0.0, until: float = math.inf
    ) -> list[RequestRow]:
        """The finished requests that fit everything given, oldest first."""

    async def recover(self) -> int:
        """Settle the reservations of workers that have died; returns how many there were.

        Done when a worker starts, and with every `check`.
        """

    async def purge(self, *, before: float) -> int:
        """Delete the contents of messages recorded before `before` (seconds since the epoch);
        returns how many. Their digests stay, so the chains can still be verified.
        """

    async def shred(self, requests: Collection[str]) -> Shredded:
        """Forget what crossed for `requests`: their entries' keys are deleted, and with them what was
        said, and whatever could confirm a guess of it. The chains can still be verified; what the
        requests cost stays. Doing it again does no harm.

        Raises:
            StoreError: nothing can be said to be forgotten; it is to be done again.
        """

    async def forget_requests(self, *, before: float) -> None:
        """Delete the rows of requests finished before `before` (seconds since the epoch).

        What each key has spent in total is stored with the key and does not change.
        """


REQUEST_COLUMNS = (
    "request, key, worker, at, seconds, point, strategy, endpoint, outcome, status, by_whom, stream,"
    " lm_calls, upstream, fallback, bytes_up, bytes_down, usd, tokens_in, tokens_out, entities,"
    " epsilon, kinds, disputes, sent_to, withheld"
)

_SLICE = (
    "count(*), sum(CASE WHEN lm_calls = 0 AND outcome = 'ok' THEN 1 ELSE 0 END),"
    " sum(CASE WHEN outcome IN ('error', 'killed') THEN 1 ELSE 0 END), sum(usd),"
    " sum(tokens_in + tokens_out), sum(bytes_up), sum(entities)"
)

# Named parameters are written as SQLite has them; `postgres` rewrites them.
_WHERE = "FROM requests WHERE at >= :since AND (:any = 1 OR key = :key)"
TOTAL = f"SELECT {_SLICE} {_WHERE}"
HOURS = f"SELECT floor(at / 3600), {_SLICE} {_WHERE} GROUP BY 1 ORDER BY 1"
POINTS = f"SELECT point, {_SLICE} {_WHERE} GROUP BY 1 ORDER BY 2 DESC"
TIMED = f"SELECT count(*) {_WHERE} AND outcome = 'ok' AND (:all = 1 OR point = :point)"
SECONDS = (
    f"SELECT seconds {_WHERE} AND outcome = 'ok' AND (:all = 1 OR point = :point)"
    " ORDER BY seconds LIMIT 1 OFFSET :offset"
)
KINDS = (
    "SELECT kind, sum(count) FROM kinds WHERE at >= :since AND (:any = 1 OR key = :key)"
    " GROUP BY kind ORDER BY 2 DESC"
)
RECENT = f"SELECT {REQUEST_COLUMNS} {_WHERE} ORDER BY number DESC LIMIT :recent"
ROWS = (
    f"SELECT {REQUEST_COLUMNS} FROM requests WHERE (:any_request = 1 OR request = :request)"
    " AND (:any_key = 1 OR key = :key) AND at >= :since AND at < :until ORDER BY number"
)

_ADDED = {"disputes": "0", "sent_to": "''", "withheld": "'{}'"}


def rows_of(columns: Collection[str]) -> str:
    """`ROWS` for a table of these columns: a store that no version has opened since others were added
    has fewer."""
    query = ROWS
    for name, nothing in _ADDED.items():
        if name not in columns:
            query = query.replace(name, nothing)
    return query


def postgres(query: str) -> str:
    """`query` with psycopg's named parameters."""
    return re.sub(r":(\w+)", r"%(\1)s", query)


Fetch = Callable[[str, Mapping[str, object]], Awaitable[Sequence[Sequence[Any]]]]


async def summarise(fetch: Fetch, since: float, key: str | None, recent: int) -> Summary:
    """The summary that the store behind `fetch` holds."""
    # A whole hour is what the store counts kinds by and what the page draws.
    who: dict[str, object] = {
        "since": since - since % 3600,
        "any": int(key is None),
        "key": key or "",
    }

    async def percentiles(count: int, point: str | None) -> tuple[float, float]:
        marks = {**who, "all": int(point is None), "point": point or ""}
        timed = (await fetch(TIMED, marks))[0][0] if count else 0
        if not timed:
            return 0.0, 0.0
        p50 = await fetch(SECONDS, {**marks, "offset": timed // 2})
        p95 = await fetch(SECONDS, {**marks, "offset": min(timed - 1, timed * 95 // 100)})
        return float(p50[0][0]), float(p95[0][0])

    total = (await fetch(TOTAL, who))[0]
    points = await fetch(POINTS, who)
    return Summary(
        total=_slice(total, took=await percentiles(total[0], None)),
        hours=[_slice(row[1:], at=float(row[0]) * 3600) for row in await fetch(HOURS, who)],
        points=[
            _slice(row[1:], name=row[0], took=await percentiles(row[1], row[0])) for row in points
        ],
        kinds={row[0]: int(row[1]) for row in await fetch(KINDS, who)},
        recent=[row_of(row) for row in await fetch(RECENT, {**who, "recent": recent})],
    )


def _slice(
    numbers: Sequence[Any], *, name: str = "", at: float = 0.0, took: tuple[float, float] = (0, 0)
) -> Slice:
    requests, alone, errors, usd, tokens, bytes_up, entities = (int(n or 0) for n in numbers)
    return Slice(
        name=name, at=at, requests=requests, alone=alone, errors=errors, usd=usd / NANO,
        tokens=tokens, bytes_up=bytes_up, entities=entities, p50=took[0], p95=took[1],
    )  # fmt: skip


def row_of(values: Sequence[Any]) -> RequestRow:
    """The finished request in the values of one selected row of `REQUEST_COLUMNS`."""
    amounts = Amounts(values[17], values[18], values[19], 1, values[20], values[21])
    return RequestRow(
        request=values[0], key=values[1], worker=values[2], at=values[3], seconds=values[4],
        point=values[5], strategy=values[6], endpoint=values[7], outcome=values[8],
        status=values[9], by=values[10], stream=bool(values[11]), lm_calls=values[12],
        upstream=values[13], fallback=bool(values[14]), bytes_up=values[15], bytes_down=values[16],
        spent=amounts.spend, kinds=_parsed(values[22], dict[str, int]),
        disputes=values[23], sent_to=values[24], withheld=_parsed(values[25], dict[str, int]),
    )  # fmt: skip


T = TypeVar("T")


def _parsed(text: str, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=wanted)
    except (ValueError, TypeError, RecursionError):
        raise StoreError("a row of the store is damaged: a column does not parse") from None


def _counts(kinds: Mapping[str, int]) -> str:
    return msgspec.json.encode(dict(kinds)).decode() if kinds else "{}"


def facts_columns(
    facts: RequestFacts, *, key: str, worker: str, now: float, amounts: Amounts
) -> tuple[object, ...]:
    """The values of a finished request for the columns `REQUEST_COLUMNS`, in their order."""
    return (
        facts.request, key, worker, facts.at or now, facts.seconds, facts.point, facts.strategy,
        facts.endpoint, facts.outcome, facts.status, facts.by, int(facts.stream), facts.lm_calls,
        facts.upstream, int(facts.fallback), facts.bytes_up, facts.bytes_down, amounts.usd,
        amounts.tokens_in, amounts.tokens_out, amounts.entities, amounts.epsilon,
        _counts(facts.kinds), facts.disputes, facts.sent_to, _counts(facts.withheld),
    )  # fmt: skip


KEY_COLUMNS = (
    "id, name, hash, admin, points, expires, revoked, limit_usd, limit_tokens, limit_entities,"
    " limit_epsilon, limit_rpm, period, local_only"
)

STATE_COLUMNS = (
    f"{KEY_COLUMNS}, created, since, used_usd, used_in, used_out, used_requests, used_entities,"
    " used_epsilon, held_usd, held_in, held_out, held_requests, held_entities, held_epsilon,"
    " past_usd, past_in, past_out, past_requests, past_entities"
)


def key_of(row: Sequence[Any]) -> Key:
    """The key in a row of `KEY_COLUMNS`."""
    usd, tokens, entities, epsilon, rpm, period = row[7:13]
    return Key(
        id=row[0],
        name=row[1],
        limits=Limits(
            usd=None if usd is None else usd / NANO,
            tokens=tokens,
            requests_per_minute=rpm,
            entities=entities,
            epsilon=None if epsilon is None else epsilon / NANO,
            period=period,
        ),
        points=() if row[4] == "[]" else _parsed(row[4], tuple[str, ...]),
        admin=bool(row[3]),
        local_only=bool(row[13]),
    )


def active_key(row: Sequence[Any], now: float) -> Key | None:
    """The key in a row of `KEY_COLUMNS`; None if it was revoked or has expired by `now`."""
    expires, revoked = row[5], row[6]
    if revoked is not None or (expires is not None and now >= expires):
        return None
    return key_of(row)


def key_state(row: Sequence[Any], now: float) -> KeyState:
    """The key in `STATE_COLUMNS` with what it spent."""
    key = key_of(row)
    used, held = Amounts(*row[16:22]), Amounts(*row[22:28])
    past = Amounts(*(*row[28:33], 0))
    total = past.spend + used.spend
    if row[15] < period_start(key.limits.period, now):  # not yet rolled over
        used = Amounts(0, 0, 0, 0, 0, used.epsilon)
    return KeyState(
        key=key, created=row[14], expires=row[5], revoked=row[6], used=used.spend, held=held.spend,
        total=total,
    )  # fmt: skip


def worker_name(slot: int) -> str:
    """The chain that the worker in place `slot` writes."""
    return f"worker-{slot}"


def cost_of_killed(most: Amounts, booked: bool) -> Amounts:
    """What a reservation of a killed worker is settled at: nothing where nothing had left, or where
    another reservation of its request carries the cost; else the most it can have cost."""
    return Amounts(0, 0, 0, most.requests, 0, 0) if booked else most


def facts_of_killed(request: str) -> RequestFacts:
    """The record of a request whose worker was killed; only its id and that it failed are known."""
    return RequestFacts(
        request=request, point="", strategy="", endpoint="", outcome="error", status=0,
    )  # fmt: skip


class Place:
    """A worker's place among those that share a store, and the chain it writes there."""

    slot: int = -1
    _ledger: Ledger | None = None
    _chain: Callable[[str], Ledger]
    _beside: dict[str, Any]  # the worker's chains beside its own, by upstream

    @property
    def worker(self) -> str:
        return worker_name(self.slot)

    def ledger(self, point: str, upstream: str = "") -> Ledger:
        """This worker's chain; entries of all points follow one another in it. With `upstream`, of
        several that are asked together, the worker's chain of that one.
        """
        if self._ledger is None:
            raise StoreError("this store was opened to look, not to serve")
        if not upstream:
            return self._ledger
        if upstream not in self._beside:
            self._beside[upstream] = self._chain(f"{self.worker}/peers/{upstream}")
        ledger: Ledger = self._beside[upstream]
        return ledger
