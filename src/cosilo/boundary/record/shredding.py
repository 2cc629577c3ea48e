"""Forget what crossed for given requests: their entries' keys are deleted, and the chain stays whole.

    1. the same messages in ledgers that know them by other names (`also`), as below
    2. LEDGER.keys    the entries' keys are deleted, the file is rewritten
    3. LEDGER         their contents are deleted, and their names where those are hidden
    4.                rewritten where anything but what a key had sealed was deleted

Until 2 is committed, all can be read, and afterwards nothing can; no step does harm when it is done
again, so whoever was stopped begins anew. Entries of an earlier version have no key: their contents are
deleted, and their digests stay, since the chain is made of them.

What this cannot reach: copies of the file of keys, what a file system or a disk keeps of what was
overwritten, and the memory of a process that writes the ledger, which forgets a key after
`record_keys.SPAN` more entries, or when it ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cosilo import record_keys
from cosilo.boundary.record.ledger import (
    FORGOTTEN,
    Entry,
    SqliteLedger,
    connect,
    keys_of,
    opened,
)
from cosilo.record_keys import Shredded, guarded, keys_path

_BARE = (
    "chain, number, attempt, request, direction, kind, size, digest, at, epsilon, NULL, hash, answers,"
    " key_id"
)
"""An entry's columns, but its content: that is deleted unseen, and may be large."""


def shred(
    path: Path,
    requests: Collection[str],
    *,
    chains: Collection[str] | None,
    also: Sequence[Path] = (),
) -> tuple[Shredded, ...]:
    """Forget what crossed for `requests` in the ledger at `path`.

    Its writers may go on meanwhile.

    Args:
        requests: as the entries name them.
        chains: whose entries are meant, as others may have the same names; None for all, where one
            party has drawn the names of all chains.
        also: ledgers that have the same messages under other names, as that of what went over the
            network; what went up is found there by its content, with its reply.

    Returns:
        What was forgotten in each ledger that is there; that of `path` is the last.

    Raises:
        StoreError: a file cannot be written, or is read by others for so long that nothing can be said
            to be forgotten; it is to be done again.
    """
    if not path.is_file():
        return ()
    SqliteLedger(path, "").close()  # gives an old one today's columns
    with guarded(path), closing(connect(path)) as db:
        entries = _named(db, requests, chains)
    sent = {e.content_digest for e in entries if e.direction == "up"} - {None}
    done = []
    for other in also:
        if other.is_file():
            SqliteLedger(other, "").close()
            with guarded(other), closing(connect(other)) as db:
                same = _with_content(db, sent)
            done.append(_shred(other, same))
    return (*done, _shred(path, entries))


def _named(
    db: sqlite3.Connection, requests: Collection[str], chains: Collection[str] | None
) -> list[Entry]:
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("CREATE TEMP TABLE asked (request TEXT PRIMARY KEY) WITHOUT ROWID")
    db.executemany("INSERT OR IGNORE INTO asked VALUES (?)", ((name,) for name in requests))
    named = f"SELECT {_BARE} FROM asked CROSS JOIN entries USING (request)"  # in that order
    found = _opened(db, named)
    return [entry for entry in found if chains is None or entry.chain in chains]


def _with_content(db: sqlite3.Connection, digests: Collection[bytes | None]) -> list[Entry]:
    if not digests:
        return []
    sent = _opened(db, f"SELECT {_BARE} FROM entries WHERE direction = 'up'")
    found = [entry for entry in sent if entry.content_digest in digests]
    query = f"SELECT {_BARE} FROM entries WHERE chain = ? AND answers = ?"
    replies = [e for up in found for e in _opened(db, query, (up.chain, up.number))]
    return found + replies


def _opened(db: sqlite3.Connection, query: str, arguments: Iterable[object] = ()) -> list[Entry]:
    with closing(keys_of(db)) as keys:
        return [opened(Entry(*row), keys) for row in db.execute(query, tuple(arguments))]


def _shred(path: Path, entries: Sequence[Entry]) -> Shredded:
    ids = [entry.key_id for entry in entries if entry.key_id is not None]
    keys = record_keys.shred(keys_path(path), ids)
    bare = len(entries) - len(ids)
    with guarded(path), closing(connect(path)) as db:
        where = "WHERE chain = ? AND number = ?"
        places = [(entry.chain, entry.number) for entry in entries]
        with record_keys.transaction(db):
            db.executemany(
                f"UPDATE entries SET payload = NULL {where} AND payload IS NOT NULL", places
            )
            db.executemany(
                f"UPDATE entries SET request = '{FORGOTTEN}' {where} AND length(digest) = 64"
                f" AND request != '{FORGOTTEN}'",
                places,
            )
        # Those of one that was stopped are among them; nobody can say which these are.
        renamed = "SELECT 1 FROM entries WHERE request = ? AND length(digest) = 64 LIMIT 1"
        if bare or db.execute(renamed, (FORGOTTEN,)).fetchone() is not None:
            record_keys.rewrite(db, path)
        heads = db.execute("SELECT chain, count, hash FROM heads ORDER BY chain").fetchall()
    return Shredded(str(path), len(entries), keys, bare, heads_digest(heads))


def heads_digest(heads: Iterable[Sequence[Any]]) -> str:
    """SHA-256 of how far each chain has come: chain, count and hash, in the order of their names."""
    digest = hashlib.sha256()
    for chain, count, last in heads:
        digest.update(f"{chain}\x1f{count}\x1f{bytes(last).hex()}\x1e".encode())
    return digest.hexdigest()
