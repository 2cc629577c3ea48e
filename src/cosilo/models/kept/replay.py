"""Recorded replies of LMs, in a file: what was asked once need not be paid for again.

    replay.sqlite        replies, each sealed by a key of its own, under a keyed hash of its question
    replay.sqlite.keys   those keys (`cosilo.record_keys`), and the one that names are made with

Without the keys the file tells neither replies nor questions, nor lets a guess of one be confirmed.
What an earlier version recorded stands in clear under plain hashes, and is found as before.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from cosilo.databases import in_wal, made_private
from cosilo.errors import RejectedError, StoreError
from cosilo.models.kept.claims import Claims
from cosilo.record_keys import (
    FileKeys,
    KeyFile,
    Shredded,
    Writing,
    guarded,
    keys_path,
    named,
    rewrite,
    sealed,
    transaction,
    unsealed,
)
from cosilo.record_keys import shred as shred_keys
from cosilo.types import Chat, Generation, Sampling

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY,
    model TEXT NOT NULL,
    answer BLOB NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    key_id INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    key BLOB PRIMARY KEY,
    model TEXT NOT NULL,
    scores BLOB NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    key_id INTEGER
);
CREATE TABLE IF NOT EXISTS heirs (former TEXT PRIMARY KEY, model TEXT NOT NULL) WITHOUT ROWID;
"""
_TABLES = {"answers": "answer", "scores": "scores"}
"""The tables of replies, each with the column that holds them."""


def question_key(model: str, question: Mapping[str, object]) -> bytes:
    """The SHA-256 under which a reply is kept: of the model's identity and all it was asked.

    Fields at their defaults do not count, so a field that is added later changes no key.

    Args:
        question: by name, as a request's `question` states it.

    Raises:
        RejectedError: it holds text that is no Unicode (a lone surrogate).
    """
    asked = {"format": _FORMAT, "model": model, **question}
    try:
        return hashlib.sha256(msgspec.msgpack.encode(asked, order="deterministic")).digest()
    except UnicodeEncodeError:
        raise RejectedError("the request holds characters that are no valid Unicode") from None


def request_key(model: str, chat: Chat, sampling: Sampling) -> bytes:
    """The key of the reply to `chat`, drawn as `sampling` says.

    Raises:
        RejectedError: a turn holds text that is no Unicode (a lone surrogate).
    """
    return question_key(model, {"chat": chat, "sampling": sampling})


