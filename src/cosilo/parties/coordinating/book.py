"""What a coordinator has on disk: who takes part, a round's updates until it closes, what came of it.

    federation   one row: its name, its settings, base and layers, where it stands
    owners       who enrolled, and as what
    updates      round, owner → the update's digest, its fate, and its bytes while the round is open
    sums         round → who is in each step of a sum of updates that nobody sees
    sum_parts    round, owner, step → what the owner gave in it; bytes while the round is open
    rounds       closed ones → the adapter that came of each, and the owners in it
    taken_back   owner, request to forget → what became of its updates, and of the rounds they were in

What belongs together is one transaction, on the disk before anybody is told: after a `kill -9` all of
it is there, or nothing. An update's bytes are deleted in the transaction that closes its round (or,
where updates are kept, that many later ones), or ends the federation without a result, and then
overwritten in the file and its log; texts can be read out of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosilo.boundary.messages.federate import Fate
from cosilo.databases import in_wal, made_private
from cosilo.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS federation (
    only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT NOT NULL, settings TEXT NOT NULL,
    base TEXT NOT NULL, layers TEXT NOT NULL, state TEXT NOT NULL, number INTEGER NOT NULL,
    why TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS owners (
    owner TEXT PRIMARY KEY, said TEXT NOT NULL, rank INTEGER NOT NULL,
    examples INTEGER, since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS updates (
    round INTEGER NOT NULL, owner TEXT NOT NULL, digest BLOB NOT NULL, fate TEXT NOT NULL,
    why TEXT NOT NULL, rank INTEGER NOT NULL, packed BLOB, PRIMARY KEY (round, owner)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rounds (
    number INTEGER PRIMARY KEY, packed BLOB NOT NULL, rank INTEGER NOT NULL, adds INTEGER NOT NULL,
    error REAL, owners TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sums (
    round INTEGER PRIMARY KEY, roster BLOB NOT NULL, sharers TEXT NOT NULL, survivors TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sum_parts (
    round INTEGER NOT NULL, owner TEXT NOT NULL, step TEXT NOT NULL, digest BLOB NOT NULL,
    why TEXT NOT NULL, content BLOB, PRIMARY KEY (round, step, owner)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taken_back (
    owner TEXT NOT NULL, request TEXT NOT NULL, epoch INTEGER NOT NULL, outcome BLOB NOT NULL,
    PRIMARY KEY (owner, request)
) WITHOUT ROWID;
"""
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Standing:
    """Where a federation stands.

    Attributes:
        state: "enrolling", "open" (round `number` is; the steps of a sum have states of their own, see
            `sums.py`), "ended" or "failed", and `why`.
        layers: of the base model, as the first owner said them; empty before.
        epoch: how often rounds were taken back.
    """

    name: str
    settings: str
    base: str
    layers: tuple[tuple[str, int, int], ...]
    state: str
    number: int
    why: str = ""
    epoch: int = 0

    @property
    def closed(self) -> int:
        """How many rounds have closed."""
        return self.number if self.state == "ended" else max(0, self.number - 1)


@dataclass(frozen=True)
class Member:
    """An owner that enrolled.

    Attributes:
        said: all that it said of itself, as text.
        rank: of the adapters that it trains.
        since: the first round that waits for it.
    """

    owner: str
    said: str
    rank: int
    examples: int | None
    since: int


@dataclass(frozen=True)
class KeptUpdate:
    """An update. `packed` is None once its round has closed, or where it cannot be used."""

    owner: str
    digest: bytes
    fate: Fate
    why: str
    rank: int
    packed: bytes | None = None


@dataclass(frozen=True)
class ClosedRound:
    """What came of a round, and of whose updates; see `federation.rules.Aggregate`."""

    packed: bytes
    rank: int
    adds: bool
    error: float | None
    owners: tuple[str, ...]


@dataclass(frozen=True)
class KeptSum:
    """Who is in a round's sum, as far as that is fixed.

    Attributes:
        roster: `federation.secure.sums.Roster`, encoded.
        sharers, survivors: those who handed out shares, and those whose masked update came; none
            before that is fixed.
    """

    roster: bytes
    sharers: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()


@dataclass(frozen=True)
class SumPart:
    """What an owner gave in a step of a sum. `content` is None once the round has closed, or where it
    cannot be used, and `why`."""

    owner: str
    digest: bytes
    why: str
    content: bytes | None = None


