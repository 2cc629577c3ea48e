"""Keys, budgets and the record in PostgreSQL: shared by workers on many machines.

The same tables as `store_sqlite`, in the schema `cosilo`. Reserving is one call of a function that
locks the key's row, so it is one round trip and no interleaving can pass a limit. Time is the
server's. A worker is known by the chain it writes, whose lock the server lets go when the worker's
connection ends; what a dead worker had set aside is settled as in `store_sqlite`.

Commits do not wait for the server's disk unless asked to (`options=-c synchronous_commit=on` in the
URL): a worker that is killed loses nothing either way, a server that loses power may lose its last
half second, as with SQLite here.

Needs the `postgres` extra (psycopg 3).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cosilo.boundary.record.ledger import Keep, Seal
from cosilo.boundary.record.ledger_postgres import (
    SCHEMA,
    ChainBusyError,
    PostgresLedger,
    import_psycopg,
    lock_number,
    said,
    shred,
)
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.accounts import (
    Accounts,
    Key,
    RequestFacts,
    Reservation,
    Spend,
    SpendKind,
)
from cosilo.gateway.accounts.keys import derive, hash_bearer, id_of, matches
from cosilo.gateway.record.desk import Desk, Marks
from cosilo.gateway.record.store_records import (
    KEY_COLUMNS,
    KILLED,
    RATE_WINDOW,
    REQUEST_COLUMNS,
    SLOTS,
    Amounts,
    Place,
    active_key,
    at_most,
    cost_of_killed,
    facts_columns,
    facts_of_killed,
    over,
    postgres,
    what_was,
    worker_name,
)
from cosilo.record_keys import Shredded

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

T = TypeVar("T")

CONNECTIONS = 4  # per worker; a transaction takes well under a millisecond

_TABLES = """
CREATE TABLE IF NOT EXISTS cosilo.keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BYTEA NOT NULL, admin INTEGER NOT NULL,
    points TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION,
    revoked DOUBLE PRECISION, limit_usd BIGINT, limit_tokens BIGINT, limit_entities BIGINT,
    limit_epsilon BIGINT, limit_rpm BIGINT, period TEXT NOT NULL,
    since DOUBLE PRECISION NOT NULL DEFAULT 0,
    used_usd BIGINT NOT NULL DEFAULT 0, used_in BIGINT NOT NULL DEFAULT 0,
    used_out BIGINT NOT NULL DEFAULT 0, used_requests BIGINT NOT NULL DEFAULT 0,
    used_entities BIGINT NOT NULL DEFAULT 0, used_epsilon BIGINT NOT NULL DEFAULT 0,
    held_usd BIGINT NOT NULL DEFAULT 0, held_in BIGINT NOT NULL DEFAULT 0,
    held_out BIGINT NOT NULL DEFAULT 0, held_requests BIGINT NOT NULL DEFAULT 0,
    held_entities BIGINT NOT NULL DEFAULT 0, held_epsilon BIGINT NOT NULL DEFAULT 0,
    past_usd BIGINT NOT NULL DEFAULT 0, past_in BIGINT NOT NULL DEFAULT 0,
    past_out BIGINT NOT NULL DEFAULT 0, past_requests BIGINT NOT NULL DEFAULT 0,
    past_entities BIGINT NOT NULL DEFAULT 0, admitted BIGINT NOT NULL DEFAULT 0,
    local_only INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS cosilo.reservations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, request TEXT NOT NULL, slot INTEGER NOT NULL,
    run TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, usd BIGINT NOT NULL,
    tokens_in BIGINT NOT NULL, tokens_out BIGINT NOT NULL, requests BIGINT NOT NULL,
    entities BIGINT NOT NULL, epsilon BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS cosilo.starts (
    key TEXT NOT NULL, place BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (key, place)
);
CREATE TABLE IF NOT EXISTS cosilo.requests (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL, worker TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, point TEXT NOT NULL, strategy TEXT NOT NULL,
    endpoint TEXT NOT NULL, outcome TEXT NOT NULL, status INTEGER NOT NULL, by_whom TEXT NOT NULL,
    stream INTEGER NOT NULL, lm_calls BIGINT NOT NULL, upstream TEXT NOT NULL,
    fallback INTEGER NOT NULL, bytes_up BIGINT NOT NULL, bytes_down BIGINT NOT NULL,
    usd BIGINT NOT NULL, tokens_in BIGINT NOT NULL, tokens_out BIGINT NOT NULL,
    entities BIGINT NOT NULL, epsilon BIGINT NOT NULL, kinds TEXT NOT NULL,
    disputes BIGINT NOT NULL DEFAULT 0, sent_to TEXT NOT NULL DEFAULT '',
    withheld TEXT NOT NULL DEFAULT '{}'
);
DO $$ BEGIN
    -- Asked first: ALTER TABLE waits for whoever reads the table, and keeps writers waiting meanwhile.
    IF NOT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = 'cosilo'
                   AND table_name = 'requests' AND column_name = 'disputes') THEN
        ALTER TABLE cosilo.requests ADD COLUMN disputes BIGINT NOT NULL DEFAULT 0;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = 'cosilo'
                   AND table_name = 'requests' AND column_name = 'sent_to') THEN
        ALTER TABLE cosilo.requests ADD COLUMN sent_to TEXT NOT NULL DEFAULT '';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = 'cosilo'
                   AND table_name = 'requests' AND column_name = 'withheld') THEN
        ALTER TABLE cosilo.requests ADD COLUMN withheld TEXT NOT NULL DEFAULT '{}';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = 'cosilo'
                   AND table_name = 'keys' AND column_name = 'local_only') THEN
        ALTER TABLE cosilo.keys ADD COLUMN local_only INTEGER NOT NULL DEFAULT 0;
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS requests_by_time ON cosilo.requests (at);
CREATE TABLE IF NOT EXISTS cosilo.kinds (
    at DOUBLE PRECISION NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, count BIGINT NOT NULL,
    PRIMARY KEY (at, key, kind)
);
CREATE TABLE IF NOT EXISTS cosilo.sessions (
    hash BYTEA PRIMARY KEY, key TEXT NOT NULL, expires DOUBLE PRECISION NOT NULL
);
CREATE TABLE IF NOT EXISTS cosilo.settings (name TEXT PRIMARY KEY, value BYTEA NOT NULL);
"""

_FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION cosilo.period_start(period TEXT, now DOUBLE PRECISION)
RETURNS DOUBLE PRECISION LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE period WHEN 'total' THEN 0.0
        ELSE extract(epoch FROM date_trunc(period, to_timestamp(now) AT TIME ZONE 'UTC')) END
$$;
CREATE OR REPLACE FUNCTION cosilo.reserve(
    p_id TEXT, p_key TEXT, p_request TEXT, p_slot INTEGER, p_run TEXT, p_now DOUBLE PRECISION,
    p_usd BIGINT, p_in BIGINT, p_out BIGINT, p_requests BIGINT, p_entities BIGINT, p_epsilon BIGINT,
    OUT refused TEXT, OUT wait DOUBLE PRECISION
) LANGUAGE plpgsql AS $$
DECLARE
    k cosilo.keys;
    t DOUBLE PRECISION;
    start DOUBLE PRECISION;
    spot BIGINT;
BEGIN
    SELECT * INTO k FROM cosilo.keys WHERE id = p_key FOR UPDATE;
    IF NOT FOUND THEN refused := 'key'; RETURN; END IF;
    IF EXISTS (SELECT 1 FROM cosilo.reservations WHERE id = p_id) THEN RETURN; END IF;
    t := coalesce(p_now, extract(epoch FROM clock_timestamp()));
    start := cosilo.period_start(k.period, t);
    IF k.since < start THEN
        UPDATE cosilo.keys SET past_usd = past_usd + used_usd, past_in = past_in + used_in,
            past_out = past_out + used_out, past_requests = past_requests + used_requests,
            past_entities = past_entities + used_entities, used_usd = 0, used_in = 0, used_out = 0,
            used_requests = 0, used_entities = 0, since = start
        WHERE id = p_key RETURNING * INTO k;
    END IF;
    refused := CASE
        WHEN k.used_usd + k.held_usd + p_usd > k.limit_usd THEN 'usd'
        WHEN k.used_in + k.used_out + k.held_in + k.held_out + p_in + p_out > k.limit_tokens
            THEN 'tokens'
        WHEN k.used_entities + k.held_entities + p_entities > k.limit_entities THEN 'entities'
        WHEN k.used_epsilon + k.held_epsilon + p_epsilon > k.limit_epsilon THEN 'epsilon'
    END;
    IF refused IS NOT NULL THEN RETURN; END IF;
    IF k.limit_rpm IS NOT NULL AND p_requests > 0 THEN
        spot := CASE WHEN k.limit_rpm > 0 THEN k.admitted % k.limit_rpm ELSE 0 END;
        SELECT at + {RATE_WINDOW} - t INTO wait FROM cosilo.starts
            WHERE key = p_key AND place = spot;
        IF wait > 0 OR k.limit_rpm = 0 THEN
            refused := 'requests';
            wait := coalesce(wait, {RATE_WINDOW});
            RETURN;
        END IF;
        INSERT INTO cosilo.starts VALUES (p_key, spot, t)
            ON CONFLICT (key, place) DO UPDATE SET at = excluded.at;
    END IF;
    wait := NULL;
    UPDATE cosilo.keys SET held_usd = held_usd + p_usd, held_in = held_in + p_in,
        held_out = held_out + p_out, held_requests = held_requests + p_requests,
        held_entities = held_entities + p_entities, held_epsilon = held_epsilon + p_epsilon,
        admitted = admitted + p_requests
    WHERE id = p_key;
    INSERT INTO cosilo.reservations VALUES (p_id, p_key, p_request, p_slot, p_run, t, p_usd, p_in,
        p_out, p_requests, p_entities, p_epsilon);
END $$;
"""

