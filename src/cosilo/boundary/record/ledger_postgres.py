"""The ledger in PostgreSQL, for writers on many machines.

Same entries, same hashes, same faults found as in SQLite. A chain has one writer at a time: it
holds an advisory lock that the server lets go when the writer's connection ends, however it ends.

Needs the `postgres` extra (psycopg 3).
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from cosilo.boundary.messages import Message
from cosilo.boundary.record.batches import Batches
from cosilo.boundary.record.faults import find_faults
from cosilo.boundary.record.ledger import (
    BASES,
    GENESIS,
    Base,
    Crossing,
    Direction,
    Entry,
    EntryRow,
    Head,
    Keep,
    Seal,
    head_mac,
    link,
)
from cosilo.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

T = TypeVar("T")

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS cosilo;
CREATE TABLE IF NOT EXISTS cosilo.entries (
    chain TEXT NOT NULL, number BIGINT NOT NULL, attempt BIGINT NOT NULL, request TEXT NOT NULL,
    direction TEXT NOT NULL, kind TEXT NOT NULL, size BIGINT NOT NULL, digest BYTEA NOT NULL,
    at DOUBLE PRECISION NOT NULL, epsilon DOUBLE PRECISION NOT NULL, payload BYTEA,
    hash BYTEA NOT NULL, answers BIGINT, PRIMARY KEY (chain, number)
);
CREATE INDEX IF NOT EXISTS entries_by_request ON cosilo.entries (request);
CREATE INDEX IF NOT EXISTS entries_with_content ON cosilo.entries (at) WHERE payload IS NOT NULL;
CREATE TABLE IF NOT EXISTS cosilo.heads (
    chain TEXT PRIMARY KEY, count BIGINT NOT NULL, hash BYTEA NOT NULL, mac BYTEA NOT NULL
);
CREATE TABLE IF NOT EXISTS cosilo.bases (
    chain TEXT PRIMARY KEY, count BIGINT NOT NULL, hash BYTEA NOT NULL, attempt BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL, mac BYTEA NOT NULL
);
CREATE OR REPLACE FUNCTION cosilo.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.payload IS NULL THEN
        NEW.payload := OLD.payload;
        IF NEW = OLD THEN
            NEW.payload := NULL;
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the ledger is append-only';
END $$;
CREATE OR REPLACE TRIGGER entries_append_only BEFORE UPDATE OR DELETE ON cosilo.entries
    FOR EACH ROW EXECUTE FUNCTION cosilo.append_only();
DO $$ BEGIN  -- an ALTER that finds nothing to do would still wait for every reader
    IF NOT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = 'cosilo.entries'::regclass AND attname = 'answers') THEN
        ALTER TABLE cosilo.entries ADD COLUMN IF NOT EXISTS answers BIGINT;
    END IF;
END $$;
"""

_APPEND = """
WITH entry AS (
    INSERT INTO cosilo.entries SELECT * FROM unnest(
        %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[],
        %s::bytea[], %s::float8[], %s::float8[], %s::bytea[], %s::bytea[], %s::bigint[])
)
INSERT INTO cosilo.heads VALUES (%s,%s,%s,%s)
ON CONFLICT (chain) DO UPDATE SET count = excluded.count, hash = excluded.hash, mac = excluded.mac
"""