class FederationBook:
    """One federation's file, or memory where `path` is None. It is used by one thread at a time.

    Args:
        keeps: of so many rounds that closed last updates are kept.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, keeps: int = 0) -> None:
        self.path = path
        self._keeps = keeps
        try:
            place = ":memory:" if path is None else str(made_private(path))
            self._db = sqlite3.connect(
                place, isolation_level=None, timeout=_TIMEOUT_S, check_same_thread=False
            )
            if path is not None:
                in_wal(self._db, timeout=_TIMEOUT_S)
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA secure_delete = ON")  # not every build of SQLite begins so
                self._empty_log()  # a process that was killed may have left one
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from None

    def standing(self) -> Standing | None:
        """Where it stands; None in a new file."""
        row = self._one("SELECT name, settings, base, layers, state, number, why FROM federation")
        if row is None:
            return None
        layers = tuple((str(n), int(o), int(i)) for n, o, i in json.loads(row[3]))
        (epoch,) = self._one("SELECT coalesce(max(epoch), 0) FROM taken_back") or (0,)
        return Standing(row[0], row[1], row[2], layers, row[4], row[5], row[6], epoch)

    def members(self) -> list[Member]:
        """In the order of their names."""
        rows = self._all("SELECT owner, said, rank, examples, since FROM owners ORDER BY owner")
        return [Member(*row) for row in rows]

    def updates(self, number: int, *, with_bytes: bool = False) -> list[KeptUpdate]:
        """Those for a round, in the order of their owners' names."""
        columns = "packed" if with_bytes else "NULL"
        query = f"SELECT owner, digest, fate, why, rank, {columns} FROM updates WHERE round = ?"
        return [KeptUpdate(*row) for row in self._all(f"{query} ORDER BY owner", number)]

    def closed(self, number: int) -> ClosedRound | None:
        query = "SELECT packed, rank, adds, error, owners FROM rounds WHERE number = ?"
        if (row := self._one(query, number)) is None:
            return None
        packed, rank, adds, error, owners = row
        return ClosedRound(packed, rank, bool(adds), error, tuple(json.loads(owners)))

    def sum_of(self, number: int) -> KeptSum | None:
        """Who is in a round's sum; None before its roster is fixed."""
        query = "SELECT roster, sharers, survivors FROM sums WHERE round = ?"
        if (row := self._one(query, number)) is None:
            return None
        return KeptSum(row[0], tuple(json.loads(row[1])), tuple(json.loads(row[2])))

    def parts(self, number: int, step: str, *, with_content: bool = False) -> list[SumPart]:
        """What owners gave in a step of a round's sum, in the order of their names."""
        content = "content" if with_content else "NULL"
        query = f"SELECT owner, digest, why, {content} FROM sum_parts WHERE round = ? AND step = ?"
        return [SumPart(*row) for row in self._all(f"{query} ORDER BY owner", number, step)]

    def adverts(self) -> list[bytes]:
        """Those of all rounds, which hold public keys and commitments."""
        query = "SELECT content FROM sum_parts WHERE step = 'advert' AND content IS NOT NULL"
        return [row[0] for row in self._all(query)]

    def keep_part(self, number: int, step: str, part: SumPart) -> None:
        """Note what an owner gave in a step."""
        row = (number, part.owner, step, part.digest, part.why, part.content)
        with self._together():
            self._do("INSERT INTO sum_parts VALUES (?,?,?,?,?,?)", row)

    def fix(self, number: int, kept: KeptSum, standing: Standing) -> None:
        """Note who is in a round's sum, and the step that begins."""
        row = (number, kept.roster, json.dumps(kept.sharers), json.dumps(kept.survivors))
        with self._together():
            self._do("INSERT OR REPLACE INTO sums VALUES (?,?,?,?)", row)
            self._stand(standing)

    def stand(self, standing: Standing) -> None:
        """Note where it stands now."""
        with self._together():
            self._stand(standing)

    def enrol(self, member: Member, standing: Standing) -> None:
        """Note that an owner takes part, and where that leaves the federation."""
        with self._together():
            self._do(
                "INSERT INTO owners VALUES (?,?,?,?,?)",
                (member.owner, member.said, member.rank, member.examples, member.since),
            )
            self._stand(standing)

    def keep(self, number: int, update: KeptUpdate) -> None:
        """Note what an owner contributed to a round."""
        with self._together():
            self._keep(number, update)

    def close_round(
        self,
        number: int,
        closed: ClosedRound,
        standing: Standing,
        fates: Sequence[KeptUpdate] = (),
    ) -> None:
        """Note what came of a round, and forget the bytes it was made of.

        Args:
            fates: what became of updates that were never kept one by one.
        """
        row = (number, closed.packed, closed.rank, closed.adds, closed.error)
        with self._forgetting(number - self._keeps + 1):
            self._do("INSERT INTO rounds VALUES (?,?,?,?,?,?)", (*row, json.dumps(closed.owners)))
            for update in fates:
                self._keep(number, update)
            self._stand(standing)

    def fail(self, standing: Standing) -> None:
        """Note that nothing comes of it, and forget the bytes that it had."""
        with self._forgetting():
            self._stand(standing)

    def close(self) -> None:
        self._db.close()

    def _keep(self, number: int, update: KeptUpdate) -> None:
        u = update
        row = (number, u.owner, u.digest, u.fate, u.why, u.rank, u.packed)
        self._do("INSERT INTO updates VALUES (?,?,?,?,?,?,?)", row)

    def _stand(self, s: Standing) -> None:
        row = (s.name, s.settings, s.base, json.dumps(s.layers), s.state, s.number, s.why)
        self._do("INSERT OR REPLACE INTO federation VALUES (1,?,?,?,?,?,?,?)", row)

    def gone(self) -> set[str]:
        """Owners whose updates were taken back."""
        return {row[0] for row in self._all("SELECT DISTINCT owner FROM taken_back")}

    def taken_back(self, owner: str, request: str) -> bytes | None:
        """What became of the owner's updates when it made that request; None where it did not."""
        query = "SELECT outcome FROM taken_back WHERE owner = ? AND request = ?"
        found = self._one(query, owner, request)
        return None if found is None else found[0]

    def take_back(
        self,
        owner: str,
        request: str,
        outcome: bytes,
        standing: Standing,
        again: Mapping[int, ClosedRound],
    ) -> None:
        """Note that an owner's updates are taken back, and keep nothing of what came of them.

        Args:
            standing: where the federation stands then. Where its epoch is another one, what came of
                rounds that have not closed in it goes, and what all owners gave for them.
            again: what came of some of the rounds before when they were put together without it.
        """
        last, epoch = standing.closed, standing.epoch
        known = self.standing()
        with self._together():
            self._do("DELETE FROM updates WHERE owner = ?", (owner,))
            self._do("DELETE FROM sum_parts WHERE owner = ? AND step != 'advert'", (owner,))
            if known is None or known.epoch != epoch:
                for table, column in (
                    ("updates", "round"),
                    ("rounds", "number"),
                    ("sums", "round"),
                ):
                    self._do(f"DELETE FROM {table} WHERE {column} > ?", (last,))
                self._do("DELETE FROM sum_parts WHERE round > ? AND step != 'advert'", (last,))
                # No key may be shown a second time, so adverts stay: with a round that there is not.
                move = "UPDATE sum_parts SET round = -(round + ? * 1000000) WHERE round > ?"
                self._do(move, (epoch, last))
            self._do("DELETE FROM owners WHERE owner = ?", (owner,))
            for number, closed in again.items():
                names = json.dumps(closed.owners)
                row = (closed.packed, closed.rank, closed.adds, closed.error, names, number)
                update = "packed = ?, rank = ?, adds = ?, error = ?, owners = ?"
                self._do(f"UPDATE rounds SET {update} WHERE number = ?", row)
            if standing.state == "failed":
                self._do("UPDATE updates SET packed = NULL", ())
            self._do("INSERT INTO taken_back VALUES (?,?,?,?)", (owner, request, epoch, outcome))
            self._stand(standing)
        with suppress(sqlite3.Error):
            self._empty_log()

    @contextmanager
    def _forgetting(self, kept: int | None = None) -> Iterator[None]:
        """`_together`, and after it without the bytes of any update but of rounds from `kept` on."""
        with self._together():
            yield
            bytes_of = "packed IS NOT NULL AND (?1 IS NULL OR round < ?1)"
            self._do(f"UPDATE updates SET packed = NULL WHERE {bytes_of}", (kept,))
            self._do(
                "UPDATE sum_parts SET content = NULL WHERE content IS NOT NULL AND step != 'advert'",
                (),
            )
        with suppress(sqlite3.Error):  # it is done all the same; the next one empties the log
            self._empty_log()

    def _empty_log(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _do(self, sql: str, values: Sequence[object]) -> None:
        self._db.execute(sql, values)

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        found = self._all(sql, *values)
        return found[0] if found else None

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> StoreError:
        where = "memory" if self.path is None else repr(str(self.path))
        return StoreError(f"the federation in {where} cannot be kept: {error}")