_FACTS = ", ".join(f"%(f{i})s" for i in range(len(REQUEST_COLUMNS.split(","))))

# The reservation goes first and everything hangs on it: a second settling finds none and does nothing.
_SETTLE = f"""
WITH gone AS (
    DELETE FROM reservations WHERE id = %(id)s RETURNING *
), k AS (
    UPDATE keys SET
        held_usd = held_usd - gone.usd, held_in = held_in - gone.tokens_in,
        held_out = held_out - gone.tokens_out, held_requests = held_requests - gone.requests,
        held_entities = held_entities - gone.entities, held_epsilon = held_epsilon - gone.epsilon,
        used_usd = used_usd + %(usd)s, used_in = used_in + %(in)s, used_out = used_out + %(out)s,
        used_requests = used_requests + %(requests)s, used_entities = used_entities + %(entities)s,
        used_epsilon = used_epsilon + %(epsilon)s
    FROM gone WHERE keys.id = gone.key RETURNING keys.id
), f AS (
    INSERT INTO requests ({REQUEST_COLUMNS}) SELECT {_FACTS} FROM k
    ON CONFLICT (request) DO UPDATE SET usd = requests.usd + excluded.usd,
        tokens_in = requests.tokens_in + excluded.tokens_in,
        tokens_out = requests.tokens_out + excluded.tokens_out,
        entities = requests.entities + excluded.entities,
        epsilon = requests.epsilon + excluded.epsilon
)
INSERT INTO kinds SELECT %(hour)s, k.id, e.key, e.value::bigint
    FROM k, jsonb_each_text(CAST(%(kinds)s AS jsonb)) AS e
    ON CONFLICT (at, key, kind) DO UPDATE SET count = kinds.count + excluded.count
"""


