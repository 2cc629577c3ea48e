"""A key for each record, in a file apart from the records, so that deleting the key forgets the record.

    FILE         what was recorded, each digest masked and each content sealed by its record's key
    FILE.keys    blocks    one random key for every 128 records of a writer; their keys derive from it
                 leaves    of a block of which some were shredded: the keys of those that were not
                 naming    the key of names, where records are found by what they answer

`FILE` may be copied, archived and backed up at will: once a record's key is gone, no copy tells what
was in it, or lets a guess of it be confirmed. The file of keys is small, so it is rewritten whole when
keys are deleted, and nothing of them is left in its free pages or its log.

Keys and masks are keyed BLAKE2b (RFC 7693), contents are sealed with AES-256-GCM. A key hides one
record: a writer takes a new one for each try to write, and a new block each time it begins.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cosilo.databases import in_wal, made_private
from cosilo.errors import StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PATIENCE_S = 30.0
"""How long those who read or write a file that is rewritten are waited for."""

SPAN = 128
"""How many records of a writer have keys that derive from one."""

_NONCE = bytes(12)  # a key seals once
_NAME, _RECORD, _MASK, _CONTENT = (
    b"cosilo name",
    b"cosilo record",
    b"cosilo digest",
    b"cosilo content",
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (id INTEGER PRIMARY KEY, chain TEXT NOT NULL, key BLOB);
CREATE TABLE IF NOT EXISTS leaves (id INTEGER PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS naming (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL);
"""


ENDINGS = (".keys", ".keys-wal", ".keys-shm")
"""What the names of the files of keys end in, behind that of what is recorded."""


def keys_path(path: Path) -> Path:
    """The file of the keys of what is recorded in `path`."""
    return path.with_name(f"{path.name}.keys")


def named(key: bytes, what: bytes) -> bytes:
    """What a record about `what` is called under the key of names, without which nobody finds it."""
    return blake2b(what, key=key, digest_size=32, person=_NAME).digest()


def masked(key: bytes, digests: bytes) -> bytes:
    """`digests` (at most 64 bytes) under the mask of the record with this key; also unmasks."""
    mask = blake2b(key=key, digest_size=len(digests), person=_MASK).digest()
    return _xor(digests, mask)


def sealed(key: bytes, content: bytes) -> bytes:
    """`content`, encrypted for the record with this key."""
    return _cipher(key).encrypt(_NONCE, content, None)


def unsealed(key: bytes, content: bytes) -> bytes | None:
    """What `sealed` was given; None where it was altered, or sealed for another record."""
    from cryptography.exceptions import InvalidTag

    try:
        return _cipher(key).decrypt(_NONCE, content, None)
    except (InvalidTag, ValueError):
        return None


@cache
def _aesgcm() -> type[AESGCM]:
    # Where only digests are kept, it is never needed, and takes long to load.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM


def _cipher(key: bytes) -> AESGCM:
    return _aesgcm()(blake2b(key=key, digest_size=32, person=_CONTENT).digest())


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


