"""What small models answered in a run, so that nothing is asked of them twice.

It is kept under hashes of what they were asked, which do not say which record that was about: it is a
cache, and forgotten whole.
"""

from __future__ import annotations

import msgspec

from cosilo.benchmark.store import Store
from cosilo.models.kept.replay import request_key
from cosilo.record_keys import guarded, rewrite
from cosilo.types import Chat, Generation, Sampling


class SmallAnswers:
    """What the small model called `identity` answered, kept in the run: the memory of it."""

    def __init__(self, store: Store, identity: str) -> None:
        self._store = store
        self._identity = identity

    def get(self, chat: Chat, sampling: Sampling) -> Generation | None:
        key = request_key(self._identity, chat, sampling)
        rows = self._store.rows("SELECT answer FROM small WHERE key = ?", (key,))
        return msgspec.msgpack.decode(rows[0][0], type=Generation) if rows else None

    def put(self, chat: Chat, sampling: Sampling, answer: Generation) -> None:
        key = request_key(self._identity, chat, sampling)
        with self._store.change() as db:
            row = (key, msgspec.msgpack.encode(answer))
            db.execute("INSERT OR IGNORE INTO small VALUES (?,?)", row)


def forget_small_answers(store: Store) -> int:
    """Delete all that small models answered, and rewrite the run's database; returns how many it was.

    They are asked again where it is needed.

    Raises:
        StoreError: the file cannot be written, or is read for so long that it cannot be rewritten.
    """
    path = store.path / "run.sqlite"
    with store.change() as db:
        count = db.execute("DELETE FROM small").rowcount
    with guarded(path):
        rewrite(db, path)
    return int(count)
