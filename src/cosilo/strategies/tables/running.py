"""Runs a plan on the private tables, at home: read-only, for a few seconds and some rows at most."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from cosilo.strategies.tables.reading import PlanError
from cosilo.strategies.tables.verbs import FUNCTIONS, TablePlan

_LONGEST_VALUE = 1 << 18
_OPERATIONS_PER_CHECK = 2000
_ACTIONS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)


def run_plan(path: Path, plan: TablePlan, *, seconds: float, rows: int) -> str:
    """The result as lines of cells between " | ", the columns' names in the first; "(no rows)" where
    there are none.

    Raises:
        PlanError: SQLite does not take the plan, or it takes longer or gives more than it may.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000)
        connection.set_authorizer(_permitted)
        end = time.thread_time() + seconds
        connection.set_progress_handler(lambda: time.thread_time() > end, _OPERATIONS_PER_CHECK)
        try:
            cursor = connection.execute(plan.sql())
            found = cursor.fetchmany(rows + 1)
        except (sqlite3.Error, sqlite3.Warning, OverflowError, MemoryError) as error:
            late = time.thread_time() > end
            why = f"it takes longer than {seconds:g} s" if late else type(error).__name__
            raise PlanError(f"the plan does not run: {why}") from None
        finally:
            connection.set_progress_handler(None, 0)
        if len(found) > rows:
            raise PlanError(f"the plan gives more than {rows:,} rows")
        head = " | ".join(str(column[0]) for column in cursor.description)
    lines = [" | ".join("" if cell is None else str(cell) for cell in row) for row in found]
    return "\n".join([head, *(lines or ["(no rows)"])])


def _permitted(
    action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        known = FUNCTIONS | {"like", "glob", "current_date", "current_time", "current_timestamp"}
        allowed = (second or "").casefold() in known
    elif action == sqlite3.SQLITE_READ:
        allowed = not (first or "").casefold().startswith(("sqlite_", "pragma_"))
    else:
        allowed = action in _ACTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