@dataclass(frozen=True, slots=True)
class Block:
    """A key from which those of `SPAN` records derive, whose ids are `id`, `id + 1`, …"""

    id: int
    chain: str
    key: bytes = field(repr=False)

    @classmethod
    def new(cls, chain: str) -> Block:
        return cls(secrets.randbits(63) // SPAN * SPAN, chain, secrets.token_bytes(32))

    def of(self, id: int) -> bytes:
        """The key with this id, which is one of the block's."""
        return blake2b(bytes((id % SPAN,)), key=self.key, digest_size=32, person=_RECORD).digest()

    def without(self, ids: Collection[int]) -> list[tuple[int, bytes]]:
        """The rows of leaves that stand in for the block once the keys `ids` are deleted.

        Those of records to come are among them: a writer goes on with the block that it has.
        """
        span = range(self.id, self.id + SPAN)
        return [(id, self.of(id)) for id in span if id not in ids]


class Writing:
    """The keys that a writer of records hides them with, one after the other.

    Args:
        keep: makes a block last; its keys are used once it has returned.
    """

    def __init__(self, keep: Callable[[Block], None]) -> None:
        self._keep = keep
        self._block: Block | None = None
        self._next = 0

    def next(self, chain: str) -> tuple[int, bytes]:
        """The id and the key of a record that is about to be made.

        Raises:
            StoreError: it cannot be kept.
        """
        block = self._block
        if block is None or self._next == SPAN or block.chain != chain:
            block = Block.new(chain)
            self._keep(block)
            self._block, self._next = block, 0
        id = block.id + self._next
        self._next += 1
        return id, block.of(id)


@dataclass(frozen=True)
class Shredded:
    """What was forgotten in one place.

    Attributes:
        place: the file, or the database.
        records: how many there were to forget; those that were forgotten before are among them where
            they can still be told.
        keys: how many keys were deleted now.
        guessable: how many of the records are of an earlier version and not hidden by a key: what was
            kept of their contents is deleted; their digests confirm a guess, and cannot be reached.
        after: SHA-256 of what shows that the rest stands as it did, in hex: of a ledger, its heads.
    """

    place: str
    records: int
    keys: int
    guessable: int
    after: str


Missing = Literal["forgotten", "lost"]
"""Why a record has no key: it was shredded; or nothing is known of it, as the file of keys is gone."""


class KeyReader:
    """The keys of records, each block looked up once. Of this one, all are lost."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block | dict[int, bytes] | None] = {}

    def of(self, id: int) -> bytes | Missing:
        """The key with this id, or why there is none.

        Raises:
            sqlite3.Error, psycopg.Error: the keys cannot be read.
        """
        first = id // SPAN * SPAN
        if first not in self._blocks:
            self._blocks[first] = self._look(first)
        found = self._blocks[first]
        if found is None:
            return "lost"
        return found.of(id) if isinstance(found, Block) else found.get(id, "forgotten")

    def _look(self, first: int) -> Block | dict[int, bytes] | None:
        """The block whose first id is `first`, or what is left of one that was shredded in part; None
        where it is not known."""
        return None


class FileKeys(KeyReader):
    """The keys in a file; without the file, all are lost."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._db = _opened(path) if path.is_file() else None

    def _look(self, first: int) -> Block | dict[int, bytes] | None:
        if self._db is None:
            return None
        row = self._db.execute("SELECT * FROM blocks WHERE id = ?", (first,)).fetchone()
        if row is None or row[2] is not None:
            return Block(*row) if row is not None else None
        query = "SELECT id, key FROM leaves WHERE id BETWEEN ? AND ?"
        return dict(self._db.execute(query, (first, first + SPAN - 1)))

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


class KeyFile:
    """The file of keys as a writer of records uses it; it is made when it is first needed."""

    def __init__(self, path: Path, *, timeout: float = 30.0) -> None:
        self.path = path
        self._timeout = timeout
        self._db: sqlite3.Connection | None = None

    def keep(self, block: Block) -> None:
        """Returns when the block is on the disk.

        Raises:
            StoreError: the file cannot be written.
        """
        with guarded(self.path):
            row = (block.id, block.chain, block.key)
            self._open().execute("INSERT INTO blocks VALUES (?,?,?)", row)

    def naming(self) -> bytes:
        """The key that records' names are made with (`named`), the same for all who use the file.

        Raises:
            StoreError: the file cannot be read or written.
        """
        with guarded(self.path):
            db = self._open()
            row = db.execute("SELECT key FROM naming").fetchone()
            if row is None:
                new = secrets.token_bytes(32)
                db.execute("INSERT OR IGNORE INTO naming VALUES (1, ?)", (new,))
                row = db.execute("SELECT key FROM naming").fetchone()
        return bytes(row[0])

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = _opened(made_private(self.path), timeout=self._timeout)
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def shred(path: Path, ids: Iterable[int]) -> int:
    """Delete the keys `ids` from the file at `path`, and rewrite it, so that its free pages and its log
    hold none of them; returns how many were there.

    Doing it again does no harm. Whenever it is stopped, all of the keys are there or none is, and the
    file is to be rewritten again.

    Raises:
        StoreError: the file cannot be written, or somebody reads it for so long that its log cannot be
            emptied; then it is to be done again.
    """
    if not path.is_file():
        return 0
    with guarded(path), closing(_opened(path)) as db:
        with transaction(db):
            count = _punctured(db, ids)
        rewrite(db, path)
    return count


def _punctured(db: sqlite3.Connection, ids: Iterable[int]) -> int:
    count = 0
    for first, gone in by_block(ids).items():
        row = db.execute("SELECT * FROM blocks WHERE id = ?", (first,)).fetchone()
        if row is not None and row[2] is not None:
            count += len(gone)
            db.executemany("INSERT INTO leaves VALUES (?,?)", Block(*row).without(gone))
            # The row stays: what was shredded is told from what nothing is known of.
            db.execute("UPDATE blocks SET key = NULL WHERE id = ?", (first,))
            continue
        for id in gone:
            count += db.execute("DELETE FROM leaves WHERE id = ?", (id,)).rowcount
    return count


def by_block(ids: Iterable[int]) -> dict[int, set[int]]:
    """The first id of a block → those of `ids` that are in it."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for id in ids:
        found[id // SPAN * SPAN].add(id)
    return found


def rewrite(db: sqlite3.Connection, path: Path) -> None:
    """Write the database at `path` anew, without what was deleted from it, and empty its log.

    Raises:
        StoreError: somebody reads it all the time; nothing is lost, and it is to be done again.
    """
    db.execute("PRAGMA temp_store = MEMORY")  # no copy of it in the folder for temporary files
    db.execute(f"PRAGMA busy_timeout = {round(1000 * PATIENCE_S)}")
    db.execute("VACUUM")
    if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise StoreError(
            f"the log of {str(path)!r} holds what was deleted until nobody reads it any more; try again"
        )


def take_over(path: Path, other: Path, *, chain: str | None = None) -> None:
    """Add the keys in the file `other` to those at `path`, of one chain or of all.

    What is known there already stays as it is, so a record that was shredded meanwhile stays so.

    Raises:
        StoreError: a file cannot be read or written.
    """
    if not other.is_file():
        return
    with guarded(path), closing(_opened(made_private(path))) as db:
        db.execute("ATTACH DATABASE ? AS other", (str(other),))
        with transaction(db):
            which = (
                "SELECT id FROM other.blocks WHERE id NOT IN (SELECT id FROM main.blocks)"
                " AND (?1 IS NULL OR chain = ?1)"
            )
            for (id,) in db.execute(which, (chain,)).fetchall():
                db.execute("INSERT INTO main.blocks SELECT * FROM other.blocks WHERE id = ?", (id,))
                between = "FROM other.leaves WHERE id BETWEEN ? AND ?"
                db.execute(f"INSERT INTO main.leaves SELECT * {between}", (id, id + SPAN - 1))


def copied(path: Path, target: Path) -> None:
    """Copy the file of keys at `path` to the new file `target`, its owner's alone to read."""
    if path.is_file():
        with guarded(target), closing(_opened(path)) as db:
            made_private(target)
            db.execute("VACUUM INTO ?", (str(target),))


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A context that is one transaction of `db`."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """A context that turns any error of the disk or of SQLite into a `StoreError` that names `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{str(path)!r} cannot be read or written: {error}") from error
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be read or written: {error.strerror}") from error


def _opened(path: Path, *, timeout: float = 30.0) -> sqlite3.Connection:
    # Synchronised at each commit: a key must be on the disk before anything that it masks is.
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        in_wal(db, timeout=timeout)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.executescript(SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
