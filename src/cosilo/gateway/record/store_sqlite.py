"""Keys, budgets and the record in a folder: SQLite, shared by the workers of one machine.

    STORE/accounts.sqlite   keys, what they spent and have set aside, finished requests
          ledger.sqlite     what crossed, one chain per worker
          secret            what hashes and seals hang on; keep a copy elsewhere
          workers/N.lock    held by the worker whose chain is N

Each change is made in a short transaction that takes the write lock at once (BEGIN IMMEDIATE), so
what it reads is what it changes, in whichever process; requests that reserve or settle in the same
turn of the event loop share one. A lock file is let go by the kernel when its worker
dies, however it dies; what that worker had set aside is settled by the next one to look:

* nothing when the ledger has no message that left for the request (recording comes before sending),
  or when another reservation of the same request was settled (the first carries the whole cost);
* else the most it can have cost.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cosilo.boundary.record.batches import Batches
from cosilo.boundary.record.ledger import Keep, Seal, SqliteLedger, connect
from cosilo.boundary.record.shredding import shred
from cosilo.databases import made_private
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.accounts import (
    Accounts,
    Key,
    RequestFacts,
    Reservation,
    Spend,
)
from cosilo.gateway.accounts.keys import (
    derive,
    hash_bearer,
    id_of,
    matches,
)
from cosilo.gateway.record.bookings_sqlite import (
    Change,
    Reserving,
    Settling,
    SqliteBookings,
    UnknownReservationError,
)
from cosilo.gateway.record.desk import Desk, Marks
from cosilo.gateway.record.retention import purge_sqlite
from cosilo.gateway.record.store_records import (
    KEY_COLUMNS,
    KILLED,
    SLOTS,
    Amounts,
    Place,
    active_key,
    at_most,
    cost_of_killed,
    facts_of_killed,
)
from cosilo.record_keys import ENDINGS, Shredded

BUSY_MS = 2000  # how long to wait for another worker's transaction; they take well under one

SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, admin INTEGER NOT NULL,
    points TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL,
    limit_usd INTEGER, limit_tokens INTEGER, limit_entities INTEGER, limit_epsilon INTEGER,
    limit_rpm INTEGER, period TEXT NOT NULL, since REAL NOT NULL DEFAULT 0,
    used_usd INTEGER NOT NULL DEFAULT 0, used_in INTEGER NOT NULL DEFAULT 0,
    used_out INTEGER NOT NULL DEFAULT 0, used_requests INTEGER NOT NULL DEFAULT 0,
    used_entities INTEGER NOT NULL DEFAULT 0, used_epsilon INTEGER NOT NULL DEFAULT 0,
    held_usd INTEGER NOT NULL DEFAULT 0, held_in INTEGER NOT NULL DEFAULT 0,
    held_out INTEGER NOT NULL DEFAULT 0, held_requests INTEGER NOT NULL DEFAULT 0,
    held_entities INTEGER NOT NULL DEFAULT 0, held_epsilon INTEGER NOT NULL DEFAULT 0,
    past_usd INTEGER NOT NULL DEFAULT 0, past_in INTEGER NOT NULL DEFAULT 0,
    past_out INTEGER NOT NULL DEFAULT 0, past_requests INTEGER NOT NULL DEFAULT 0,
    past_entities INTEGER NOT NULL DEFAULT 0, admitted INTEGER NOT NULL DEFAULT 0,
    local_only INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, request TEXT NOT NULL, slot INTEGER NOT NULL,
    run TEXT NOT NULL, at REAL NOT NULL, usd INTEGER NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, requests INTEGER NOT NULL, entities INTEGER NOT NULL,
    epsilon INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS starts (
    key TEXT NOT NULL, place INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (key, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY, request TEXT NOT NULL UNIQUE, key TEXT NOT NULL,
    worker TEXT NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL, point TEXT NOT NULL,
    strategy TEXT NOT NULL, endpoint TEXT NOT NULL, outcome TEXT NOT NULL, status INTEGER NOT NULL,
    by_whom TEXT NOT NULL, stream INTEGER NOT NULL, lm_calls INTEGER NOT NULL,
    upstream TEXT NOT NULL, fallback INTEGER NOT NULL, bytes_up INTEGER NOT NULL,
    bytes_down INTEGER NOT NULL, usd INTEGER NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, entities INTEGER NOT NULL, epsilon INTEGER NOT NULL,
    kinds TEXT NOT NULL, disputes INTEGER NOT NULL DEFAULT 0, sent_to TEXT NOT NULL DEFAULT '',
    withheld TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (at);
CREATE TABLE IF NOT EXISTS kinds (
    at REAL NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (at, key, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY, key TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

# In the order in which versions added them, so that all stores have the same order of columns.
_ADDED = (
    ("requests", "disputes", "INTEGER NOT NULL DEFAULT 0"),
    ("requests", "sent_to", "TEXT NOT NULL DEFAULT ''"),
    ("requests", "withheld", "TEXT NOT NULL DEFAULT '{}'"),
    ("keys", "local_only", "INTEGER NOT NULL DEFAULT 0"),
)

_AUTHENTICATE = f"SELECT {KEY_COLUMNS} FROM keys WHERE id = ?"


MOVING = ".ledger.moving"
"""In a store's folder: its ledger is being put into an archive, or was, and keys of what is there now
may still be here."""


def forget_moved_keys(folder: Path) -> None:
    """Delete the keys of entries that an archive has, also where whoever archived them was stopped
    before that. Nobody may write the ledger meanwhile."""
    ledger, moving = folder / "ledger.sqlite", folder / MOVING
    if not moving.exists():
        return
    with closing(connect(ledger)) as db:
        if db.execute("SELECT 1 FROM entries LIMIT 1").fetchone():  # they are here as before
            return
    for ending in ENDINGS:
        ledger.with_name(ledger.name + ending).unlink(missing_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    moving.unlink(missing_ok=True)


class SqliteStore(Desk, Place):
    """One worker's way to the store in `folder`.

    Args:
        folder: made when absent, readable by its owner only.
        secret: the gateway's secret.
        keep: whether the ledger keeps contents or only digests.
        seal: applied to contents before they are stored.
        work: claim a place among the workers; False for the command line, which only looks.
        clock: seconds since the epoch.

    Raises:
        StoreError: the folder cannot be read or written.
        ConfigError: the store was made with another secret.
    """

    def __init__(
        self,
        folder: Path,
        *,
        secret: bytes,
        keep: Keep = "digest",
        seal: Seal | None = None,
        work: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(secret)
        self.folder = folder
        self._clock = clock
        self._reader: sqlite3.Connection | None = None
        self._looking = threading.Lock()
        self._lock: int | None = None
        self._ledger: SqliteLedger | None = None
        self._beside: dict[str, SqliteLedger] = {}
        self._batches = Batches(self._write)
        self._ids, self._numbers = f"{secrets.token_hex(8)}-", itertools.count()
        self._version: int | None = None
        # By the hash that each was shown with: when a key expires, and the key.
        self._known: dict[bytes, tuple[float | None, Key]] = {}
        self.run = f"{_machine()}/{secrets.token_hex(8)}"
        with self._guarded():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "workers").mkdir(mode=0o700, exist_ok=True)
            for name in ("accounts.sqlite", "ledger.sqlite"):
                made_private(folder / name)
            self._db = connect(folder / "accounts.sqlite", timeout=BUSY_MS / 1000)
            self._db.executescript(SCHEMA)
            self._migrate()
            self._check_secret(derive(secret, "check"))
            with self._change():  # one worker at a time
                forget_moved_keys(folder)
            self._bookings = self._booking()
            if not work:
                SqliteLedger(folder / "ledger.sqlite", "").close()  # makes the tables of a new one
            else:
                self.slot, self._lock = self._claim()
                self._bookings = self._booking()
                self._chain = partial(
                    SqliteLedger,
                    folder / "ledger.sqlite",
                    keep=keep,
                    key=derive(secret, "ledger"),
                    seal=seal,
                    timeout=BUSY_MS / 1000,
                )
                self._ledger = self._chain(self.worker)
                self._recover()

    @property
    def accounts(self) -> Accounts:
        return self

    def _booking(self) -> SqliteBookings:
        return SqliteBookings(
            self._db, self._clock, slot=self.slot, run=self.run, worker=self.worker
        )

    async def check(self) -> None:
        with self._change() as db:
            db.execute(
                "INSERT INTO settings VALUES ('checked', ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (secrets.token_bytes(8),),
            )
        if self._lock is not None:
            self._recover()

    async def close(self) -> None:
        self._db.close()
        if self._reader is not None:
            self._reader.close()
        if self._ledger is not None:
            self._ledger.close()
        for ledger in self._beside.values():
            ledger.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ── accounts ─────────────────────────────────────────────────────────────

    async def authenticate(self, bearer: str) -> Key | None:
        presented = hash_bearer(self._pepper, bearer)
        try:
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:  # another connection has written: one may be revoked
                self._version = version
                self._known.clear()
            known = self._known.get(presented)
            if known is None:
                row = self._db.execute(_AUTHENTICATE, (id_of(bearer),)).fetchone()
                if not matches(row[2] if row else None, presented):
                    return None
                if (key := active_key(row, self._clock())) is not None:
                    self._known[presented] = (row[5], key)
                return key
        except sqlite3.Error as error:
            raise self._failed(error) from error
        expires, key = known
        return key if expires is None or self._clock() < expires else None

    async def reserve(self, key: Key, most: Spend, *, request: str) -> Reservation:
        amounts = at_most(most)
        id = f"{self._ids}{next(self._numbers)}"
        await self._batches.put(Reserving(key, amounts, id, request))
        return Reservation(id=id, key=key.id, request=request, most=most)

    async def settle(
        self, reservation: Reservation, spent: Spend, *, request: RequestFacts
    ) -> None:
        await self._batches.put(Settling(reservation, spent, request))

    async def _write(self, changes: Sequence[Change]) -> Sequence[Exception | None]:
        """All `changes` in one transaction."""
        try:
            with self._change():
                return self._bookings.make(changes)
        except UnknownReservationError:
            with self._change():
                return self._bookings.make(changes, together=False)

    # ── workers ──────────────────────────────────────────────────────────────

    async def recover(self) -> int:
        return self._recover()

    def _recover(self) -> int:
        with self._guarded():
            slots = [
                row[0]
                for row in self._db.execute(
                    "SELECT DISTINCT slot FROM reservations WHERE run != ?", (self.run,)
                )
            ]
        count = 0
        for slot in slots:
            if slot == self.slot:
                count += self._bury(slot)
            elif (lock := try_lock(self.folder, slot)) is not None:
                try:
                    count += self._bury(slot)
                finally:
                    os.close(lock)
        return count

    def _bury(self, slot: int) -> int:
        """Settle the reservations of the dead workers that were `slot`, whose lock is ours."""
        with self._change() as db:
            left = db.execute(
                "SELECT id, key, request, run, usd, tokens_in, tokens_out, requests, entities,"
                " epsilon FROM reservations WHERE slot = ? AND run != ?",
                (slot, self.run),
            ).fetchall()
            settled = {
                row[2]
                for row in left
                if db.execute("SELECT 1 FROM requests WHERE request = ?", (row[2],)).fetchone()
            }
            for id, key, request, run, *amounts in left:
                most = Amounts(*amounts)
                booked = request in settled or self._never_sent(request, run)
                cost = cost_of_killed(most, booked)
                self._bookings.book([(key, most, cost, facts_of_killed(request))])
                db.execute("DELETE FROM reservations WHERE id = ?", (id,))
                if request not in settled:
                    db.execute(
                        "UPDATE requests SET outcome = ? WHERE request = ?", (KILLED, request)
                    )
        return len(left)

    def _never_sent(self, request: str, run: str) -> bool:
        if not run.startswith(_machine() + "/"):
            return False  # the machine itself went down, and may have lost the ledger's last lines
        ledger = self._ledger
        if ledger is None:
            return False
        return not ledger.left(request)

    def _claim(self) -> tuple[int, int]:
        for slot in range(SLOTS):
            lock = try_lock(self.folder, slot)
            if lock is not None:
                return slot, lock
        raise StoreError(f"{SLOTS} workers already share {str(self.folder)!r}")

    # ── what people do ───────────────────────────────────────────────────────

    async def ask(self, query: str, marks: Marks) -> Sequence[Sequence[Any]]:
        """The rows of `query`, read in a thread and on a connection of its own, so that requests do
        not wait for it.
        """

        def read() -> list[Any]:
            with self._guarded(), self._looking:
                if self._reader is None:
                    self._reader = connect(self.folder / "accounts.sqlite")
                    self._reader.execute("PRAGMA query_only = ON")
                return self._reader.execute(query, marks).fetchall()

        return await asyncio.to_thread(read)

    async def tell(self, *changes: tuple[str, Marks]) -> None:
        def make(db: sqlite3.Connection) -> None:
            for statement, marks in changes:
                db.execute(statement, marks)
            self._known.clear()

        await self._batches.put(make)

    async def now(self) -> float:
        return self._clock()

    async def purge(self, *, before: float) -> int:
        return await asyncio.to_thread(purge_sqlite, self.folder / "ledger.sqlite", before)

    async def shred(self, requests: Collection[str]) -> Shredded:
        path = self.folder / "ledger.sqlite"
        (done,) = await asyncio.to_thread(shred, path, requests, chains=None)
        return done

    # ── the database ─────────────────────────────────────────────────────────

    def _check_secret(self, check: bytes) -> None:
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO settings VALUES ('secret', ?)", (check,))
            found = db.execute("SELECT value FROM settings WHERE name = 'secret'").fetchone()[0]
        if found != check:
            raise ConfigError(
                f"the store {str(self.folder)!r} was made with another secret: its keys would not"
                " be accepted and its ledger not verified; give the secret it was made with"
            )

    def _migrate(self) -> None:
        """Bring the tables of an older version up to date."""
        with self._change() as db:
            for table, column, kind in _ADDED:
                if not db.execute(
                    "SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)
                ).fetchone():
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except OSError as error:
            raise StoreError(
                f"the store {str(self.folder)!r} cannot be read or written: {error.strerror}"
            ) from error

    def _failed(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"the store {str(self.folder)!r} cannot be read or written: {error}")


def try_lock(folder: Path, slot: int) -> int | None:
    """Take the place `slot` among the workers of the store in `folder`; None where it is taken."""
    handle = os.open(folder / "workers" / f"{slot}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _machine() -> str:
    """An id of this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