class ReplayStore:
    """Recorded replies in an SQLite file that several processes may use at once.

    Answers to chats have a table of their own, all else is in that of scores, the first other kind
    there was. What `put` and `put_reply` return is on the disk (write-ahead log, synchronised at each
    commit), so it outlives a `kill -9` and a power cut.

    Attributes:
        claims: who asks a question that is not recorded yet, so that only one process pays for it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.claims = Claims(self.path.with_name(f"{self.path.name}-claims"))
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._keys: FileKeys | None = None
        self._made = KeyFile(keys_path(self.path))
        self._writing = Writing(self._made.keep)
        with self._guarded("opened"):
            self._connection = sqlite3.connect(
                made_private(self.path), timeout=30, isolation_level=None, check_same_thread=False
            )
            in_wal(self._connection, timeout=30)
            self._connection.execute("PRAGMA synchronous = FULL")
            _migrate(self._connection)
            self._connection.executescript(_SCHEMA)
            if not keys_path(self.path).is_file():
                hidden = "SELECT EXISTS (SELECT 1 FROM {} WHERE key_id IS NOT NULL)"
                if any(self._connection.execute(hidden.format(t)).fetchone()[0] for t in _TABLES):
                    raise StoreError(
                        f"{str(self.path)!r} cannot be read without {keys_path(self.path).name!r},"
                        " which is not beside it: whoever copies the one copies the other"
                    )
            self._secret = self._made.naming()
            self._keys = FileKeys(keys_path(self.path))

    def get(self, key: bytes) -> Generation | None:
        """The answer recorded under `key`.

        Raises:
            StoreError: the file cannot be read, or the entry is damaged.
        """
        answer = self._select("answers", key)
        if answer is None:
            return None
        try:
            return msgspec.msgpack.decode(answer, type=Generation)
        except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
            raise StoreError(f"{str(self.path)!r} holds a damaged answer") from None

    def put(self, key: bytes, model: str, answer: Generation) -> Generation:
        """Record `answer` unless another process was first; the one that is recorded.

        Raises:
            StoreError: the file cannot be written.
        """
        self._insert("answers", key, model, msgspec.msgpack.encode(answer))
        return self.get(key) or answer

    def get_reply(self, key: bytes) -> bytes | None:
        """The reply of another kind than an answer that is recorded under `key`, as it was put.

        Raises:
            StoreError: the file cannot be read.
        """
        return self._select("scores", key)

    def put_reply(self, key: bytes, model: str, reply: bytes) -> bytes:
        """Record `reply` unless another process was first; the one that is recorded.

        Raises:
            StoreError: the file cannot be written.
        """
        self._insert("scores", key, model, reply)
        return self.get_reply(key) or reply

    def inherits(self, model: str, former: str) -> bool:
        """Whether what is recorded under the identity `former` is the model's whose identity is `model`
        now: the first that asks has it, so that another file of the same former identity does not.

        Raises:
            StoreError: the file cannot be read or written.
        """
        with self._guarded("written"):
            db = self._open()
            db.execute("INSERT OR IGNORE INTO heirs VALUES (?, ?)", (former, model))
            heir = db.execute("SELECT model FROM heirs WHERE former = ?", (former,)).fetchone()
        return bool(heir == (model,))

    def models(self) -> set[str]:
        """The identities that replies are recorded under.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._guarded("read"):
            query = "SELECT model FROM answers UNION SELECT model FROM scores"
            return {row[0] for row in self._open().execute(query)}

    def questions(self) -> list[bytes]:
        """The keys of all questions whose replies are recorded.

        Raises:
            StoreError: the file cannot be read, or an entry is damaged.
        """
        return [row[1] for row in self._rows()]

    def models_of(self) -> dict[bytes, str]:
        """The key of each question whose reply is recorded → the identity of the model that gave it.

        Raises:
            StoreError: the file cannot be read, or an entry is damaged.
        """
        return {row[1]: row[2] for row in self._rows()}

    def take_over(self, other: ReplayStore) -> None:
        """Record all that `other` has and this one has not, in one transaction.

        Raises:
            StoreError: a file cannot be read or written.
        """
        rows = list(other._rows())
        with other._guarded("read"):
            heirs = other._open().execute("SELECT * FROM heirs").fetchall()
        with self._guarded("written"), transaction(self._open()):
            for table, key, model, reply, at in rows:
                if self._found(table, key) is None:
                    self._put(table, key, model, reply, at)
            self._open().executemany("INSERT OR IGNORE INTO heirs VALUES (?, ?)", heirs)

    def _select(self, table: str, key: bytes) -> bytes | None:
        with self._guarded("read"):
            row = self._found(table, key)
        if row is None:
            return None
        asked, reply = self._reply(*row)
        if row[0] is not None and asked != key:  # it was put in another one's place
            raise StoreError(f"{str(self.path)!r} holds a damaged answer")
        return reply

    def _found(self, table: str, key: bytes) -> tuple[int | None, bytes] | None:
        query = f"SELECT key_id, {_TABLES[table]} FROM {table} WHERE key = ?"
        row = self._open().execute(query, (named(self._secret, key),)).fetchone()
        if row is None:  # an earlier version may have recorded it
            row = self._open().execute(f"{query} AND key_id IS NULL", (key,)).fetchone()
        return row  # type: ignore[no-any-return]

    def _reply(self, id: int | None, stored: object) -> tuple[bytes, bytes]:
        """The question's key, where the reply is sealed, and the reply."""
        if not isinstance(stored, bytes):
            raise StoreError(f"{str(self.path)!r} holds a damaged answer")
        if id is None:
            return b"", stored
        with self._guarded("read"):
            key = self._keys.of(id) if self._keys is not None else "lost"
        content = unsealed(key, stored) if isinstance(key, bytes) else None
        if content is None:
            raise StoreError(f"{str(self.path)!r} holds a damaged answer, or one without its key")
        return msgspec.msgpack.decode(content, type=tuple[bytes, bytes])

    def _insert(self, table: str, key: bytes, model: str, value: bytes) -> None:
        with self._guarded("written"):
            if self._found(table, key) is None:
                self._put(table, key, model, value)

    def _put(self, table: str, key: bytes, model: str, value: bytes, at: str | None = None) -> None:
        id, secret = self._writing.next("replies")
        content = sealed(secret, msgspec.msgpack.encode((key, value)))
        self._open().execute(
            f"INSERT OR IGNORE INTO {table} VALUES (?,?,?,coalesce(?, CURRENT_TIMESTAMP),?)",
            (named(self._secret, key), model, content, at, id),
        )

    def _rows(self) -> Iterator[tuple[str, bytes, str, bytes, str]]:
        """Of each reply its table, its question's key, the model, itself, and when it was recorded."""
        for table, column in _TABLES.items():
            query = f"SELECT key, model, {column}, recorded_at, key_id FROM {table}"
            with self._guarded("read"):
                rows = self._open().execute(query).fetchall()
            for name, model, stored, at, id in rows:
                key, reply = self._reply(id, stored)
                yield table, key if id is not None else name, model, reply, at

    def __len__(self) -> int:
        with self._guarded("read"):
            count = self._open().execute("SELECT count(*) FROM answers").fetchone()[0]
        return int(count)

    def close(self) -> None:
        self.claims.close()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._made.close()
            if self._keys is not None:
                self._keys.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{str(self.path)!r} is closed")
        return self._connection

    @contextmanager
    def _guarded(self, done: str) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{str(self.path)!r} cannot be {done}: {error}") from None


