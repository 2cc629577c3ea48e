"""An append-only, hash-chained record of what the other party was shown.

One entry per message per direction, bound to a task item or gateway request. Each entry's hash
covers its content and the hash before it, so an altered, missing or reordered entry shows. What was
cut off the end shows against `heads`, which counts each chain; with a `key` the head is an HMAC, so
whoever can write the file but does not hold the key cannot rebuild the chain either. `faults` says
what is wrong with a chain.

A *chain* is one writer's sequence (a trial, a gateway worker); `attempt` numbers the writer's
restarts, so that a measure can leave out what an interrupted attempt sent.

What an entry in a file says of its content is hidden by a key of its own (`cosilo.record_keys`): its
digest is masked, its content sealed. The chain is made of what is stored, so it can be verified whether
or not the key is there; once the key is deleted (`shredding`), nothing tells any more what crossed.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from cosilo.boundary.messages import Message, decode
from cosilo.boundary.record.batches import Batches
from cosilo.databases import in_wal, made_private
from cosilo.errors import StoreError
from cosilo.record_keys import (
    FileKeys,
    KeyFile,
    KeyReader,
    Missing,
    Writing,
    keys_path,
    masked,
    sealed,
    unsealed,
)

Direction = Literal["up", "down"]  # up: data owner → LM owner; down: LM owner → data owner
Keep = Literal["content", "digest"]
Seal = Callable[[bytes], bytes]

GENESIS = bytes(32)
_WITH_NAME = 64  # bytes of a digest that has that of the name in it

FORGOTTEN = "forgotten"
"""The name of an entry whose own was hidden, and whose key is deleted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One crossing, as it left: after every guard, before the wire.

    Attributes:
        size: of the encoded message, in bytes.
        digest: as the chain has it: the SHA-256 of the encoded message, masked by the entry's key.
            Where the name is hidden, too, the SHA-256 of `request` follows it.
        payload: the encoded message; None when only digests are kept, or it is forgotten.
        answers: the number of the entry that a reply answers; None for requests, and for replies
            recorded before ledgers said so.
        key_id: what its key is kept under; None for entries whose digest is masked by none.
        key: its key, or why there is none; None as it is stored.
    """

    chain: str
    number: int
    attempt: int
    request: str
    direction: Direction
    kind: str
    size: int
    digest: bytes
    at: float
    epsilon: float
    payload: bytes | None
    hash: bytes
    answers: int | None = None
    key_id: int | None = None
    key: bytes | Missing | None = field(default=None, compare=False, repr=False)

    @property
    def content_digest(self) -> bytes | None:
        """The SHA-256 of the encoded message; None where it is forgotten."""
        return self._digests[:32] or None

    @property
    def named_otherwise(self) -> bool:
        """Whether `request` is another name than the one it was recorded under."""
        if len(self.digest) != _WITH_NAME:  # the chain has the name itself
            return False
        if not (digests := self._digests):
            return self.request != FORGOTTEN
        return digests[32:] != hashlib.sha256(self.request.encode()).digest()

    @property
    def _digests(self) -> bytes:
        if self.key_id is None:
            return self.digest
        if not isinstance(self.key, bytes):
            return b""
        return masked(self.key, self.digest)

    @property
    def message(self) -> Message:
        """The decoded message.

        Raises:
            StoreError: only a digest was kept.
            UnexpectedReplyError: what was kept is no message.
        """
        if self.payload is None:
            raise StoreError(
                f"entry {self.number} of {self.chain!r} keeps a digest, not its content"
            )
        if not isinstance(self.payload, bytes):  # a column of SQLite's may hold anything
            raise StoreError(f"the content of entry {self.number} of {self.chain!r} is no bytes")
        return decode(self.payload)


Statement = tuple[str, tuple[object, ...]]
"""SQL, and what stands for its question marks."""


class Crossing(NamedTuple):
    """What an entry is made of: `payload` is the encoded `message`, `beside` is written with it."""

    request: str
    direction: Direction
    message: Message
    payload: bytes
    answers: int | None = None
    beside: Sequence[Statement] = ()


class Ledger(Protocol):
    def append(
        self,
        request: str,
        direction: Direction,
        message: Message,
        payload: bytes,
        answers: int | None = None,
    ) -> Awaitable[int]:
        """Record one crossing; it is on record once this was awaited, which gives its number.

        Args:
            answers: the number of the entry that a reply answers.

        Raises:
            StoreError: it could not be recorded; the message must then not be sent.
        """

    def entries(self) -> Iterator[Entry]:
        """This writer's entries in order, read lazily."""


def entry_hash(previous: bytes, entry: Entry) -> bytes:
    """SHA-256 over the hash before and every recorded field but the payload (its digest is in)."""
    e = entry
    return _hash(
        previous, e.chain, e.number, e.attempt, e.request, e.direction, e.kind, e.size, e.digest,
        e.at, e.epsilon, e.answers, e.key_id,
    )  # fmt: skip


