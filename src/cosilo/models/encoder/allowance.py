"""How many answers of a private head each client may have, counted in a file.

Logits of a linear head are linear equations for its weights: of as many vectors as it has inputs, and
one, they are all that there is to know (`attacks.head_stealing`). So an answer is counted before it is
worked on, and stays counted, whatever comes of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cosilo.databases import in_wal, made_private
from cosilo.errors import BudgetExceededError, StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    head TEXT NOT NULL, client TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (head, client)
) WITHOUT ROWID
"""
_ONE_MORE = """
INSERT INTO answers VALUES (?, ?, 1)
ON CONFLICT DO UPDATE SET count = count + 1 WHERE count < ?
"""
_COUNT = "SELECT count FROM answers WHERE head = ? AND client = ?"
_WAIT_S = 30.0


class Allowance:
    """`most` answers, one or more, of the head called `head` for each client, over all processes that
    use `path`."""

    def __init__(self, path: Path, head: str, most: int) -> None:
        self.path = path
        self.head = head
        self.most = most

    def left(self, client: str) -> int:
        """How many more there are for `client`.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._opened() as db:
            row = db.execute(_COUNT, (self.head, client)).fetchone()
        return max(0, self.most - (row[0] if row else 0))

    def take(self, client: str) -> None:
        """Count one more.

        Raises:
            BudgetExceededError: there is none left; nothing is counted.
            StoreError: it cannot be counted.
        """
        with self._opened() as db:
            counted = db.execute(_ONE_MORE, (self.head, client, self.most)).rowcount
        if not counted:
            raise BudgetExceededError(
                f"client {client!r} may have {self.most} answers of this head, and has had them; its "
                "owner sets how many (`allowance`). The head was not asked"
            )

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made = sqlite3.connect(made_private(self.path), timeout=_WAIT_S, isolation_level=None)
            with closing(made) as db:
                in_wal(db, timeout=_WAIT_S)
                db.execute(_SCHEMA)
                yield db
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot count answers in {str(self.path)!r}: {error}") from None
