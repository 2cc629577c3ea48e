"""Put a store's record so far into an archive, and let its chains go on from there.

    STORE/ledger.sqlite   ──▶  ARCHIVE/ledger.sqlite     all entries, with their heads
          ledger.sqlite.keys           ledger.sqlite.keys   what hides what they hold
          accounts.sqlite ──▶          accounts.sqlite   the finished requests
    STORE/ledger.sqlite        empty but for the bases: where each chain goes on, sealed

An archive is a store's folder like any other: `cosilo audit` verifies and shows it. That the store goes
on where the archive ends shows when it is verified against the archive's heads.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from cosilo.boundary.record.ledger import Base, Head, SqliteLedger, connect
from cosilo.databases import made_private
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.keys import derive
from cosilo.gateway.record.store_records import SLOTS, worker_name
from cosilo.gateway.record.store_sqlite import (
    MOVING,
    SCHEMA,
    SqliteStore,
    forget_moved_keys,
    try_lock,
)
from cosilo.record_keys import copied, keys_path


def archive(store: Path, folder: Path, secret: bytes) -> int:
    """Move the record of the store in `store` into the new folder `folder`; returns how many
    entries moved.

    Whenever it is stopped, the store has either all entries or the bases; keys of entries that are in
    the archive alone go when the store is opened next.

    Raises:
        ConfigError: there is no store, a worker serves from it, or `folder` is there already.
        StoreError: a file cannot be read or written.
    """
    ledger = store / "ledger.sqlite"
    if not ledger.is_file():
        raise ConfigError(f"there is no ledger at {str(ledger)!r}")
    try:
        # A worker that starts settles what killed ones left; it needs the record for that.
        asyncio.run(SqliteStore(store, secret=secret).close())
        with _alone(store):
            folder.mkdir(mode=0o700, parents=True)
            count = _seal_bases(ledger, store / ".ledger.new", secret)
            _copy_requests(store / "accounts.sqlite", folder / "accounts.sqlite")
            shutil.copy2(ledger, folder / "ledger.sqlite")
            copied(keys_path(ledger), keys_path(folder / "ledger.sqlite"))
            made_private(store / MOVING)
            _sync(*folder.iterdir(), folder, store / ".ledger.new", store)
            os.replace(store / ".ledger.new", ledger)
            _sync(store)
            forget_moved_keys(store)
        return count
    except FileExistsError:
        raise ConfigError(
            f"{str(folder)!r} is there already; an archive gets a new folder"
        ) from None
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot put the record into {str(folder)!r}: {error}") from error


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """A context in which no worker serves from the store and none can start to: it holds their
    locks.
    """
    with ExitStack() as locks:
        for slot in range(SLOTS):
            lock = try_lock(store, slot)
            if lock is None:
                raise ConfigError(
                    f"{worker_name(slot)} serves from {str(store)!r}: stop the gateway first"
                )
            locks.callback(os.close, lock)
        with closing(connect(store / "accounts.sqlite")) as db:
            if db.execute("SELECT 1 FROM reservations LIMIT 1").fetchone():
                raise ConfigError(f"{str(store)!r} was used meanwhile: try again")
        yield


def _seal_bases(ledger: Path, new: Path, secret: bytes) -> int:
    """Make the ledger that goes on where `ledger` ends, and leave `ledger` whole in one file."""
    key, now = derive(secret, "ledger"), time.time()
    with closing(connect(ledger)) as db:
        heads = [Head(*row) for row in db.execute("SELECT chain, count, hash, mac FROM heads")]
        attempts = dict(db.execute("SELECT chain, max(attempt) FROM entries GROUP BY chain"))
        before = dict(db.execute("SELECT chain, attempt FROM bases"))
        count = int(db.execute("SELECT count(*) FROM entries").fetchone()[0])
        db.execute("PRAGMA journal_mode = DELETE").fetchone()  # nothing is left beside the file
    new.unlink(missing_ok=True)
    SqliteLedger(new, "").close()
    with closing(connect(new)) as db:
        db.execute("BEGIN IMMEDIATE")
        for head in heads:
            attempt = max(attempts.get(head.chain, 0), before.get(head.chain, 0))
            base = Base.seal(key, head, attempt, now)
            db.execute(
                "INSERT INTO bases VALUES (?,?,?,?,?,?)",
                (base.chain, base.count, base.hash, base.attempt, base.at, base.mac),
            )
            db.execute(
                "INSERT INTO heads VALUES (?,?,?,?)", (head.chain, head.count, head.hash, head.mac)
            )
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    return count


def _copy_requests(accounts: Path, copy: Path) -> None:
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect(copy)) as db:
        db.executescript(SCHEMA)
        db.execute("ATTACH DATABASE ? AS live", (str(accounts),))
        db.execute("INSERT INTO requests SELECT * FROM live.requests")
        db.execute("DETACH DATABASE live")
        db.execute("PRAGMA journal_mode = DELETE").fetchone()


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