async def open_postgres(
    url: str,
    *,
    secret: bytes,
    keep: Keep = "digest",
    seal: Seal | None = None,
    work: bool = True,
    clock: Callable[[], float] | None = None,
) -> PostgresStore:
    """One worker's way to the store in the database at `url`; the tables are made when absent.

    Args:
        clock: stands in for the server's, in tests.

    Raises:
        ConfigError: psycopg is missing, or the store was made with another secret.
        StoreError: the database cannot be reached or written.
    """
    store = PostgresStore(url, secret=secret, clock=clock)
    try:
        await store.open(derive(secret, "check"))
        if work:
            await store.claim(keep=keep, seal=seal, key=derive(secret, "ledger"))
            await store.recover()
    except BaseException:
        await store.close()
        raise
    return store


class PostgresStore(Desk, Place):
    """Opened by `open_postgres`."""

    def __init__(self, url: str, *, secret: bytes, clock: Callable[[], float] | None) -> None:
        super().__init__(secret)
        self._conninfo = conninfo(url)
        self._clock = clock
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._ledger: PostgresLedger | None = None
        self._beside: dict[str, PostgresLedger] = {}
        self.run = secrets.token_hex(8)

    @property
    def accounts(self) -> Accounts:
        return self

    async def check(self) -> None:
        await self._ask(
            lambda db: db.execute(
                "INSERT INTO settings VALUES ('checked', %s)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (secrets.token_bytes(8),),
            )
        )
        if self._ledger is not None:
            for ledger in (self._ledger, *self._beside.values()):
                await asyncio.to_thread(ledger.check)
            await self.recover()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()
        if self._ledger is not None:
            self._ledger.close()
        for ledger in self._beside.values():
            ledger.close()

    # ── accounts ─────────────────────────────────────────────────────────────

    async def authenticate(self, bearer: str) -> Key | None:
        presented = hash_bearer(self._pepper, bearer)
        query = f"SELECT {KEY_COLUMNS}, {self._now} FROM keys WHERE id = %s"
        row = await self._row(query, (id_of(bearer),))
        if not matches(row[2] if row else None, presented):
            return None
        assert row is not None
        return active_key(row, row[-1])

    async def reserve(self, key: Key, most: Spend, *, request: str) -> Reservation:
        amounts = at_most(most)
        id = secrets.token_hex(12)
        now = self._clock() if self._clock else None
        refused, wait = await self._one(
            "SELECT * FROM reserve(%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)",
            (id, key.id, request, self.slot, self.run, now, *amounts),
        )
        if refused == "key":
            raise StoreError(f"the store knows no key {key.id!r} any more")
        if refused is not None:
            kind: SpendKind = refused
            raise over(kind, key.limits, wait)
        return Reservation(id=id, key=key.id, request=request, most=most)

    async def settle(
        self, reservation: Reservation, spent: Spend, *, request: RequestFacts
    ) -> None:
        amounts = what_was(spent, at_most(reservation.most))
        await self._ask(
            lambda db: self._book(db, reservation.id, reservation.key, amounts, request)
        )

    async def _book(
        self, db: Connection, id: str, key: str, spent: Amounts, facts: RequestFacts
    ) -> None:
        now = facts.at or await self._time(db)
        columns = facts_columns(facts, key=key, worker=self.worker, now=now, amounts=spent)
        kinds = dict(facts.kinds) if spent.requests else {}
        await db.execute(
            _SETTLE,
            {
                **{f"f{i}": value for i, value in enumerate(columns)},
                "id": id, "usd": spent.usd, "in": spent.tokens_in, "out": spent.tokens_out,
                "requests": spent.requests, "entities": spent.entities, "epsilon": spent.epsilon,
                "hour": now - now % 3600, "kinds": msgspec.json.encode(kinds).decode(),
            },
        )  # fmt: skip

    # ── workers ──────────────────────────────────────────────────────────────

    async def claim(self, *, keep: Keep, seal: Seal | None, key: bytes) -> None:
        """Take the first chain that nobody writes."""

        def chain(name: str) -> PostgresLedger:
            return PostgresLedger(self._open, name, keep=keep, key=key, seal=seal)

        def first() -> tuple[int, PostgresLedger]:
            for slot in range(SLOTS):
                try:
                    return slot, chain(worker_name(slot))
                except ChainBusyError:
                    continue
            raise StoreError(f"{SLOTS} workers already share this database")

        self.slot, self._ledger = await asyncio.to_thread(first)
        self._chain = chain

    async def recover(self) -> int:
        slots = await self._rows(
            "SELECT DISTINCT slot FROM reservations WHERE run != %s", (self.run,)
        )
        return sum([await self._ask(partial(self._bury, slot=row[0])) for row in slots])

    async def _bury(self, db: Connection, slot: int) -> int:
        """Settle the reservations that earlier workers in place `slot` left, once none of them is
        alive.
        """
        number = lock_number(worker_name(slot))
        async with db.transaction():
            if slot != self.slot:
                cursor = await db.execute("SELECT pg_try_advisory_xact_lock(%s)", (number,))
                if (await cursor.fetchone() or (False,))[0] is False:
                    return 0
            cursor = await db.execute(
                "SELECT r.id, r.key, r.request, r.usd, r.tokens_in, r.tokens_out, r.requests,"
                " r.entities, r.epsilon,"
                " EXISTS (SELECT 1 FROM requests q WHERE q.request = r.request),"
                " EXISTS (SELECT 1 FROM entries e WHERE e.request = r.request"
                "         AND e.direction = 'up')"
                " FROM reservations r WHERE slot = %s AND run != %s FOR UPDATE OF r",
                (slot, self.run),
            )
            left = await cursor.fetchall()
            for id, key, request, *rest in left:
                most, settled, sent = Amounts(*rest[:6]), rest[6], rest[7]
                cost = cost_of_killed(most, settled or not sent)
                await self._book(db, id, key, cost, facts_of_killed(request))
                if not settled:
                    await db.execute(
                        "UPDATE requests SET outcome = %s WHERE request = %s", (KILLED, request)
                    )
        return len(left)

    # ── what people do ───────────────────────────────────────────────────────

    async def ask(self, query: str, marks: Marks) -> Sequence[Sequence[Any]]:
        return await self._rows(postgres(query), marks)

    async def tell(self, *changes: tuple[str, Marks]) -> None:
        async def make(db: Connection) -> None:
            async with db.transaction():
                for statement, marks in changes:
                    await db.execute(postgres(statement), marks)

        await self._ask(make)

    async def now(self) -> float:
        return await self._ask(self._time)

    async def purge(self, *, before: float) -> int:
        """Forget the content of crossings before then; a VACUUM then frees what it took up."""

        async def forget(db: Connection) -> int:
            count = 0
            while True:  # in small steps, so that no request waits long
                cursor = await db.execute(
                    "UPDATE entries SET payload = NULL WHERE (chain, number) IN (SELECT chain,"
                    " number FROM entries WHERE payload IS NOT NULL AND at < %s LIMIT 500)",
                    (before,),
                )
                count += cursor.rowcount
                if cursor.rowcount < 500:
                    break
            if count:
                await db.execute("SET statement_timeout = 0")
                await db.execute("VACUUM entries")
                await db.execute("RESET statement_timeout")
            return count

        return await self._ask(forget)

    async def shred(self, requests: Collection[str]) -> Shredded:
        def forget() -> Shredded:
            try:
                with self._open() as db:
                    return shred(db, requests)
            except import_psycopg().Error as error:
                raise StoreError(f"PostgreSQL: {said(error)}") from error

        return await asyncio.to_thread(forget)

    # ── the database ─────────────────────────────────────────────────────────

    async def open(self, check: bytes) -> None:
        """Make the tables, and see that the secret is the one they were made with."""

        async def make(db: Connection) -> bytes:
            async with db.transaction():
                # Two workers that start together must not make the same table twice.
                await db.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number("schema"),))
                await db.execute(SCHEMA + _TABLES + _FUNCTIONS)
                await db.execute(
                    "INSERT INTO settings VALUES ('secret', %s) ON CONFLICT DO NOTHING", (check,)
                )
                cursor = await db.execute("SELECT value FROM settings WHERE name = 'secret'")
                return bytes((await cursor.fetchone() or (b"",))[0])

        if await self._ask(make) != check:
            raise ConfigError(
                "the store in this database was made with another secret: its keys would not be"
                " accepted and its ledger not verified; give the secret it was made with"
            )

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection: psycopg.Connection[tuple[Any, ...]] = import_psycopg().connect(
            self._conninfo, autocommit=True
        )
        return connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._room:
            db = self._idle.pop() if self._idle else await self._connect()
            try:
                yield db
            except BaseException:
                await db.close()  # what it was doing is not known
                raise
            self._idle.append(db)

    async def _connect(self) -> Connection:
        db: Connection = await import_psycopg().AsyncConnection.connect(
            self._conninfo, autocommit=True
        )
        return db

    async def _ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `question`, once more on a new connection if the first was lost, as when the server
        restarts.
        """
        errors = import_psycopg()
        for last in (False, True):
            try:
                async with self._connection() as db:
                    return await question(db)
            except errors.OperationalError as error:
                if last:
                    raise StoreError(f"PostgreSQL: {said(error)}") from error
                while self._idle:
                    await self._idle.pop().close()
            except errors.Error as error:
                raise StoreError(f"PostgreSQL: {said(error)}") from error
        raise AssertionError("unreachable")

    async def _rows(self, query: str, marks: Any = ()) -> list[tuple[Any, ...]]:
        async def read(db: Connection) -> list[tuple[Any, ...]]:
            return await (await db.execute(query, marks)).fetchall()

        return await self._ask(read)

    async def _row(self, query: str, marks: Any = ()) -> tuple[Any, ...] | None:
        rows = await self._rows(query, marks)
        return rows[0] if rows else None

    async def _one(self, query: str, marks: Any = ()) -> tuple[Any, ...]:
        return (await self._rows(query, marks))[0]

    async def _time(self, db: Connection) -> float:
        row = await (await db.execute(f"SELECT {self._now}")).fetchone()
        assert row is not None
        return float(row[0])

    @property
    def _now(self) -> str:
        """The time as an SQL expression."""
        if self._clock is not None:
            return f"({self._clock()!r})::double precision"
        return "extract(epoch FROM clock_timestamp())::double precision"


def conninfo(url: str) -> str:
    """`url` with the connection options that the gateway needs added, except those that it states
    itself.
    """
    psycopg = import_psycopg()
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigError("the store's URL is not one that PostgreSQL understands") from None
    ours = (
        "-c search_path=cosilo -c synchronous_commit=off -c statement_timeout=10s"
        " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    )
    settings: dict[str, Any] = {
        "connect_timeout": "5", "keepalives_idle": "10", "tcp_user_timeout": "10000",
        "application_name": "cosilo", **given, "options": f"{ours} {given.get('options') or ''}",
    }  # fmt: skip
    return make_conninfo("", **settings)
