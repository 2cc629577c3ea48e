"""The file that says what was made from what: `lineage.sqlite`, beside what it speaks of.

A record stands in it as HMAC-SHA-256 of its id under a random key in a file of its own (`lineage.key`,
mode 0600). Without the key the file says how many records there are and what was made from how many
of them, and of nobody whether they are among them: no guess of an id can be checked.

Whoever makes something notes it *first*. What was noted and never made does no harm; what is made and
was not noted could not be found again.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import secrets
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from cosilo.databases import in_wal, made_private
from cosilo.errors import StoreError
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.graph import LineageGraph, RecordSet
from cosilo.lineage.requests import Evidence, ForgetRequest, ForgetStep, StepState
from cosilo.privacy.secret_key import secret_key
from cosilo.record_keys import transaction

FILE = "lineage.sqlite"
KEY = "lineage.key"

_FORMAT = 1
_WAIT = 60.0  # seconds for other writers, each of which is done in milliseconds
_SIZE = 16  # bytes of a record's name
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifacts (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    place TEXT NOT NULL,
    made_by TEXT NOT NULL,
    at REAL NOT NULL,
    gone TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS sets (name TEXT PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
    record BLOB NOT NULL,
    name TEXT NOT NULL REFERENCES sets,
    PRIMARY KEY (record, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS from_records (
    record BLOB NOT NULL, artifact INTEGER NOT NULL, PRIMARY KEY (record, artifact)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS from_sets (
    name TEXT NOT NULL, artifact INTEGER NOT NULL, PRIMARY KEY (name, artifact)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS from_artifacts (
    source INTEGER NOT NULL, artifact INTEGER NOT NULL, PRIMARY KEY (source, artifact)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    record BLOB NOT NULL, request TEXT NOT NULL, PRIMARY KEY (record, request)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS steps (
    request TEXT NOT NULL, number INTEGER NOT NULL, step BLOB NOT NULL,
    PRIMARY KEY (request, number)
) WITHOUT ROWID;
"""
_DERIVED = """
WITH RECURSIVE reached (number) AS (
    SELECT artifact FROM from_records JOIN wanted USING (record)
    UNION
    SELECT artifact FROM from_sets JOIN members USING (name) JOIN wanted USING (record)
    UNION
    SELECT artifact FROM from_artifacts JOIN reached ON source = reached.number
)
SELECT number FROM reached
"""
_BEHIND = """
WITH RECURSIVE behind (number) AS (
    SELECT number FROM artifacts WHERE number IN ({})
    UNION
    SELECT source FROM from_artifacts JOIN behind ON artifact = behind.number
)
SELECT 1 FROM behind WHERE number = ?
"""


def has_lineage(folder: Path) -> bool:
    """Whether something in `folder` was made by a version that notes what it makes."""
    return (folder / FILE).is_file()


