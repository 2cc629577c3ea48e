"""An answer is recorded once and never paid for twice.

chat, sampling ──▶ key ──▶ recorded? ── yes ──▶ the recorded answer, its recorded seconds and tokens
                               │ no
                               ▼
                under way already? ── yes ──▶ wait for that one call
                               │ no
                               ▼
                   inner model ──▶ committed to disk ──▶ returned
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cosilo.errors import OfflineError, RejectedError, StoreError
from cosilo.models.base import (
    Access,
    ActivationModel,
    Array,
    LogitModel,
    TextModel,
    Tokens,
    former_identity,
    identity,
    require,
)
from cosilo.models.base import stream as stream_of
from cosilo.types import Chat, Delta, Generation, Sampling, assemble, closing, disassemble

_FORMAT = 1
_FEW = 16  # tokens that a short label is allowed
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


def request_key(model: str, chat: Chat, sampling: Sampling) -> bytes:
    """The SHA-256 under which an answer is kept: of the model's identity and all it was asked.

    Fields at their defaults do not count, so a field that is added later changes no key.

    Raises:
        RejectedError: a turn holds text that is no Unicode (a lone surrogate).
    """
    asked = {"format": _FORMAT, "model": model, "chat": chat, "sampling": sampling}
    try:
        return hashlib.sha256(msgspec.msgpack.encode(asked, order="deterministic")).digest()
    except UnicodeEncodeError:
        raise RejectedError("the request holds characters that are no valid Unicode") from None


class ReplayStore:
    """Recorded answers in an SQLite file that several processes may use at once.

    What `put` returns is on the disk (write-ahead log, synchronised at each commit), so it outlives
    a `kill -9` and a power cut. The file holds replies in clear: it belongs to the data owner.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._guarded("opened"):
            # Its owner's alone from the first byte on; SQLite gives its side files the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            self._connection = sqlite3.connect(
                self.path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
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
            found = msgspec.msgpack.decode(answer, type=Generation)
            found.check()
            return found
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

    def get_scores(self, key: bytes) -> bytes | None:
        """The scores recorded under `key`, as they were put.

        Raises:
            StoreError: the file cannot be read.
        """
        return self._select("SELECT scores FROM scores WHERE key = ?", key)

    def put_scores(self, key: bytes, model: str, scores: bytes) -> None:
        """Record `scores` unless another process was first.

        Raises:
            StoreError: the file cannot be written.
        """
        query = "INSERT OR IGNORE INTO scores (key, model, scores) VALUES (?, ?, ?)"
        self._insert(query, key, model, scores)

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


