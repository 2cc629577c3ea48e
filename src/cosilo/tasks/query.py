"""One query that a model wrote, on a database it may read and nothing more.

A query may select, read and call functions; whatever else it tries (write, attach, pragma, load an
extension) SQLite refuses while it is compiled. A query that takes too long, takes too much memory or
returns too much is stopped between two of SQLite's operations; what hangs or grows within one, or
while it is compiled, is stopped with the process it runs in (see `query_process`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cosilo.errors import CosiloError, DataError

Rows = list[tuple[object, ...]]

_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
# Functions that reach outside the query, or do not give the same answer twice.
_REFUSED_FUNCTIONS = frozenset(
    {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlite_log"}
    | {"random", "randomblob", "zeroblob"}
    | {"sqlite_compileoption_get", "sqlite_compileoption_used", "sqlite_offset"}
)
_CLOCK_FUNCTIONS = ("date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff")
_LONGEST_VALUE = 1 << 18
"""Bytes of one text or blob a query may build. The progress handler is not asked within a function's
call, so this (and the limit on patterns, whose matching takes text x pattern steps) shortens one."""
_OPERATIONS_PER_CHECK = 2000


class QueryError(CosiloError):
    """A query that was refused, failed or was stopped; the text holds no part of it."""


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
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


def query(path: Path, sql: str, *, clock: str = "", limits: QueryLimits = QueryLimits()) -> Rows:
    """The rows that `sql` selects from the database file `path`.

    Args:
        clock: what "now" is; the real time if empty.

    Raises:
        QueryError: not a single SELECT, not valid, or over a limit.
        DataError: the file cannot be opened.
    """
    with (
        closing(open_database(path)) as connection,
        closing(sqlite3.connect(":memory:", check_same_thread=False)) as plain,
    ):
        if clock:
            _set_clock(connection, clock, plain)
        _confine(connection)
        stopped = _watch(connection, limits)
        try:
            return _fetch(connection, sql, limits)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise QueryError(stopped() or type(error).__name__) from None
        except (UnicodeError, ValueError, OverflowError, MemoryError) as error:
            raise QueryError(type(error).__name__) from None
        finally:
            connection.set_progress_handler(None, 0)


def open_database(path: Path) -> sqlite3.Connection:
    """`path`, read-only.

    Raises:
        DataError: it cannot be opened.
    """
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


def _watch(connection: sqlite3.Connection, limits: QueryLimits) -> Callable[[], str]:
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


def _fetch(connection: sqlite3.Connection, sql: str, limits: QueryLimits) -> Rows:
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
