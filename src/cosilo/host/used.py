"""What a host's clients took of its machine and its network, from its books.

    host/ledger.sqlite   entries     bytes and messages of each client, either way
                         processes   CPU and memory of each process that served them

A process notes what it took so far with an answer's own transaction, at most once a second, and when it
ends: after a `kill -9` as much as its last second is missing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from cosilo.boundary.messages.base import classes
from cosilo.boundary.record.ledger import Statement
from cosilo.clock import Effort, peak_memory
from cosilo.errors import StoreError

LEDGER = "ledger.sqlite"

SCHEMA = """
CREATE TABLE IF NOT EXISTS processes (
    number INTEGER PRIMARY KEY, began REAL NOT NULL, seconds REAL NOT NULL,
    cpu_seconds REAL NOT NULL, memory INTEGER NOT NULL
);
"""
_EVERY_S = 1.0


class OwnEffort:
    """Notes in `db` what this process takes while it has the books open."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._began = self._noted = time.monotonic()
        row = (time.time(), 0.0, *_process())
        self._number = db.execute("INSERT INTO processes VALUES (NULL,?,?,?,?)", row).lastrowid

    def due(self) -> list[Statement]:
        """What is to be written along with something else now: nothing, mostly."""
        if time.monotonic() - self._noted < _EVERY_S:
            return []
        return [self._statement()]

    def close(self) -> None:
        self._db.execute(*self._statement())

    def _statement(self) -> Statement:
        self._noted = time.monotonic()
        sql = "UPDATE processes SET seconds = ?, cpu_seconds = ?, memory = ? WHERE number = ?"
        return sql, (self._noted - self._began, *_process(), self._number)


def _process() -> tuple[float, int]:
    """CPU seconds and peak resident bytes of this process since it began, all threads together."""
    return time.process_time(), peak_memory()


@dataclass(frozen=True)
class ByClient:
    """What one client's chain holds.

    Attributes:
        up, down: bytes that came from the client, and that went to it.
        messages: requests of its.
        turns: how many of these began a turn of what is done by turns, by their name: {"round": 3}.
    """

    up: int
    down: int
    messages: int
    turns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Used:
    """What a host took, and for whom.

    Attributes:
        clients: by name.
        processes: how many ever served.
        effort: theirs together; None where the books are an older version's.
    """

    clients: Mapping[str, ByClient]
    processes: int
    effort: Effort | None


def used(folder: Path) -> Used:
    """What the books in `folder` say; a host may have them open.

    Raises:
        StoreError: there are none, or they cannot be read.
    """
    path = folder / LEDGER
    if not path.is_file():
        raise StoreError(
            f"{str(folder)!r} holds no {LEDGER}: it is not the folder of a host's books, which "
            "its file names as `books`"
        )
    turning = {name: kind.turn for name, kind in classes().items() if kind.turn}
    clients: dict[str, ByClient] = {}
    effort, processes = None, 0
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            sums = (
                "SELECT chain, direction, kind, count(*), sum(size) FROM entries"
                " GROUP BY chain, direction, kind ORDER BY chain"
            )
            for chain, direction, kind, count, size in db.execute(sums):
                before = clients.get(chain, ByClient(0, 0, 0))
                turns = dict(before.turns)
                if direction == "up" and kind in turning:
                    turns[turning[kind]] = turns.get(turning[kind], 0) + count
                clients[chain] = ByClient(
                    before.up + size * (direction == "up"),
                    before.down + size * (direction == "down"),
                    before.messages + count * (direction == "up"),
                    turns,
                )
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'processes'").fetchone():
                query = "SELECT seconds, cpu_seconds, memory FROM processes"
                for row in db.execute(query):
                    effort = Effort(*row) if effort is None else effort + Effort(*row)
                    processes += 1
    except sqlite3.Error as error:
        raise StoreError(f"the books in {str(folder)!r} cannot be read: {error}") from error
    return Used(clients, processes, effort)
