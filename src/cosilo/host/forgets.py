"""A host's notes on what one client asked to forget, in its books, and what it takes out of these.

Of a request that is forgotten the books keep that there was one, how large it was and what it took: its
entry stays in the chain, which is verified as before. Its content goes with its key, by which alone a
guess of it could be confirmed; its answer, and the keyed hashes of its prompts, go as well, and are
overwritten in the file and its log. Entries from before there were such keys keep their digests.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from cosilo.boundary.messages import (
    Advertise,
    Contribute,
    HandShares,
    Masked,
    NextRound,
    NextStep,
    Unmask,
)
from cosilo.boundary.messages.forget import Forgotten, Left
from cosilo.boundary.record.shredding import shred
from cosilo.boundary.record.signed import SigningKey
from cosilo.errors import RejectedError, StoreError
from cosilo.host.books import ClientBooks
from cosilo.parties.forgets import KeptForget, Planned

_SOME = 500  # names in one statement


@dataclass(frozen=True, kw_only=True)
class ForgetTerms:
    """What a host does with the record of what a client asked to forget.

    Attributes:
        contents: take the contents of messages out of the ledger, where it has them; without, they
            stay, as law or contract may want, and clients are told so.
    """

    contents: bool = True


class ClientForgets:
    """What one client asked to forget; see `parties.forgets.ForgetBook`.

    Args:
        key: what answers are signed with.
        sent_on: its texts go to a model elsewhere.
    """

    def __init__(
        self, books: ClientBooks, terms: ForgetTerms, key: SigningKey | None, *, sent_on: bool
    ) -> None:
        self.key = key
        self._books = books
        self._terms = terms
        self._sent_on = sent_on
        self.lock = asyncio.Lock()

    def find(self, client: str, forget: str, part: int) -> KeptForget | None:
        query = (
            "SELECT asked, planned, answer FROM forgets WHERE client = ? AND id = ? AND part = ?"
        )
        with self._reading() as db:
            row = db.execute(query, (client, forget, part)).fetchone()
        if row is None:
            return None
        try:
            return KeptForget(row[0], msgspec.msgpack.decode(row[1], type=_PLANNED), row[2])
        except msgspec.DecodeError:
            raise StoreError("what a client asked to forget cannot be read") from None

    def plan(self, client: str, forget: str, part: int, kept: KeptForget) -> None:
        planned = msgspec.msgpack.encode(kept.planned)
        row = (client, forget, part, kept.asked, planned)
        with self._writing() as db:
            db.execute("INSERT INTO forgets VALUES (?,?,?,?,?,NULL)", row)

    def answered(self, client: str, forget: str, part: int, answer: bytes) -> None:
        update = "UPDATE forgets SET answer = ? WHERE client = ? AND id = ? AND part = ?"
        with self._writing() as db:
            db.execute(update, (answer, client, forget, part))

    def known(self, client: str, names: Sequence[str]) -> set[str]:
        found: set[str] = set()
        with self._reading() as db:
            for some in _cut(names):
                query = f"SELECT DISTINCT request FROM entries WHERE chain = ? AND {_among(some)}"
                found |= {row[0] for row in db.execute(query, (client, *some))}
        self._require_idle(found)
        return found

    def count(self, client: str) -> int:
        query = (
            "SELECT count(*) FROM entries WHERE chain = ? AND direction = 'up' AND kind != 'Forget'"
        )
        with self._reading() as db:
            (count,) = db.execute(query, (client,)).fetchone()
            kinds = "SELECT request FROM entries WHERE chain = ? AND kind = 'Forget'"
            own = {row[0] for row in db.execute(kinds, (client,))}
        self._require_idle(set(self._books.working) - own)
        return int(count)

    def forget(self, client: str, names: Sequence[str] | None) -> tuple[Left, ...]:
        """As `ForgetBook.forget`; raises RejectedError where one of them is worked on again."""
        if names is None:
            with self._reading() as db:
                query = "SELECT DISTINCT request FROM entries WHERE chain = ? AND kind != 'Forget'"
                names = [row[0] for row in db.execute(query, (client,))]
            names = [name for name in names if name not in self._books.working]
        self._require_idle(set(names))
        with self._writing() as db:
            for sql, values in self._books.let_go(names):
                db.execute(sql, values)
            for some in _cut(names):
                where = _among(some)
                # They go on counting: a client sees no more of the model for having forgotten.
                query = f"SELECT prompt FROM prompts WHERE client = ? AND {where}"
                for (prompt,) in db.execute(query, (client, *some)).fetchall():
                    other = secrets.token_bytes(len(prompt))
                    db.execute(_OTHER_PROMPT, (other, client, prompt))
        with suppress(sqlite3.Error):  # it is done all the same; another one empties the log
            self._books.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        found = self._shredded(client, names)
        return (*found, *(("sent on",) if self._sent_on else ()))

    def _shredded(self, client: str, names: Sequence[str]) -> tuple[Left, ...]:
        """Take requests out of the ledger; what is left of them there."""
        ledger = self._books.ledger
        if not names:
            return ()
        if not self._terms.contents:
            return ("digests", "contents") if ledger.keep == "content" else ("digests",)
        # Another client may have chosen the same ids, on purpose, and keeps its entries.
        done = shred(ledger.path, names, chains=(client,))
        return ("digests",) if any(each.guessable for each in done) else ()

    @property
    def left_of_rounds(self) -> tuple[Left, ...]:
        # In answers that are kept for a while, and in contents where these are.
        return ("others' records",)

    def updates(self, client: str) -> list[str]:
        return self._of_kinds(client, _UPDATES)

    def rounds(self, client: str) -> list[str]:
        return self._of_kinds(client, (*_UPDATES, NextRound.__name__, NextStep.__name__))

    def _of_kinds(self, client: str, kinds: Sequence[str]) -> list[str]:
        marks = ",".join("?" * len(kinds))
        query = f"SELECT DISTINCT request FROM entries WHERE chain = ? AND kind IN ({marks})"
        with self._reading() as db:
            return [row[0] for row in db.execute(query, (client, *kinds))]

    def signed(self, answer: Forgotten) -> Forgotten:
        return answer if self.key is None else self.key.signed(answer)

    def _require_idle(self, names: set[str]) -> None:
        if under_way := names & set(self._books.working):
            raise RejectedError(
                f"{len(under_way)} of these requests are worked on now: ask again when they are "
                "answered"
            )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._books.db
        except sqlite3.Error as error:
            raise StoreError(f"the books cannot be read: {error}") from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = self._books.db
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            raise StoreError(f"the books cannot be written: {error}") from None


_UPDATES = tuple(kind.__name__ for kind in (Contribute, Advertise, HandShares, Masked, Unmask))
_OTHER_PROMPT = "UPDATE prompts SET prompt = ?, request = NULL WHERE client = ? AND prompt = ?"
_PLANNED = tuple[Planned, ...]


def _cut(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _SOME):
        yield names[start : start + _SOME]


def _among(names: Sequence[str]) -> str:
    return f"request IN ({','.join('?' * len(names))})"