def _hash(
    previous: bytes,
    chain: str,
    number: int,
    attempt: int,
    request: str,
    direction: Direction,
    kind: str,
    size: int,
    digest: bytes,
    at: float,
    epsilon: float,
    answers: int | None,
    key_id: int | None,
) -> bytes:
    hidden = len(digest) == _WITH_NAME
    if hidden:
        request = ""
    text = (
        f"{chain}\x1f{number}\x1f{attempt}\x1f{request}\x1f{direction}\x1f{kind}\x1f{size}"
        f"\x1f{at!r}\x1f{epsilon!r}"
    )
    if answers is not None:
        text = f"{text}\x1f{answers}"
    if key_id is not None:
        text = f"{text}\x1f{'hidden' if hidden else 'key'} {key_id}"
    return hashlib.sha256(previous + digest + text.encode()).digest()


class MemoryLedger:
    """A ledger that lives as long as the process: for tests and one-off sessions."""

    def __init__(self, chain: str = "memory", *, keep: Keep = "content") -> None:
        self.chain = chain
        self.keep = keep
        self._entries: list[Entry] = []

    def append(
        self,
        request: str,
        direction: Direction,
        message: Message,
        payload: bytes,
        answers: int | None = None,
    ) -> Awaitable[int]:
        before = self._entries[-1].hash if self._entries else GENESIS
        crossing = Crossing(request, direction, message, payload, answers)
        number = len(self._entries)
        row = recorded(self.chain, number, 0, crossing, self.keep, before)
        self._entries.append(Entry(*row))
        return _Done(number)

    def entries(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))


@dataclass(frozen=True, slots=True)
class _Done:
    """An awaitable that is done already."""

    number: int

    def __await__(self) -> Generator[None, None, int]:
        yield from ()
        return self.number


