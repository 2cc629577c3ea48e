"""Recorded replies of LMs, in a file: what was asked once need not be paid for again.

Keys are hashes, so the file holds replies and none of the questions.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cosilo.databases import in_wal, made_private
from cosilo.errors import RejectedError, StoreError
from cosilo.models.kept.claims import Claims
from cosilo.types import Chat, Generation, Sampling

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY,
    model TEXT NOT NULL,
    answer BLOB NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    key BLOB PRIMARY KEY,
    model TEXT NOT NULL,
    scores BLOB NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS heirs (former TEXT PRIMARY KEY, model TEXT NOT NULL) WITHOUT ROWID;
"""


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
    commit), so it outlives a `kill -9` and a power cut. The file holds replies in clear: it belongs to
    the data owner.

    Attributes:
        claims: who asks a question that is not recorded yet, so that only one process pays for it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.claims = Claims(self.path.with_name(f"{self.path.name}-claims"))
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._guarded("opened"):
            self._connection = sqlite3.connect(
                made_private(self.path), timeout=30, isolation_level=None, check_same_thread=False
            )
            in_wal(self._connection, timeout=30)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)

    def get(self, key: bytes) -> Generation | None:
        """The answer recorded under `key`.

        Raises:
            StoreError: the file cannot be read, or the entry is damaged.
        """
        answer = self._select("SELECT answer FROM answers WHERE key = ?", key)
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
        query = "INSERT OR IGNORE INTO answers (key, model, answer) VALUES (?, ?, ?)"
        self._insert(query, key, model, msgspec.msgpack.encode(answer))
        return self.get(key) or answer

    def get_reply(self, key: bytes) -> bytes | None:
        """The reply of another kind than an answer that is recorded under `key`, as it was put.

        Raises:
            StoreError: the file cannot be read.
        """
        return self._select("SELECT scores FROM scores WHERE key = ?", key)

    def put_reply(self, key: bytes, model: str, reply: bytes) -> bytes:
        """Record `reply` unless another process was first; the one that is recorded.

        Raises:
            StoreError: the file cannot be written.
        """
        query = "INSERT OR IGNORE INTO scores (key, model, scores) VALUES (?, ?, ?)"
        self._insert(query, key, model, reply)
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

    def _select(self, query: str, key: bytes) -> bytes | None:
        with self._guarded("read"):
            row = self._open().execute(query, (key,)).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):
            raise StoreError(f"{str(self.path)!r} holds a damaged answer")
        return row[0]

    def _insert(self, query: str, key: bytes, model: str, value: bytes) -> None:
        with self._guarded("written"):
            self._open().execute(query, (key, model, value))

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
