"""The ledger in PostgreSQL, for writers on many machines.

Same entries, same hashes, same faults found as in SQLite. A chain has one writer at a time: it
holds an advisory lock that the server lets go when the writer's connection ends, however it ends.

Needs the `postgres` extra (psycopg 3).
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
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
    EntryHiding,
    EntryRow,
    Head,
    Keep,
    Seal,
    head_mac,
    link,
    opened,
)
from cosilo.boundary.record.shredding import heads_digest
from cosilo.errors import ConfigError, StoreError
from cosilo.record_keys import SPAN, Block, KeyReader, Shredded, Writing, by_block

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
    hash BYTEA NOT NULL, answers BIGINT, key_id BIGINT, PRIMARY KEY (chain, number)
);
CREATE INDEX IF NOT EXISTS entries_by_request ON cosilo.entries (request);
CREATE INDEX IF NOT EXISTS entries_with_content ON cosilo.entries (at) WHERE payload IS NOT NULL;
CREATE TABLE IF NOT EXISTS cosilo.heads (
    chain TEXT PRIMARY KEY, count BIGINT NOT NULL, hash BYTEA NOT NULL, mac BYTEA NOT NULL
);
CREATE TABLE IF NOT EXISTS cosilo.key_blocks (
    id BIGINT PRIMARY KEY, chain TEXT NOT NULL, key BYTEA
);
CREATE TABLE IF NOT EXISTS cosilo.key_leaves (id BIGINT PRIMARY KEY, key BYTEA NOT NULL);
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
    IF NOT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = 'cosilo.entries'::regclass AND attname = 'key_id') THEN
        ALTER TABLE cosilo.entries ADD COLUMN IF NOT EXISTS key_id BIGINT;
    END IF;
END $$;
"""

_NOTICED_S = 10.0
"""How long a server may take to notice that a connection has ended."""

_APPEND = """
WITH entry AS (
    INSERT INTO cosilo.entries SELECT * FROM unnest(
        %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[],
        %s::bytea[], %s::float8[], %s::float8[], %s::bytea[], %s::bytea[], %s::bigint[],
        %s::bigint[])
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
        seal: applied to a payload before its entry's own key is.

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
        self._how = EntryHiding(Writing(self._keep_block), seal)
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
                self._reconnect()
                if self._hash == last:
                    return self._count
                rows, last = self._link(batch)
                self._insert(rows, last)
            self._count += len(batch)
            self._hash = last
            return self._count

    def _link(self, batch: Sequence[Crossing]) -> tuple[list[EntryRow], bytes]:
        return link(self.chain, self._count, self.attempt, batch, self.keep, self._hash, self._how)

    def _keep_block(self, block: Block) -> None:
        row = (block.id, block.chain, block.key)
        put = "INSERT INTO cosilo.key_blocks VALUES (%s,%s,%s) ON CONFLICT DO NOTHING"
        try:
            self._ask(lambda db: db.execute(put, row))
        except StoreError:  # the connection may have gone stale
            self._reconnect()
            self._ask(lambda db: db.execute(put, row))

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
                self._reconnect()

    def close(self) -> None:
        # The server lets the lock go by itself, but only once it has noticed that we left.
        with suppress(StoreError):
            self._ask(
                lambda db: db.execute("SELECT pg_advisory_unlock(%s)", (lock_number(self.chain),))
            )
        self._db.close()

    def _reconnect(self) -> None:
        self._db.close()
        self._db = self._connect(before=self._backend)

    def _connect(self, *, before: int | None = None) -> Connection:
        """A new connection that holds the chain.

        Args:
            before: the server's process of this writer's last connection, which holds the chain until
                it has noticed that we left.
        """
        db = _asking(self._open)
        try:
            until = time.monotonic() + _NOTICED_S
            while not _asking(lambda: self._held(db)):
                own = before is not None and _asking(lambda: self._holder(db)) in (before, None)
                if not own or time.monotonic() > until:
                    raise ChainBusyError(f"another process writes the chain {self.chain!r}")
                time.sleep(0.005)
            self._backend = db.info.backend_pid
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

    def _held(self, db: Connection) -> bool:
        query = "SELECT pg_try_advisory_lock(%s)"
        free = db.execute(query, (lock_number(self.chain),)).fetchone()
        return bool(free and free[0])

    def _holder(self, db: Connection) -> int | None:
        """The server's process that holds the chain; None where nobody does any more."""
        number = lock_number(self.chain) % 2**64
        query = (
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid::bigint = %s AND objid::bigint = %s"
        )
        row = db.execute(query, (number >> 32, number % 2**32)).fetchone()
        return int(row[0]) if row else None

    def _ask(self, question: Callable[[Connection], T]) -> T:
        return _asking(lambda: question(self._db))