def shred(path: Path, questions: Collection[bytes]) -> Shredded:
    """Forget the replies to `questions` in the store at `path`; others may use it meanwhile.

    Their keys are deleted, then their rows, those of an earlier version among them, and both files are
    rewritten. Doing it again does no harm; whoever was stopped begins anew.

    Args:
        questions: as `question_key` says them.

    Raises:
        StoreError: a file cannot be written, or is read for so long that nothing can be said to be
            forgotten; it is to be done again.
    """
    if not path.is_file():
        return Shredded(str(path), 0, 0, 0, hashlib.sha256().hexdigest())
    with closing(ReplayStore(path)) as store:
        names = [(name,) for key in questions for name in (key, named(store._secret, key))]
    with guarded(path), closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        in_wal(db, timeout=30)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        ids: list[int | None] = []
        for table in _TABLES:
            for name in names:
                ids += [
                    row[0] for row in db.execute(f"SELECT key_id FROM {table} WHERE key = ?", name)
                ]
        keys = shred_keys(keys_path(path), [id for id in ids if id is not None])
        with transaction(db):
            for table in _TABLES:
                db.executemany(f"DELETE FROM {table} WHERE key = ?", names)
        rewrite(db, path)
        left = hashlib.sha256()
        for table in _TABLES:
            for (name,) in db.execute(f"SELECT key FROM {table} ORDER BY key"):
                left.update(name)
    return Shredded(str(path), len(ids), keys, 0, left.hexdigest())


def _migrate(db: sqlite3.Connection) -> None:
    """Give a store that was begun before replies were sealed the column for their keys."""
    for table in _TABLES:
        columns = f"SELECT name FROM pragma_table_info('{table}')"
        known = {row[0] for row in db.execute(columns)}
        if not known or "key_id" in known:
            continue
        with transaction(db):
            known = {row[0] for row in db.execute(columns)}
            if "key_id" not in known:  # no other process was quicker
                db.execute(f"ALTER TABLE {table} ADD COLUMN key_id INTEGER")