_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    chain TEXT NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL, request TEXT NOT NULL,
    direction TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL,
    at REAL NOT NULL, epsilon REAL NOT NULL, payload BLOB, hash BLOB NOT NULL, answers INTEGER,
    key_id INTEGER, PRIMARY KEY (chain, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_request ON entries (request);
CREATE INDEX IF NOT EXISTS entries_with_content ON entries (at) WHERE payload IS NOT NULL;
CREATE TABLE IF NOT EXISTS heads (
    chain TEXT PRIMARY KEY, count INTEGER NOT NULL, hash BLOB NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bases (
    chain TEXT PRIMARY KEY, count INTEGER NOT NULL, hash BLOB NOT NULL, attempt INTEGER NOT NULL,
    at REAL NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS entries_no_update BEFORE UPDATE OF
    chain, number, attempt, request, direction, kind, size, digest, at, epsilon, hash, answers, key_id
    ON entries WHEN NOT (length(OLD.digest) = 64 AND NEW.request = 'forgotten' AND
        (NEW.chain, NEW.number, NEW.attempt, NEW.direction, NEW.kind, NEW.size, NEW.digest, NEW.at,
         NEW.epsilon, NEW.hash, NEW.answers, NEW.key_id) IS
        (OLD.chain, OLD.number, OLD.attempt, OLD.direction, OLD.kind, OLD.size, OLD.digest, OLD.at,
         OLD.epsilon, OLD.hash, OLD.answers, OLD.key_id))
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


class SqliteLedger:
    """A ledger in an SQLite file, one chain per writer.

    What tasks append in the same turn of the event loop is one transaction, and each of them goes on
    only when it is committed: what was sent before a `kill -9` is on record after it.

    Args:
        path: the file; made when absent.
        chain: this writer's chain; a chain that exists is continued.
        keep: whether the encoded messages are kept or only their digests.
        key: secret for the head's HMAC; empty for a plain hash.
        seal: applied to a payload before it is stored (encryption at rest).
        hide_names: what requests are called is made of what they hold, so it is hidden by the entries'
            keys as well, and forgotten with them.
        timeout: seconds to wait for another process's transaction.

    Raises:
        StoreError: the file cannot be opened or is not a ledger.
    """

    def __init__(
        self,
        path: Path | str,
        chain: str,
        *,
        keep: Keep = "content",
        key: bytes = b"",
        seal: Seal | None = None,
        hide_names: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self.path = Path(path)
        self.chain = chain
        self.keep: Keep = keep
        self._key = key
        self._keys = KeyFile(keys_path(self.path), timeout=timeout)
        self._how = EntryHiding(Writing(self._keys.keep), seal, hide_names)
        self._batches = Batches(self._write)
        try:
            self._db = connect(made_private(self.path), timeout=timeout)
            _migrate(self._db)
            self._db.executescript(_SCHEMA)
            head = self._db.execute(
                "SELECT count, hash FROM heads WHERE chain = ?", (chain,)
            ).fetchone()
            last = self._db.execute(
                "SELECT max(attempt) FROM (SELECT attempt FROM entries WHERE chain = ?1"
                " UNION ALL SELECT attempt FROM bases WHERE chain = ?1)",
                (chain,),
            ).fetchone()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open the ledger {str(self.path)!r}: {error}") from error
        self._count: int = head[0] if head else 0
        self._hash: bytes = head[1] if head else GENESIS
        self.attempt: int = (last[0] + 1) if last and last[0] is not None else 0

    async def append(
        self,
        request: str,
        direction: Direction,
        message: Message,
        payload: bytes,
        answers: int | None = None,
        *,
        beside: Sequence[Statement] = (),
    ) -> int:
        """As `Ledger.append` says. `beside` is done in the same transaction, on tables of the caller's
        own in the ledger's file."""
        crossing = Crossing(request, direction, message, payload, answers, beside)
        return await self._batches.put(crossing)

    async def _write(self, batch: Sequence[Crossing]) -> Sequence[int | Exception]:
        rows, last = link(
            self.chain, self._count, self.attempt, batch, self.keep, self._hash, self._how
        )
        count = self._count + len(batch)
        mac = head_mac(self._key, self.chain, count, last)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", rows)
            for crossing in batch:
                for sql, values in crossing.beside:
                    self._db.execute(sql, values)
            self._db.execute(
                "INSERT INTO heads VALUES (?,?,?,?) ON CONFLICT (chain) DO UPDATE SET"
                " count = excluded.count, hash = excluded.hash, mac = excluded.mac",
                (self.chain, count, last, mac),
            )
            self._db.execute("COMMIT")
        except BaseException as error:
            # Also when interrupted: an open transaction would keep every writer out from now on.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            return [self._failed(crossing.direction, error) for crossing in batch]
        numbers = range(self._count, count)
        self._count, self._hash = count, last
        return numbers

    def _failed(self, direction: Direction, error: sqlite3.Error) -> StoreError:
        if direction == "up":
            return StoreError(
                f"cannot record a crossing in {str(self.path)!r}: {error}; nothing was sent"
            )
        return StoreError(f"cannot record a reply in {str(self.path)!r}: {error}")

    def entries(self) -> Iterator[Entry]:
        return read_entries(self._db, self.chain)

    @property
    def head(self) -> tuple[int, bytes]:
        """How many entries the chain holds, and the last one's hash."""
        return self._count, self._hash

    def sent(self, request: str) -> int:
        """How many messages this attempt of the writer recorded as leaving for `request`."""
        query = (
            "SELECT count(*) FROM entries"
            " WHERE request = ? AND chain = ? AND attempt = ? AND direction = 'up'"
        )
        return int(self._db.execute(query, (request, self.chain, self.attempt)).fetchone()[0])

    def left(self, request: str) -> bool:
        """Whether any writer recorded a message that left for `request`."""
        query = "SELECT 1 FROM entries WHERE request = ? AND direction = 'up' LIMIT 1"
        return self._db.execute(query, (request,)).fetchone() is not None

    def close(self) -> None:
        self._db.close()
        self._keys.close()


def connect(path: Path, *, timeout: float = 30.0) -> sqlite3.Connection:
    """An autocommit connection in WAL mode that waits for other writers and overwrites what it deletes.

    `synchronous = NORMAL` keeps every commit through a process crash, and all but the last moments
    through a power cut.
    """
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    in_wal(db, timeout=timeout)
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA secure_delete = ON")  # not every build of SQLite begins so
    # Pages that are written again and again (heads, keys) are copied into the file less often.
    db.execute("PRAGMA wal_autocheckpoint = 4000")
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Give a ledger that was begun by an earlier version the columns that came since."""
    columns = "SELECT name FROM pragma_table_info('entries')"
    known = {row[0] for row in db.execute(columns)}
    if not known or known.issuperset(_ADDED):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        known = {row[0] for row in db.execute(columns)}
        for name in _ADDED:
            if name not in known:  # no other process was quicker
                db.execute(f"ALTER TABLE entries ADD COLUMN {name} INTEGER")
        db.execute("DROP TRIGGER IF EXISTS entries_no_update")  # the new one guards them too
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


_ADDED = ("answers", "key_id")
"""In the order in which versions added them, so that all ledgers have the same order of columns."""


def read_entries(
    db: sqlite3.Connection, chain: str, *, unseal: Seal | None = None
) -> Iterator[Entry]:
    """The entries of `chain` in order, in bounded memory, opened with their keys.

    Args:
        unseal: what a gateway's contents were sealed with besides.
    """
    with closing(keys_of(db)) as keys:
        for row in db.execute("SELECT * FROM entries WHERE chain = ? ORDER BY number", (chain,)):
            entry = opened(Entry(*row), keys)
            if unseal is not None and entry.payload is not None:
                entry = replace(entry, payload=unseal(entry.payload))
            yield entry


def keys_of(db: sqlite3.Connection) -> FileKeys:
    """The keys of the ledger that is open in `db`."""
    main = next(row for row in db.execute("PRAGMA database_list") if row[1] == "main")
    return FileKeys(keys_path(Path(main[2])))


def opened(entry: Entry, keys: KeyReader) -> Entry:
    """`entry`, as it is stored, with its key, and its content unsealed with that; without a key it has
    no content. A content that was altered stays as it is."""
    if entry.key_id is None:
        return entry
    key, payload = keys.of(entry.key_id), entry.payload
    if not isinstance(key, bytes):
        payload = None
    elif isinstance(payload, bytes):
        payload = unsealed(key, payload) or payload
    return replace(entry, key=key, payload=payload)


@dataclass(frozen=True, slots=True)
class Head:
    """How long a chain is, its last hash, and the seal on both."""

    chain: str
    count: int
    hash: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Base:
    """Where a chain goes on whose entries so far were put into an archive, at the time `at`."""

    chain: str
    count: int
    hash: bytes
    attempt: int
    at: float
    mac: bytes

    @classmethod
    def seal(cls, key: bytes, head: Head, attempt: int, at: float) -> Base:
        """The base of a chain that has come as far as `head`."""
        mac = _base_mac(key, head.chain, head.count, head.hash, attempt, at)
        return cls(head.chain, head.count, head.hash, attempt, at, mac)

    def holds(self, key: bytes) -> bool:
        mac = _base_mac(key, self.chain, self.count, self.hash, self.attempt, self.at)
        return hmac.compare_digest(mac, self.mac)


BASES = "SELECT chain, count, hash, attempt, at, mac FROM bases"


def head_mac(key: bytes, chain: str, count: int, last: bytes) -> bytes:
    """HMAC-SHA-256 of a chain's length and last hash."""
    return hmac.digest(key, f"{chain}\x1f{count}\x1f".encode() + last, "sha256")


def _base_mac(key: bytes, chain: str, count: int, last: bytes, attempt: int, at: float) -> bytes:
    # Unlike a head's: a head of long ago must not pass for a base and hide what came before it.
    text = f"base\x1f{chain}\x1f{count}\x1f{attempt}\x1f{at!r}\x1f"
    return hmac.digest(key, text.encode() + last, "sha256")


EntryRow = tuple[
    str, int, int, str, Direction, str, int, bytes, float, float, bytes | None, bytes, int | None,
    int | None,
]  # fmt: skip
"""The fields of an `Entry` that are stored, in their order."""


@dataclass(frozen=True, slots=True)
class EntryHiding:
    """How what an entry says of its content is hidden.

    Attributes:
        seal: applied to a content before its entry's own key is.
        names: whether what requests are called is hidden as well.
    """

    keys: Writing
    seal: Seal | None
    names: bool = False


def recorded(
    chain: str,
    number: int,
    attempt: int,
    crossing: Crossing,
    keep: Keep,
    previous: bytes,
    how: EntryHiding | None = None,
) -> EntryRow:
    """What is recorded of `crossing` after the entry with hash `previous`."""
    request, direction, message, payload, answers, _ = crossing
    kind, size, at = type(message).__name__, len(payload), time.time()
    digest = hashlib.sha256(payload).digest()
    kept = payload if keep == "content" else None
    key_id = None
    if how is not None:
        key_id, key = how.keys.next(chain)
        if how.names:
            digest += hashlib.sha256(request.encode()).digest()
        digest = masked(key, digest)
        if kept is not None:
            kept = sealed(key, how.seal(kept) if how.seal is not None else kept)
    last = _hash(
        previous, chain, number, attempt, request, direction, kind, size, digest, at,
        message.epsilon, answers, key_id,
    )  # fmt: skip
    return (
        chain, number, attempt, request, direction, kind, size, digest, at, message.epsilon, kept,
        last, answers, key_id,
    )  # fmt: skip


def link(
    chain: str,
    count: int,
    attempt: int,
    batch: Sequence[Crossing],
    keep: Keep,
    previous: bytes,
    how: EntryHiding,
) -> tuple[list[EntryRow], bytes]:
    """The rows that record `batch` at the end of a chain of `count` entries, and the last hash.

    Raises:
        StoreError: there are no keys for them.
    """
    rows: list[EntryRow] = []
    for number, crossing in enumerate(batch, count):
        row = recorded(chain, number, attempt, crossing, keep, previous, how)
        previous = row[11]
        rows.append(row)
    return rows, previous
