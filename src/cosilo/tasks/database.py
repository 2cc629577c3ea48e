"""SQLite databases that a model's SQL may read and nothing more.

Each database is a file opened read-only. A query may select, read and call functions; whatever else
it tries (write, attach, pragma, load an extension) SQLite refuses while it is compiled. A query
that takes too long, takes too much memory or returns too much is stopped.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cosilo.errors import CosiloError, DataError
from cosilo.registry import unknown

Rows = list[tuple[object, ...]]

_ENDINGS = (".sql", ".sqlite", ".sqlite3", ".db")
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
# Functions that reach outside the query, or do not give the same answer twice.
_REFUSED_FUNCTIONS = frozenset(
    {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlite_log"}
    | {"random", "randomblob", "zeroblob"}
    | {"sqlite_compileoption_get", "sqlite_compileoption_used", "sqlite_offset"}
)
_CLOCK_FUNCTIONS = ("date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff")
_LONGEST_VALUE = 1 << 18
"""Bytes of one text or blob a query may build. Nothing stops a query within one function call, so
this (and the limit on patterns, whose matching takes text x pattern steps) bounds such a call."""
_OPERATIONS_PER_CHECK = 2000


class QueryError(CosiloError):
    """A query that was refused, failed or was stopped; the text holds no part of it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one query may take.

    Attributes:
        seconds: CPU time of the thread that runs it.
        rows: of the result.
        result_bytes: of the result's texts and blobs.
        memory_bytes: by which the process may grow.
    """

    seconds: float = 5.0
    rows: int = 10_000
    result_bytes: int = 16 << 20
    memory_bytes: int = 512 << 20


class Databases:
    """The databases of one folder, by name: NAME.sql (a dump), NAME.sqlite, .sqlite3 or .db.

    A dump is built once into a file in a private temporary folder, which goes with this object.

    Args:
        clock: what "now" is in every query, e.g. "2024-06-17 10:30:00"; the real one if empty.

    Raises:
        DataError: no such folder, or it holds no database.
    """

    def __init__(self, folder: Path, *, clock: str = "", limits: Limits = Limits()) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of databases")
        self._sources = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in _ENDINGS}
        if not self._sources:
            raise DataError(f"{folder}: holds no database ({', '.join(_ENDINGS)})")
        self._folder = folder
        self._clock = checked_clock(clock)
        self._limits = limits
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
        with closing(_open(self.path(name))) as connection:
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
        """
        with (
            closing(_open(self.path(name))) as connection,
            closing(sqlite3.connect(":memory:", check_same_thread=False)) as plain,
        ):
            if self._clock:
                _set_clock(connection, self._clock, plain)
            _confine(connection)
            stopped = _watch(connection, self._limits)
            try:
                return _fetch(connection, sql, self._limits)
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise QueryError(stopped() or type(error).__name__) from None
            except (UnicodeError, ValueError, OverflowError, MemoryError) as error:
                raise QueryError(type(error).__name__) from None
            finally:
                connection.set_progress_handler(None, 0)


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


def _open(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None, cached_statements=0)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # no row is ever spilled to a file
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be opened ({type(error).__name__})") from None
    return connection


def _confine(connection: sqlite3.Connection) -> None:
    if hasattr(connection, "enable_load_extension"):  # a build without them needs no ban
        connection.enable_load_extension(False)
    for limit, value in (
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 50_000),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
        (sqlite3.SQLITE_LIMIT_COLUMN, 500),
    ):
        connection.setlimit(limit, value)

    def permit(
        action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
    ) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").casefold() not in _REFUSED_FUNCTIONS
        elif action == sqlite3.SQLITE_READ:
            allowed = not (first or "").casefold().startswith(("sqlite_", "pragma_", "dbstat"))
        else:
            allowed = action in _ALLOWED
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    connection.set_authorizer(permit)


def _watch(connection: sqlite3.Connection, limits: Limits) -> Callable[[], str]:
    """Stop the query at its limits; the function returned says which one, or ""."""
    deadline = time.thread_time() + limits.seconds
    most_memory = _memory() + limits.memory_bytes
    reason = ""

    def check() -> int:
        nonlocal reason
        if time.thread_time() > deadline:
            reason = f"stopped after {limits.seconds:g} s"
        elif _memory() > most_memory:
            reason = f"stopped at {limits.memory_bytes >> 20} MiB"
        return bool(reason)

    connection.set_progress_handler(check, _OPERATIONS_PER_CHECK)
    return lambda: reason


def _memory() -> int:
    """Resident bytes of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _fetch(connection: sqlite3.Connection, sql: str, limits: Limits) -> Rows:
    rows: Rows = []
    size = 0
    cursor = connection.execute(sql)
    if cursor.description is None:
        raise QueryError("not a query")
    for row in cursor:
        size += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
        if len(rows) >= limits.rows:
            raise QueryError(f"more than {limits.rows:,} rows")
        if size > limits.result_bytes:
            raise QueryError(f"more than {limits.result_bytes >> 20} MiB of result")
        rows.append(row)
    return rows


def _set_clock(connection: sqlite3.Connection, clock: str, plain: sqlite3.Connection) -> None:
    """Answer every question for the time of day with `clock`; `plain` does the arithmetic."""

    def frozen(name: str) -> Callable[..., str | int | float | None]:
        def call(*arguments: object) -> str | int | float | None:
            # strftime takes a format first; the others start with a time. No time means now.
            head, times = (arguments[:1], arguments[1:]) if name == "strftime" else ((), arguments)
            if name == "timediff":
                fixed = [_fixed(value, clock) for value in times]
            else:
                fixed = [_fixed(times[0], clock) if times else clock, *times[1:]]
                # The machine's time zone must not move a frozen clock.
                fixed = [v for v in fixed if str(v).strip().casefold() not in ("localtime", "utc")]
            values = [*head, *fixed]
            marks = ", ".join("?" * len(values))
            with suppress(sqlite3.Error):
                (result,) = plain.execute(f"SELECT {name}({marks})", values).fetchone()
                return result if isinstance(result, str | int | float) else None
            return None

        return call

    for name in _CLOCK_FUNCTIONS:
        connection.create_function(name, -1, frozen(name), deterministic=True)
    for name, function in (("date", "date"), ("time", "time"), ("timestamp", "datetime")):
        (value,) = plain.execute(f"SELECT {function}(?)", (clock,)).fetchone()
        connection.create_function(f"current_{name}", 0, lambda v=value: v, deterministic=True)


def _fixed(value: object, clock: str) -> object:
    return clock if isinstance(value, str) and value.strip().casefold() == "now" else value