class PostgresLedger:
    """One writer's chain in PostgreSQL.

    A batch of entries is one statement and one round trip, made in a thread: the event loop serves
    others while it is under way, and what they append meanwhile is the next batch.

    Args:
        open: a new connection in autocommit mode, to a database that has `SCHEMA`.
        chain: this writer's chain; a chain that exists is continued.
        keep: whether the encoded messages are kept or only their digests.
        key: secret for the head's HMAC.
        seal: applied to a payload before it is stored.

    Raises:
        StoreError: the database cannot be read, or another writer holds the chain.
    """

    def __init__(
        self,
        open: Callable[[], Connection],
        chain: str,
        *,
        keep: Keep = "content",
        key: bytes = b"",
        seal: Seal | None = None,
    ) -> None:
        self.chain = chain
        self.keep: Keep = keep
        self._open = open
        self._key = key
        self._seal = seal
        self._batches = Batches(self._write)
        self._using = threading.Lock()  # the connection, and where the chain ends
        self._count, self._hash = 0, GENESIS
        self._db = self._connect()
        last = self._ask(
            lambda db: db.execute(
                "SELECT max(attempt) FROM cosilo.entries WHERE chain = %s", (chain,)
            ).fetchone()
        )
        self.attempt: int = last[0] + 1 if last and last[0] is not None else 0

    async def append(
        self,
        request: str,
        direction: Direction,
        message: Message,
        payload: bytes,
        answers: int | None = None,
    ) -> int:
        return await self._batches.put(Crossing(request, direction, message, payload, answers))

    async def _write(self, batch: Sequence[Crossing]) -> Sequence[int | Exception]:
        count = await asyncio.to_thread(self._put, batch)
        return range(count - len(batch), count)

    def _put(self, batch: Sequence[Crossing]) -> int:
        """Append `batch`; returns how many entries the chain then has."""
        with self._using:
            rows, last = self._link(batch)
            try:
                self._insert(rows, last)
            except StoreError:
                # The connection may have gone stale, and whether the batch was written is not known:
                # where the chain ends now says so.
                self._db.close()
                self._db = self._connect()
                if self._hash == last:
                    return self._count
                rows, last = self._link(batch)
                self._insert(rows, last)
            self._count += len(batch)
            self._hash = last
            return self._count

    def _link(self, batch: Sequence[Crossing]) -> tuple[list[EntryRow], bytes]:
        return link(self.chain, self._count, self.attempt, batch, self.keep, self._hash, self._seal)

    def _insert(self, rows: Sequence[EntryRow], last: bytes) -> None:
        count = self._count + len(rows)
        head = (self.chain, count, last, head_mac(self._key, self.chain, count, last))
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._ask(lambda db: db.execute(_APPEND, (*columns, *head)))

    def entries(self) -> Iterator[Entry]:
        with closing(self._open()) as db:
            yield from read_entries(db, self.chain)

    def check(self) -> None:
        """Whether an entry could be appended now.

        Raises:
            StoreError: it could not.
        """
        with self._using:
            try:
                self._ask(lambda db: db.execute("SELECT 1"))
            except StoreError:
                self._db.close()
                self._db = self._connect()

    def close(self) -> None:
        # The server lets the lock go by itself, but only once it has noticed that we left.
        with suppress(StoreError):
            self._ask(
                lambda db: db.execute("SELECT pg_advisory_unlock(%s)", (lock_number(self.chain),))
            )
        self._db.close()

    def _connect(self) -> Connection:
        db = _asking(self._open)
        try:
            free = _asking(
                lambda: db.execute(
                    "SELECT pg_try_advisory_lock(%s)", (lock_number(self.chain),)
                ).fetchone()
            )
            if not free or not free[0]:
                raise ChainBusyError(f"another process writes the chain {self.chain!r}")
            head = _asking(
                lambda: db.execute(
                    "SELECT count, hash FROM cosilo.heads WHERE chain = %s", (self.chain,)
                ).fetchone()
            )
        except BaseException:
            db.close()
            raise
        self._count, self._hash = (head[0], bytes(head[1])) if head else (0, GENESIS)
        return db

    def _ask(self, question: Callable[[Connection], T]) -> T:
        return _asking(lambda: question(self._db))


class ChainBusyError(StoreError):
    """Another process writes this chain."""


def lock_number(chain: str) -> int:
    """The advisory lock that a chain's writer holds."""
    digest = hashlib.sha256(f"cosilo chain {chain}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def read_entries(db: Connection, chain: str) -> Iterator[Entry]:
    """The entries of `chain` in order, payloads as stored, in bounded memory."""
    at = 0
    while True:
        rows = db.execute(
            "SELECT * FROM cosilo.entries WHERE chain = %s AND number >= %s"
            " ORDER BY number LIMIT 1000",
            (chain, at),
        ).fetchall()
        yield from (entry_of(row) for row in rows)
        if len(rows) < 1000:
            return
        at = rows[-1][1] + 1


def entry_of(row: tuple[Any, ...]) -> Entry:
    return Entry(*row)


def verify(db: Connection, *, key: bytes = b"", unseal: Seal | None = None) -> list[str]:
    """What is wrong with the ledger, one line per fault; empty when every chain is whole.

    Raises:
        StoreError: the database cannot be read.
    """

    def read() -> list[str]:
        heads = {
            row[0]: Head(*row)
            for row in db.execute("SELECT chain, count, hash, mac FROM cosilo.heads")
        }
        chains = [row[0] for row in db.execute("SELECT DISTINCT chain FROM cosilo.entries")]
        bases = {row[0]: Base(*row) for row in db.execute(BASES.replace("bases", "cosilo.bases"))}
        return find_faults(heads, chains, lambda chain: read_entries(db, chain), key, unseal, bases)

    return _asking(read)


def _asking(question: Callable[[], T]) -> T:
    psycopg = import_psycopg()
    try:
        return question()
    except psycopg.Error as error:
        raise StoreError(f"PostgreSQL: {said(error)}") from error


def said(error: Exception) -> str:
    """What the database said, without the values it may quote."""
    diagnostics = getattr(error, "diag", None)
    primary = getattr(diagnostics, "message_primary", None)
    return f"{type(error).__name__}: {primary or str(error).strip().splitlines()[0:1]}"


def import_psycopg() -> Any:
    """The driver.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import psycopg
    except ImportError:
        raise ConfigError(
            "a store in PostgreSQL needs psycopg: pip install 'cosilo[postgres]'"
        ) from None
    return psycopg