class ReplayModel:
    """`inner`, each of whose answers is recorded in `store` and asked for once.

    Args:
        store: a store to share, or the path of one to open; that one is closed with the model.
        offline: refuse whatever is not recorded.

    Attributes:
        hits: answers that took no call of `inner`.
        misses: calls of `inner`.
    """

    def __init__(
        self, inner: TextModel, store: ReplayStore | Path | str, *, offline: bool = False
    ) -> None:
        self.inner = inner
        self.offline = offline
        self.store = store if isinstance(store, ReplayStore) else ReplayStore(store)
        self._owns_store = not isinstance(store, ReplayStore)
        self.hits = 0
        self.misses = 0
        self._flights: dict[bytes, _Flight] = {}
        self._inherits: dict[tuple[str, str], bool] = {}
        self._older = (
            len(self.store) > 0
        )  # something may be recorded as an earlier version asked it

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def identity(self) -> str:
        return identity(self.inner)

    @property
    def access(self) -> Access:
        return self.inner.access

    def holds(self, chat: Chat, sampling: Sampling) -> bool:
        """Whether the answer is recorded: asking for it would be free.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._recorded(chat, sampling) is not None

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The recorded answer, or the inner model's.

        Raises:
            OfflineError: `offline`, and it is not recorded.
            ModelError: the inner model failed; nothing is recorded then.
            StoreError: the answer could not be read or recorded.
        """
        key = self._key(chat, sampling)
        while True:
            recorded = self._recorded(chat, sampling)
            if recorded is not None:
                self.hits += 1
                return recorded
            flight = self._flights.get(key)
            mine = flight is None
            if flight is None:
                flight = self._depart(key)
                flight.task = asyncio.create_task(self._fetch(key, chat, sampling, flight))
            answer = await flight.join()
            if answer is not None:  # else the call was given up by all who had asked for it
                self.hits += not mine
                return answer

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        """The reply in pieces: those of the inner model, or the recorded one as one piece.

        The piece that ends a new reply comes after the reply is recorded. A stream that is closed
        before its end records nothing.

        Raises:
            what `generate` does.
        """
        key = self._key(chat, sampling)
        if key in self._flights or self.holds(chat, sampling):
            yield disassemble(await self.generate(chat, sampling))
            return
        flight = self._depart(key)
        pieces: list[Delta] = []
        try:
            async with closing(stream_of(self.inner, chat, sampling)) as deltas:
                async for delta in deltas:
                    pieces.append(delta)
                    if delta.finish_reason is None:
                        yield delta
            flight.land(self.store.put(key, self.identity, assemble(pieces)))
            for delta in pieces:
                if delta.finish_reason is not None:
                    yield delta
        except Exception as error:
            flight.crash(error)
            raise
        finally:
            flight.land(None)
            self._flights.pop(key, None)

    @property
    def vocabulary(self) -> str:
        return self._logits.vocabulary

    @property
    def vocabulary_size(self) -> int:
        return self._logits.vocabulary_size

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        return self._logits.tokenize(chat, reply)

    def piece(self, token: int) -> bytes:
        return self._logits.piece(token)

    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        """The inner model's logits, computed anew at each call: they are too large to record.

        Callers record the much smaller scores that they work out from logits with `keep`, and look
        them up with `recall` before they ask for logits.

        Raises:
            OfflineError: `offline`.
        """
        self._missed(len(sequences), "logits")
        return await self._logits.logits(sequences)

    @property
    def layers(self) -> int:
        return self._activations.layers

    def plain(self, text: str) -> Tokens:
        return self._activations.plain(text)

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        """The inner model's hidden states, computed anew at each call.

        Like logits they are not recorded, but the scores that callers work out from them are
        (`keep`).

        Raises:
            OfflineError: `offline`.
        """
        self._missed(len(sequences), "states")
        return await self._activations.activations(sequences, layer)

    def _missed(self, count: int, what: str) -> None:
        if self.offline:
            raise OfflineError(
                f"the {what} of {self.name!r} are not recorded, and new calls are refused (--offline)"
            )
        self.misses += count

    def recall(self, question: bytes) -> bytes | None:
        """The scores that `keep` recorded for `question`, as they were put; None if there are none.

        Raises:
            StoreError: the store cannot be read.
        """
        keys = [_scores_key(model, question) for model in self._known_as]
        found = next(filter(None, map(self.store.get_scores, keys)), None)
        self.hits += found is not None
        return found

    def keep(self, question: bytes, scores: bytes) -> None:
        """Record `scores`, worked out from the model's logits or states, as the answer to
        `question`.

        Raises:
            StoreError: the store cannot be written.
        """
        self.store.put_scores(_scores_key(self.identity, question), self.identity, scores)

    @property
    def _logits(self) -> LogitModel:
        return require(self.inner, Access.LOGITS, by="scoring replies")

    @property
    def _activations(self) -> ActivationModel:
        return require(self.inner, Access.ACTIVATIONS, by="reading texts")

    async def close(self) -> None:
        tasks = [f.task for f in self._flights.values() if f.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.inner.close()
        if self._owns_store:
            self.store.close()

    def _depart(self, key: bytes) -> _Flight:
        if self.offline:
            raise OfflineError(
                f"the answer of {self.name!r} is not recorded, and new calls are refused "
                "(--offline); run once without it"
            )
        self.misses += 1
        flight = self._flights[key] = _Flight()
        return flight

    async def _fetch(self, key: bytes, chat: Chat, sampling: Sampling, flight: _Flight) -> None:
        try:
            answer = await self.inner.generate(chat, sampling)
            # Not in a thread: between being paid for and being on the disk nothing may cut in.
            flight.land(self.store.put(key, self.identity, answer))
        except Exception as error:
            flight.crash(error)
        finally:
            flight.land(None)
            self._flights.pop(key, None)

    def _key(self, chat: Chat, sampling: Sampling) -> bytes:
        return request_key(self.identity, chat, sampling)

    def _recorded(self, chat: Chat, sampling: Sampling) -> Generation | None:
        for model in self._known_as:
            if found := self.store.get(request_key(model, chat, sampling)):
                return found
        return self._under_less(chat, sampling) if self._older else None

    def _under_less(self, chat: Chat, sampling: Sampling) -> Generation | None:
        """A recorded choice of labels that was asked for with a smaller `max_tokens` and ended by
        itself; None if there is none.

        With a larger limit it would have been the same. Earlier versions allowed a label just as
        many tokens as it is long.
        """
        if not sampling.choices or sampling.max_tokens > _FEW:
            return None
        for most in range(sampling.max_tokens - 1, 0, -1):
            asked = msgspec.structs.replace(sampling, max_tokens=most)
            for model in self._known_as:
                found = self.store.get(request_key(model, chat, asked))
                if found is not None and found.finish_reason == "stop" and found.text:
                    return found
        return None

    @property
    def _known_as(self) -> tuple[str, ...]:
        """The identities that the model's answers are recorded under: its own and, where it has
        one, its former.
        """
        own, former = self.identity, former_identity(self.inner)
        if former and (own, former) not in self._inherits:
            self._inherits[own, former] = self.store.inherits(own, former)
        return (own, former) if self._inherits.get((own, former)) else (own,)


def _scores_key(model: str, question: bytes) -> bytes:
    asked = {"format": _FORMAT, "model": model, "score": question}
    return hashlib.sha256(msgspec.msgpack.encode(asked, order="deterministic")).digest()


class _Flight:
    """One call under way and the callers that wait for it; it is cancelled when none waits any
    more.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._result: asyncio.Future[Generation | None] = asyncio.Future()
        self._waiting = 0

    async def join(self) -> Generation | None:
        """The answer; None when the call was given up."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._result)
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self.task is not None and not self._result.done():
                self.task.cancel()

    def land(self, answer: Generation | None) -> None:
        if not self._result.done():
            self._result.set_result(answer)

    def crash(self, error: Exception) -> None:
        if not self._result.done():
            self._result.set_exception(error)
            self._result.exception()  # it is no oversight if nobody waits any more
