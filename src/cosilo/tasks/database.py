"""SQLite databases that a model's SQL may read and nothing more (see `query`)."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from contextlib import closing
from pathlib import Path

from cosilo.errors import DataError
from cosilo.registry import unknown
from cosilo.tasks.query import QueryLimits, Rows, open_database
from cosilo.tasks.query_process import QueryProcess

_ENDINGS = (".sql", ".sqlite", ".sqlite3", ".db")


class Databases:
    """The databases of one folder, by name: NAME.sql (a dump), NAME.sqlite, .sqlite3 or .db.

    A dump is built once into a file in a private temporary folder, which goes with this object.

    Args:
        clock: what "now" is in every query, e.g. "2024-06-17 10:30:00"; the real one if empty.

    Raises:
        DataError: no such folder, or it holds no database.
    """

    def __init__(self, folder: Path, *, clock: str = "", limits: QueryLimits | None = None) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of databases")
        self._sources = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in _ENDINGS}
        if not self._sources:
            raise DataError(f"{folder}: holds no database ({', '.join(_ENDINGS)})")
        self._folder = folder
        self._clock = checked_clock(clock)
        self._limits = limits or QueryLimits()
        self._process = QueryProcess()
        self._built: dict[str, Path] = {}
        self._temporary: Path | None = None

    def path(self, name: str) -> Path:
        """The SQLite file of database `name`.

        Raises:
            DataError: no such database, or its dump does not build.
        """
        if name not in self._sources:
            raise DataError(f"{self._folder}: {unknown('database', name, self._sources)}")
        source = self._sources[name]
        if source.suffix != ".sql":
            return source
        if name not in self._built:
            if self._temporary is None:
                self._temporary = Path(tempfile.mkdtemp(prefix="cosilo-sql-"))
                weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
            target = self._temporary / f"{name}.sqlite"
            _build(source, target)
            self._built[name] = target
        return self._built[name]

    def ddl(self, name: str) -> str:
        """The CREATE TABLE and CREATE VIEW statements, comments kept; never a row."""
        with closing(open_database(self.path(name))) as connection:
            try:
                found = connection.execute(
                    "SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') "
                    "AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
                ).fetchall()
            except sqlite3.Error:
                raise DataError(f"{self._sources[name]}: not a SQLite database") from None
        return ";\n".join(sql.strip() for (sql,) in found) + ";"

    def query(self, name: str, sql: str) -> Rows:
        """The rows that `sql` selects.

        Raises:
            QueryError: not a single SELECT, not valid, or over a limit.
            DataError: no such database, or it cannot be opened.
        """
        return self._process.query(self.path(name), sql, clock=self._clock, limits=self._limits)


def checked_clock(clock: str) -> str:
    """`clock` as given.

    Raises:
        DataError: not a time that SQLite understands, or not a fixed one.
    """
    if clock:
        with closing(sqlite3.connect(":memory:")) as connection:
            (known,) = connection.execute("SELECT datetime(?)", (clock,)).fetchone()
        if known is None or clock.strip().casefold() == "now":
            raise DataError(f"clock: {clock!r} is no fixed time like '2024-06-17 10:30:00'")
    return clock


def _build(source: Path, target: Path) -> None:
    try:
        dump = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 at byte {error.start}") from None
    with closing(sqlite3.connect(target)) as connection:
        # A dump comes with the owner's data, but it need not reach other files either.
        connection.set_authorizer(
            lambda action, *_: (
                sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK
            )
        )
        try:
            connection.executescript(dump)
        except (sqlite3.Error, ValueError) as error:
            raise DataError(f"{source}: the dump does not build ({type(error).__name__})") from None
