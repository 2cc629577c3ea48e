"""What is wrong with rows of data, said all at once and in the order of the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cosilo.errors import DataError
from cosilo.tasks.files import FileRow

_SHOWN = 20


class Faults:
    """Errors of rows, gathered while the rest is read.

    >>> faults = Faults()
    >>> for row in rows:
    ...     with faults.noting(row):
    ...         check(row)
    >>> faults.refuse()
    DataError: data.csv line 3: the target column is empty; 2 more rows are like it: line 8, line 9
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[FileRow]] = {}  # what is wrong → where

    def __bool__(self) -> bool:
        return bool(self._rows)

    @contextmanager
    def noting(self, row: FileRow) -> Iterator[None]:
        """Note a DataError about `row` instead of raising it."""
        try:
            yield
        except DataError as error:
            self._rows.setdefault(str(error).removeprefix(row.where).lstrip(": "), []).append(row)

    def refuse(self, advice: str = "") -> None:
        """Raise what was noted, if anything.

        Args:
            advice: what would do besides mending the rows.

        Raises:
            DataError: with every row, up to some.
        """
        if self._rows:
            said = "; also ".join(_said(what, rows) for what, rows in self._rows.items())
            empty = any("empty" in what for what in self._rows)
            raise DataError(f"{said}; {advice}" if advice and empty else said)


def _said(what: str, rows: list[FileRow]) -> str:
    first, *others = rows
    if not others:
        return f"{first.where}: {what}"
    file = first.where.rsplit(" ", 2)[0]
    shown = [r.where.removeprefix(f"{file} ") for r in others[:_SHOWN]]
    more = ", …" if len(others) > _SHOWN else ""
    alike = "row is" if len(others) == 1 else "rows are"
    return f"{first.where}: {what}; {len(others):,} more {alike} like it: {', '.join(shown)}{more}"