class StoredKeys(KeyReader):
    """The keys of what is recorded in the database `db`."""

    def __init__(self, db: Connection) -> None:
        super().__init__()
        self._db = db

    def _look(self, first: int) -> Block | dict[int, bytes] | None:
        query = "SELECT id, chain, key FROM cosilo.key_blocks WHERE id = %s"
        row = self._db.execute(query, (first,)).fetchone()
        if row is None or row[2] is not None:
            return Block(*row) if row is not None else None
        query = "SELECT id, key FROM cosilo.key_leaves WHERE id BETWEEN %s AND %s"
        return dict(self._db.execute(query, (first, first + SPAN - 1)).fetchall())


class ChainBusyError(StoreError):
    """Another process writes this chain."""


def lock_number(chain: str) -> int:
    """The advisory lock that a chain's writer holds."""
    digest = hashlib.sha256(f"cosilo chain {chain}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def read_entries(db: Connection, chain: str) -> Iterator[Entry]:
    """The entries of `chain` in order, opened with their keys, in bounded memory."""
    at, keys = 0, StoredKeys(db)
    while True:
        rows = db.execute(
            "SELECT * FROM cosilo.entries WHERE chain = %s AND number >= %s"
            " ORDER BY number LIMIT 1000",
            (chain, at),
        ).fetchall()
        yield from (opened(Entry(*row), keys) for row in rows)
        if len(rows) < 1000:
            return
        at = rows[-1][1] + 1


def shred(db: Connection, requests: Collection[str]) -> Shredded:
    """Forget what crossed for `requests`, as `shredding.shred` does; writers may go on meanwhile.

    The tables of keys are rewritten. The server's own log (`pg_wal`) holds what was deleted until its
    files are used again, and so do backups and replicas.

    Args:
        db: in autocommit mode, to a database that has `SCHEMA`.

    Raises:
        StoreError: the database cannot be written.
    """

    def forget() -> Shredded:
        asked = (list(requests),)
        which = "FROM cosilo.entries WHERE request = ANY(%s)"
        with db.transaction():
            found = db.execute(f"SELECT key_id {which}", asked).fetchall()
            blocks = by_block(id for (id,) in found if id is not None)
            keys = sum(_punctured(db, first, gone) for first, gone in sorted(blocks.items()))
            bare = sum(id is None for (id,) in found)
            db.execute(
                "UPDATE cosilo.entries SET payload = NULL"
                " WHERE request = ANY(%s) AND payload IS NOT NULL",
                asked,
            )
        db.execute("SET statement_timeout = 0")
        db.execute("VACUUM FULL cosilo.key_blocks")
        db.execute("VACUUM FULL cosilo.key_leaves")
        if bare:
            db.execute("VACUUM cosilo.entries")
        db.execute("RESET statement_timeout")
        heads = db.execute('SELECT chain, count, hash FROM cosilo.heads ORDER BY chain COLLATE "C"')
        return Shredded("PostgreSQL", len(found), keys, bare, heads_digest(heads.fetchall()))

    return _asking(forget)


def _punctured(db: Connection, first: int, gone: set[int]) -> int:
    query = "SELECT id, chain, key FROM cosilo.key_blocks WHERE id = %s FOR UPDATE"
    row = db.execute(query, (first,)).fetchone()
    if row is None or row[2] is None:
        deleted = "DELETE FROM cosilo.key_leaves WHERE id = ANY(%s)"
        return db.execute(deleted, (list(gone),)).rowcount
    with db.cursor() as cursor:
        put = "INSERT INTO cosilo.key_leaves VALUES (%s,%s)"
        cursor.executemany(put, Block(*row).without(gone))
    db.execute("UPDATE cosilo.key_blocks SET key = NULL WHERE id = %s", (first,))
    return len(gone)


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