class Lineage:
    """The lineage of what lies in a folder. Any number of processes and threads may use it at once;
    what a method has returned from is on the disk.

    Args:
        folder: the file and its key are made in it where they are not there and `write` is set.
        write: it may be changed.

    Raises:
        StoreError: it cannot be opened, is of another version, or is not there (reading only).
        ConfigError: the key cannot be used, or others can read it.
    """

    def __init__(self, folder: Path, *, write: bool = True) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._turn = threading.RLock()
        if not has_lineage(folder):
            if not write:
                raise StoreError(f"nothing notes what was made in {str(folder)!r}")
            with self._guarded():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not (folder / KEY).is_file():
            raise StoreError(
                f"the key {str(folder / KEY)!r} is gone: nobody can say whose records {FILE} names"
            )
        self._key = secret_key(folder / KEY)
        with self._guarded():
            if write:
                made_private(self.path)
            where = f"{self.path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
            self._db = sqlite3.connect(
                where, timeout=_WAIT, isolation_level=None, check_same_thread=False, uri=True
            )
        try:
            with self._guarded():
                self._db.execute("PRAGMA secure_delete = ON")
                self._db.execute("CREATE TEMP TABLE wanted (record BLOB PRIMARY KEY) WITHOUT ROWID")
                if write:
                    in_wal(self._db, timeout=_WAIT)
                    self._db.execute("PRAGMA synchronous = FULL")
                    with self._writing():
                        for statement in _SCHEMA.split(";"):
                            self._db.execute(statement)
                        self._db.execute(
                            "INSERT OR IGNORE INTO about VALUES ('format', ?)", (_FORMAT,)
                        )
                found = dict(self._db.execute("SELECT name, value FROM about"))
            if found.get("format") != _FORMAT:
                raise StoreError(f"{str(self.path)!r} is of another version of Cosilo's")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Lineage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is noted inside is committed at once at the end, or none of it."""
        with self._guarded(), self._writing():
            yield

    # ── what was made ────────────────────────────────────────────────────────

    def name(self, record: str) -> bytes:
        """The record's name in this file: 16 bytes, which nobody without the key can make."""
        return hmac.digest(self._key, record.encode(errors="surrogatepass"), hashlib.sha256)[:_SIZE]

    def gather(self, name: str, records: Iterable[str]) -> None:
        """Note that the set called `name` (a split, a federation's round, a release) contains these
        records, beside those it was said to contain before."""
        found = sorted({self.name(record) for record in records})
        digest = hashlib.sha256(b"".join(found)).digest()
        with self._guarded():
            known = self._db.execute("SELECT digest FROM sets WHERE name = ?", (name,)).fetchone()
            if known == (digest,):  # the usual case: every trial of a run has the same splits
                return
            with self._writing():
                self._db.execute("INSERT OR REPLACE INTO sets VALUES (?, ?)", (name, digest))
                self._db.executemany(
                    "INSERT OR IGNORE INTO members VALUES (?, ?)", [(r, name) for r in found]
                )

    def note(self, artifact: Artifact, made_from: MadeFrom) -> None:
        """Note that `artifact` is about to be made. Noted again, its sources are added to those it has;
        after it was `gone`, it is made anew, from these alone.

        Raises:
            StoreError: a set or an artifact it is made from is not known, or is made from it.
        """
        with self._guarded(), self._writing():
            for name in sorted(made_from.sets):
                self._require("SELECT 1 FROM sets WHERE name = ?", name)
            sources = [self._number(id) for id in sorted(made_from.artifacts)]
            known = self._db.execute(
                "SELECT number, gone FROM artifacts WHERE id = ?", (artifact.id,)
            ).fetchone()
            if known is not None and known[1]:  # what was made from the old one still was
                self._db.execute(
                    "UPDATE artifacts SET id = id || '@' || number WHERE number = ?", known[:1]
                )
                known = None
            at = artifact.at or time.time()
            told = (artifact.kind.value, artifact.place, artifact.made_by, at)
            if known is None:
                made = self._db.execute(
                    "INSERT INTO artifacts (id, kind, place, made_by, at) VALUES (?, ?, ?, ?, ?)",
                    (artifact.id, *told),
                )
                number = int(made.lastrowid or 0)
            else:
                number = int(known[0])
                query = _BEHIND.format(", ".join("?" * len(sources)))
                if self._db.execute(query, (*sources, number)).fetchone():
                    raise StoreError(f"{artifact.id!r} would be made from itself")
                self._db.execute(
                    "UPDATE artifacts SET kind = ?, place = ?, made_by = ?, at = ? WHERE number = ?",
                    (*told, number),
                )
            edges: dict[str, Sequence[object]] = {
                "from_records": [self.name(record) for record in made_from.records],
                "from_sets": list(made_from.sets),
                "from_artifacts": sources,
            }
            for table, named in edges.items():
                self._db.executemany(
                    f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", [(n, number) for n in named]
                )

    def gone(self, id: str, how: str) -> None:
        """Note that the artifact of that id is no more, or no longer holds what it was made from.

        Raises:
            StoreError: it is not known.
        """
        with self._guarded(), self._writing():
            number = self._number(id)
            self._db.execute("UPDATE artifacts SET gone = ? WHERE number = ?", (how, number))

    def derived(self, records: Iterable[str]) -> tuple[Artifact, ...]:
        """All that was made from any of `records` and still stands, directly or over other artifacts
        (also such as are gone), each after what it was made from, else in the order of noting."""
        return self.derived_from(map(self.name, records))

    def derived_from(self, names: Iterable[bytes]) -> tuple[Artifact, ...]:
        """`derived`, of records by their names in this file."""
        with self._asked_for(names):
            reached = {number for (number,) in self._db.execute(_DERIVED)}
            order, found = self._artifacts(reached)
        return tuple(found[number] for number in order if not found[number].gone)

    def graph(self, records: Iterable[str] | None = None) -> LineageGraph:
        """What was made from any of `records`, and by what way; of all records where it is None. What
        is gone is in it."""
        every = records is None
        wanted = "" if every else " JOIN wanted USING (record)"
        with self._asked_for(() if records is None else map(self.name, records)):
            query = "SELECT number FROM artifacts" if every else _DERIVED
            order, found = self._artifacts({number for (number,) in self._db.execute(query)})
            sizes = dict.fromkeys((n for (n,) in self._db.execute("SELECT name FROM sets")), 0)
            sizes |= dict(self._db.execute("SELECT name, count(*) FROM members GROUP BY name"))
            within = sizes
            if not every:
                members = f"SELECT name, count(*) FROM members{wanted} GROUP BY name"
                within = dict(self._db.execute(members))
            query = f"SELECT artifact, record FROM from_records{wanted}"
            alone = self._db.execute(query).fetchall()
            from_sets = self._db.execute("SELECT name, artifact FROM from_sets").fetchall()
            edges = self._db.execute("SELECT source, artifact FROM from_artifacts").fetchall()
        used = {(n, a) for n, a in from_sets if n in within and a in found}
        return LineageGraph(
            artifacts=tuple(found[number] for number in order),
            sets=tuple(
                RecordSet(name=name, records=within[name], size=sizes[name])
                for name in sorted({name for name, _ in used})
            ),
            alone=len({record for _, record in alone}),
            from_alone=frozenset(found[a].id for a, _ in alone),
            from_sets=frozenset((n, found[a].id) for n, a in used),
            from_artifacts=frozenset(
                (found[s].id, found[a].id) for s, a in edges if s in found and a in found
            ),
        )

    @contextmanager
    def _asked_for(self, names: Iterable[bytes]) -> Iterator[None]:
        """These names in the table `wanted`; what is read meanwhile is of one moment."""
        with self._guarded():
            self._db.execute("BEGIN")
            try:
                self._db.execute("DELETE FROM wanted")
                self._db.executemany(
                    "INSERT OR IGNORE INTO wanted VALUES (?)", [(name,) for name in names]
                )
                yield
            finally:
                self._db.execute("ROLLBACK")

    def _artifacts(self, numbers: set[int]) -> tuple[list[int], dict[int, Artifact]]:
        """These artifacts by number, and their numbers with each after what it was made from."""
        order = in_order(numbers, self._db.execute("SELECT source, artifact FROM from_artifacts"))
        rows = self._db.execute("SELECT * FROM artifacts")
        return order, {row[0]: _artifact(*row[1:]) for row in rows if row[0] in numbers}

    def standing(self) -> tuple[Artifact, ...]:
        """All artifacts that are not gone, in the order of noting."""
        with self._guarded():
            rows = self._db.execute("SELECT * FROM artifacts WHERE gone = '' ORDER BY number")
            return tuple(_artifact(*row[1:]) for row in rows)

    def sources(self, id: str) -> MadeFrom:
        """The sets and artifacts that the artifact of that id was made from; records have no names that
        could be given back.

        Raises:
            StoreError: it is not known.
        """
        with self._guarded():
            number = self._number(id)
            sets = self._db.execute("SELECT name FROM from_sets WHERE artifact = ?", (number,))
            artifacts = self._db.execute(
                "SELECT id FROM from_artifacts JOIN artifacts ON number = source WHERE artifact = ?",
                (number,),
            )
            return MadeFrom(
                sets=frozenset(n for (n,) in sets), artifacts=frozenset(i for (i,) in artifacts)
            )

    def noted(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these artifacts were ever noted, whether they still stand or not."""
        query = "SELECT EXISTS (SELECT 1 FROM artifacts WHERE id = ?)"
        with self._guarded():
            return frozenset(i for i in ids if self._db.execute(query, (i,)).fetchone()[0])

    def note_late(self) -> None:
        """Note that something was made before anything was noted, so that more may be there that nobody
        knows of."""
        with self._guarded(), self._writing():
            self._db.execute("INSERT OR IGNORE INTO about VALUES ('late', 1)")

    @property
    def late(self) -> bool:
        """Whether something was made before anything was noted."""
        with self._guarded():
            return bool(self._db.execute("SELECT 1 FROM about WHERE name = 'late'").fetchone())

    def sets_of(self, record: str) -> frozenset[str]:
        """The names of the sets that contain the record."""
        with self._guarded():
            rows = self._db.execute(
                "SELECT name FROM members WHERE record = ?", (self.name(record),)
            )
            return frozenset(name for (name,) in rows)

    def knows(self, record: str) -> bool:
        """Whether a set contains the record, or anything was made from it."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM members WHERE record = ?1)"
            " OR EXISTS (SELECT 1 FROM from_records WHERE record = ?1)"
        )
        with self._guarded():
            return bool(self._db.execute(query, (self.name(record),)).fetchone()[0])

    # ── requests to forget ───────────────────────────────────────────────────

    def begin(
        self, names: Collection[bytes], steps: Sequence[ForgetStep], *, id: str = ""
    ) -> ForgetRequest:
        """Keep a request to forget the records of these names, and its steps: all of it or nothing.

        Args:
            id: that of the request, where another folder began it; a new one by default.
        """
        id, at = id or secrets.token_hex(16), time.time()
        with self._guarded(), self._writing():
            self._db.execute("INSERT INTO requests VALUES (?, ?)", (id, at))
            self._db.executemany("INSERT INTO asked VALUES (?, ?)", [(n, id) for n in set(names)])
            self._db.executemany(
                "INSERT INTO steps VALUES (?, ?, ?)",
                [(id, number, _encoded(step)) for number, step in enumerate(steps)],
            )
        return ForgetRequest(id=id, at=at, records=len(set(names)), steps=tuple(steps))

    def move(
        self,
        request: str,
        number: int,
        state: StepState,
        *,
        evidence: Evidence | None = None,
        note: str | None = None,
        deadline: float | None = None,
        place: str | None = None,
    ) -> None:
        """Note how far step `number` (from 0 on) of the request has come; what is None stays.

        Raises:
            StoreError: there is no such step.
        """
        with self._guarded(), self._writing():
            rows = self._db.execute(
                "SELECT step FROM steps WHERE request = ? AND number = ?", (request, number)
            ).fetchall()
            if not rows:
                raise StoreError(f"request {request!r} has no step {number}")
            given = {"evidence": evidence, "note": note, "deadline": deadline, "place": place}
            changed: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
            step = replace(_decoded(rows[0][0]), state=state, **changed)
            self._db.execute(
                "UPDATE steps SET step = ? WHERE request = ? AND number = ?",
                (_encoded(step), request, number),
            )

    def requests(self) -> tuple[ForgetRequest, ...]:
        """Every request with its steps, in the order in which they began."""
        with self._guarded():
            steps: dict[str, list[ForgetStep]] = defaultdict(list)
            for id, step in self._db.execute("SELECT request, step FROM steps ORDER BY number"):
                steps[id].append(_decoded(step))
            counts = dict(self._db.execute("SELECT request, count(*) FROM asked GROUP BY request"))
            rows = self._db.execute("SELECT id, at FROM requests ORDER BY at, id").fetchall()
        return tuple(
            ForgetRequest(id=id, at=at, records=counts.get(id, 0), steps=tuple(steps[id]))
            for id, at in rows
        )

    def names_of(self, request: str) -> frozenset[bytes]:
        """The names of the records that the request is about."""
        with self._guarded():
            rows = self._db.execute("SELECT record FROM asked WHERE request = ?", (request,))
            return frozenset(name for (name,) in rows)

    def part_with(self, request: str) -> None:
        """Forget here, too, which records the request was about, and what was made from them: what is
        to be done for it stands in its steps."""
        with self._guarded(), self._writing():
            for table in ("members", "from_records"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE record IN"
                    " (SELECT record FROM asked WHERE request = ?)",
                    (request,),
                )
            # A set has now another content than it was said to have.
            self._db.execute("UPDATE sets SET digest = x''")
            self._db.execute("DELETE FROM asked WHERE request = ?", (request,))

    def forgotten(self) -> frozenset[bytes]:
        """The names of all records that any request was about: they are taken in no more."""
        with self._guarded():
            return frozenset(name for (name,) in self._db.execute("SELECT record FROM asked"))

    # ── the file ─────────────────────────────────────────────────────────────

    def _number(self, id: str) -> int:
        return self._require("SELECT number FROM artifacts WHERE id = ?", id)

    def _require(self, query: str, named: str) -> int:
        row = self._db.execute(query, (named,)).fetchone()
        if row is None:
            raise StoreError(
                f"{str(self.path)!r} knows no {named!r} that anything could be made from"
            )
        return int(row[0])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which no other process's falls into; the one that is under way, if any."""
        if self._db.in_transaction:
            yield
            return
        with transaction(self._db):
            yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One thread at a time; what goes wrong with the file is told as such."""
        try:
            with self._turn:
                yield
        except sqlite3.Error as error:
            raise StoreError(f"{str(self.path)!r} cannot be used: {error}") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreError(f"{str(self.path)!r} cannot be used: {reason}") from None


def in_order(numbers: Collection[int], edges: Iterable[tuple[int, int]]) -> list[int]:
    """`numbers`, each after those that an edge (source, made) among them says it was made from; of
    several that could be next, the smallest. Kahn's algorithm; the edges form no circle."""
    waiting = dict.fromkeys(numbers, 0)
    made: dict[int, list[int]] = defaultdict(list)
    for source, number in edges:
        if source in waiting and number in waiting:
            waiting[number] += 1
            made[source].append(number)
    ready = [number for number, count in waiting.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for number in made[order[-1]]:
            waiting[number] -= 1
            if not waiting[number]:
                heapq.heappush(ready, number)
    return order


def _artifact(id: str, kind: str, place: str, made_by: str, at: float, gone: str) -> Artifact:
    return Artifact(id=id, kind=ArtifactKind(kind), place=place, made_by=made_by, at=at, gone=gone)


def _encoded(step: ForgetStep) -> bytes:
    return msgspec.msgpack.encode(step)


def _decoded(step: bytes) -> ForgetStep:
    return msgspec.msgpack.decode(step, type=ForgetStep)
