"""What was spent of whose privacy: one book for all runs, plans and gateways of a machine's user.

    a message with a Release ──▶ over the budget with all that is booked? ── yes ──▶ nothing is sent
                                    │ no
                                    └──▶ booked ──▶ the message leaves

The book knows records by keyed hashes of their texts, so a copied, renamed or reordered file is the
same data; no text is in it. What a record has spent is what all releases over data with that record in
them spend together, against a world in which it had never been there; of some data it is the most that
any of their records has. So data that overlap add up where they do, and data apart do not.

A release counts from the moment it is booked. A process that dies before its message has left has
spent it all the same, as nobody can know; where the departure failed, it is taken back. The same draw
is booked once, however often it is made (decision 0011).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cosilo.databases import in_wal, made_private
from cosilo.errors import PrivacyBudgetError, PrivacyError, StoreError
from cosilo.privacy.composition import Figure, composed
from cosilo.privacy.mechanisms import Release
from cosilo.record_keys import transaction

USUAL_DELTA = 1e-5
"""The δ at which a book's figures are stated where nobody said another."""

_FORMAT = 1
_WAIT = 120.0  # seconds for other processes, each of which may be composing
_ROUNDING = 1e-9  # that sums of squares have; the budget is compared up to it
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS data (
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    records INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS records (
    record BLOB NOT NULL,
    data INTEGER NOT NULL REFERENCES data,
    PRIMARY KEY (record, data)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_of_data ON records (data, record);
CREATE TABLE IF NOT EXISTS releases (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    data INTEGER NOT NULL REFERENCES data,
    series TEXT NOT NULL,
    release BLOB NOT NULL,
    spender TEXT NOT NULL,
    at REAL NOT NULL,
    claims INTEGER NOT NULL
);
"""
_TOUCHED = """
SELECT DISTINCT touched FROM (
    SELECT group_concat(data) AS touched FROM (
        SELECT all_data.record, all_data.data FROM records AS mine
        JOIN records AS all_data ON all_data.record = mine.record
        WHERE mine.data = ? ORDER BY all_data.record, all_data.data
    ) GROUP BY record
)
"""


@dataclass(frozen=True)
class Booked:
    """A line of the book.

    Attributes:
        data: the number of the data in the book, and how many records they have.
        at: when it was booked, in seconds of the machine's clock then; nothing depends on it.
    """

    release: Release
    data: int
    records: int
    spender: str
    at: float


@dataclass(frozen=True)
class ReleaseGroup:
    """Releases of one mechanism by one spender over the same data.

    Attributes:
        count: how many.
    """

    release: Release
    data: int
    records: int
    spender: str
    count: int

    def alone(self, delta: float) -> float:
        """The ε that they spend together at `delta`, without the others."""
        return composed([self.release] * self.count, delta)[0].epsilon

    def __str__(self) -> str:
        times = f"{self.count} × " if self.count > 1 else ""
        over = f"{self.records} records of data {self.data}, {self.release.neighbours}"
        return f"{self.spender}: {times}{self.release.mechanism} ({over})"


def groups_of(lines: Iterable[Booked]) -> list[ReleaseGroup]:
    """`lines` of the book, those of one kind together, in the order of the first of each."""
    counts: Counter[tuple[Release, int, int, str]] = Counter()
    for line in lines:
        kind = msgspec.structs.replace(line.release, series="", draw="")
        counts[kind, line.data, line.records, line.spender] += 1
    return [ReleaseGroup(*kind, count) for kind, count in counts.items()]


class PrivacyBook:
    """The file, which any number of processes may use at once.

    What `reserve` has booked is on the disk (write-ahead log, synchronised at each commit).

    Args:
        path: made when it is not there, for its owner alone.
        write: it may be made and changed.

    Raises:
        StoreError: it cannot be opened, or is no book.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path = path
        with self._guarded():
            if write:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made_private(path)
            elif not path.is_file():
                raise StoreError(f"there is no book of ε in {str(path)!r}: nothing was spent")
            self._db = sqlite3.connect(
                path, timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
        try:
            with self._guarded():
                self._db.execute("PRAGMA synchronous = FULL")
                if write:
                    in_wal(self._db, timeout=_WAIT)
                    with transaction(self._db):
                        self._made()
                found = dict(self._db.execute("SELECT name, value FROM about"))
            if found.get("format") != _FORMAT:
                raise StoreError(f"the book {str(path)!r} is of another version of Cosilo's")
            self.key: bytes = found["key"]
            """What its hashes are made with; no two books have the same."""
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def data(self, texts: Iterable[str]) -> int:
        """The number of the data whose records have these texts, noted when they are new.

        Args:
            texts: a text that occurs twice, or that differs in case or white space only, is one record.

        Raises:
            PrivacyError: there are none.
        """
        found = sorted({hmac.digest(self.key, _plain(t), hashlib.sha256)[:16] for t in texts})
        if not found:
            raise PrivacyError(
                "a message says what it spent of the owner's records, and the owner has none, so "
                "nobody could add it up; nothing was sent"
            )
        digest = hashlib.sha256(b"".join(found)).digest()
        with self._guarded(), transaction(self._db):
            known = self._db.execute("SELECT number FROM data WHERE digest = ?", (digest,))
            for (number,) in known:
                return int(number)
            made = self._db.execute(
                "INSERT INTO data (digest, records) VALUES (?, ?)", (digest, len(found))
            )
            number = int(made.lastrowid or 0)
            self._db.executemany(
                "INSERT INTO records (record, data) VALUES (?, ?)", [(r, number) for r in found]
            )
            return number

    def require(
        self, data: int, releases: Sequence[Release], *, epsilon: float, delta: float
    ) -> None:
        """Refuse what the budget cannot bear, before anything is sent.

        Releases of a series that is in the book may be made again for nothing, so they are let pass
        here; `reserve` judges each.

        Raises:
            PrivacyBudgetError: a record would have spent more than `epsilon` at `delta`.
        """
        series = {r.series for r in releases}
        with self._guarded():
            known = {
                name
                for (name,) in self._db.execute(
                    "SELECT DISTINCT series FROM releases WHERE data = ?", (data,)
                )
                if name
            }
            if series <= known:
                return
            self._within(data, releases, epsilon, delta)

    def reserve(
        self,
        data: int,
        release: Release,
        *,
        spender: str,
        epsilon: float | None = None,
        delta: float = USUAL_DELTA,
    ) -> bytes:
        """PrivacyBook `release` over the data of that number: its id in the book.

        Args:
            spender: who spends, e.g. a run and a point of it.
            epsilon, delta: the budget of each record, whatever is booked by whom; no limit where None.

        Raises:
            PrivacyBudgetError: a record would have spent more; nothing was booked.
            PrivacyError: no mechanism has such numbers.
        """
        try:
            _decoded(_encoded(release))
        except ValueError:
            raise PrivacyError(f"no mechanism has these numbers: {release.mechanism}") from None
        id = self._id(data, release)
        with self._guarded(), transaction(self._db):
            again = self._db.execute("UPDATE releases SET claims = claims + 1 WHERE id = ?", (id,))
            if again.rowcount:
                return id
            if epsilon is not None:
                self._within(data, (release,), epsilon, delta)
            self._db.execute(
                "INSERT INTO releases (id, data, series, release, spender, at, claims)"
                " VALUES (?, ?, ?, ?, ?, ?, 1)",
                (id, data, release.series, _encoded(release), spender, time.time()),
            )
        return id

    def cancel(self, id: bytes) -> None:
        """The message that was to carry the release of this id has not left, and will not. It stays
        where another message has carried the same draw, or is about to."""
        with self._guarded(), transaction(self._db):
            self._db.execute("UPDATE releases SET claims = claims - 1 WHERE id = ?", (id,))
            self._db.execute("DELETE FROM releases WHERE id = ? AND claims <= 0", (id,))

    def figures(self, data: int, delta: float = USUAL_DELTA) -> tuple[Figure, ...]:
        """What a record of the data of that number has spent, at most, for each unit.

        Raises:
            ConfigError: not all is Gaussian noise, and dp-accounting is missing.
        """
        with self._guarded():
            return self._figures(data, (), delta)

    def lines(self, data: int | None = None) -> list[Booked]:
        """What was booked, in its order; of what has records in common with the data of that number,
        where it is given."""
        with self._guarded():
            rows = self._db.execute(
                "SELECT release, data, records, spender, at FROM releases"
                " JOIN data ON data.number = data ORDER BY releases.number"
            ).fetchall()
            near = None if data is None else {n for some in self._touched(data) for n in some}
        return [
            Booked(self._read(release), number, records, spender, at)
            for release, number, records, spender, at in rows
            if near is None or number in near
        ]

    def _within(self, data: int, more: Sequence[Release], epsilon: float, delta: float) -> None:
        for figure in self._figures(data, more, delta):
            if figure.epsilon > epsilon * (1 + _ROUNDING):
                raise PrivacyBudgetError(
                    f"ε of a {figure.unit} would reach {figure.epsilon:.4g} at δ = {delta:g} with all "
                    f"that is booked in {str(self.path)!r}, over the [privacy] budget, {epsilon:g}; "
                    "nothing was sent. `cosilo privacy` shows what made it"
                )

    def _figures(self, data: int, more: Sequence[Release], delta: float) -> tuple[Figure, ...]:
        worst: dict[str, Figure] = {}
        touched = self._touched(data)
        # ε only grows with what is composed, so data that are among others' need no figure.
        for some in (s for s in touched if not any(s < other for other in touched)):
            marks = ", ".join("?" * len(some))
            rows = self._db.execute(
                f"SELECT release FROM releases WHERE data IN ({marks}) ORDER BY number",
                tuple(some),
            )
            releases = [*(self._read(release) for (release,) in rows), *more]
            for figure in composed(releases, delta):
                if figure.epsilon >= worst.get(figure.unit, figure).epsilon:
                    worst[figure.unit] = figure
        return tuple(worst[unit] for unit in sorted(worst))

    def _touched(self, data: int) -> list[frozenset[int]]:
        """For each kind of record of these data: all data that it is in."""
        rows = self._db.execute(_TOUCHED, (data,)).fetchall()
        if not rows:
            raise StoreError(f"the book {str(self.path)!r} has no data {data}")
        return [frozenset(map(int, str(touched).split(","))) for (touched,) in rows]

    def _id(self, data: int, release: Release) -> bytes:
        if not release.draw:
            return secrets.token_bytes(32)
        what = b"%d %s" % (data, _encoded(release))
        return hmac.digest(self.key, what, hashlib.sha256)

    def _read(self, release: bytes) -> Release:
        try:
            return _decoded(release)
        except (TypeError, ValueError):  # msgspec's own errors are ValueErrors
            raise StoreError(f"the book {str(self.path)!r} holds a damaged line") from None

    def _made(self) -> None:
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        about = [("format", _FORMAT), ("key", secrets.token_bytes(32))]
        self._db.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the book {str(self.path)!r} cannot be used: {error}") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreError(f"the book {str(self.path)!r} cannot be used: {reason}") from None


def _plain(text: str) -> bytes:
    """`text` without differences that make it no other record."""
    whole = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(whole.split()).encode(errors="surrogatepass")


def _encoded(release: Release) -> bytes:
    return msgspec.msgpack.encode(release)


def _decoded(release: bytes) -> Release:
    return msgspec.msgpack.decode(release, type=Release)
