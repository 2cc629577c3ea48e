"""Prints text to a terminal of any width or a pipe, in any character encoding.

A terminal's lines are as wide as it is; what is longer is broken between words. A pipe has no width, so
there each thing stays on its line. Characters that cannot be written are spelt out. Names and numbers
are never cut: a table that does not fit is laid out in another way.
"""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

Style = Literal["", "bold", "dim", "good", "warning"]

_CODES: dict[Style, str] = {
    "": "",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "good": "\x1b[1;32m",
    "warning": "\x1b[1;31m",
}
_SPELT = {
    "–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "…": "...", "≤": "<=", "≥": ">=", "≈": "~",
    "±": "+/-", "∞": "inf", "→": "->", "←": "<-", "↑": "^", "↓": "v", "ε": "epsilon", "δ": "delta",
    "σ": "sigma", "“": '"', "”": '"', "‘": "'", "’": "'", "µ": "u", "€": "EUR",
}  # fmt: skip
_GAP = 2
_INDENT = 2


def spelt(text: str, encoding: str) -> str:
    """`text` with what `encoding` cannot write spelt out: "≤" as "<=", "ü" as "\\xfc"."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(c if _writes(encoding, c) else _instead(c) for c in text)


def _writes(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _instead(character: str) -> str:
    return _SPELT.get(character) or character.encode("ascii", "backslashreplace").decode()


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_instead, error.object[error.start : error.end])), error.end


def cell_len(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def never_fail() -> None:
    """Have standard output and error spell out what they cannot write instead of failing."""
    codecs.register_error("spelt", _spell_out)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="spelt")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
    heading: its lines, e.g. ("utility", "% ↑").
    right: numbers stand at the right.
    wraps: its cells may be broken between words.
    """

    heading: tuple[str, ...]
    right: bool = False
    wraps: bool = False


@dataclass(frozen=True)
class ScreenRow:
    """One line of a table: a name, and a cell for each column, each of one line or several."""

    name: str
    cells: tuple[str, ...]
    style: Style = ""


class Screen:
    """Prints to `file`, standard output by default.

    Args:
        width: of its lines; by default that of the terminal, and none where it is no terminal.
    """

    def __init__(self, file: TextIO | None = None, *, width: int | None = None) -> None:
        self._file = file or sys.stdout
        self._encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._terminal = self._file.isatty()
        if width is None and self._terminal:
            width = shutil.get_terminal_size().columns
        self._width = max(20, width) if width else None
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._styled = self._terminal and not plain

    def say(self, text: str = "", *, style: Style = "", indent: int = 0) -> None:
        """Print a paragraph; lines after its first stand `indent` further in."""
        for line in self._broken(self._spelt(text), indent):
            self._print(line, style)

    def table(self, name: str, columns: Sequence[Column], rows: Sequence[ScreenRow]) -> None:
        """Print `rows` under the heading `name` and those of `columns`, in the first way that fits: as
        a table; with each row's name above its numbers; as a list of names with their facts.
        """
        heads = [Column(self._all_spelt(c.heading), c.right, c.wraps) for c in columns]
        body = [ScreenRow(self._spelt(r.name), self._all_spelt(r.cells), r.style) for r in rows]
        first = max(cell_len(text) for text in (name, *(row.name for row in body)))
        if widths := self._widths(heads, body, first + _GAP):
            self._lines(heads, body, widths, first, name)
        elif widths := self._widths(heads, body, _INDENT):
            self._lines(heads, body, widths, None, name)
        else:
            self._records(heads, body)

    def _spelt(self, text: str) -> str:
        return spelt(text, self._encoding)

    def _all_spelt(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self._spelt, texts))

    def _widths(
        self, columns: Sequence[Column], rows: Sequence[ScreenRow], before: int
    ) -> list[int] | None:
        """How wide each column is beside `before` characters; None when they do not fit."""
        widths, least = [], []
        for at, column in enumerate(columns):
            lines = [*column.heading, *(x for row in rows for x in row.cells[at].split("\n"))]
            widths.append(max(map(cell_len, lines), default=0))
            words = [word for line in lines for word in line.split()]
            longest = max(map(cell_len, words), default=0)
            least.append(max(longest, 24) if column.wraps else widths[-1])
        over = before + sum(widths) + _GAP * (len(columns) - 1) - (self._width or sys.maxsize)
        for at in reversed(range(len(columns))):
            spare = max(0, widths[at] - least[at])
            widths[at] -= min(spare, max(0, over))
            over -= spare
        return widths if over <= 0 else None

    def _lines(
        self,
        columns: Sequence[Column],
        rows: Sequence[ScreenRow],
        widths: Sequence[int],
        first: int | None,
        name: str,
    ) -> None:
        """A table whose names stand in a column of `first` characters, or above their rows."""
        deep = max(len(column.heading) for column in columns)
        headings = [(("",) * deep + column.heading)[-deep:] for column in columns]
        names = ["", *[""] * (deep - 1)]
        names[-1] = name
        if first is None and name:
            self._print(name, "bold")
        for at, cells in enumerate(zip(*headings, strict=True)):
            self._print(self._line(names[at], cells, columns, widths, first), "bold")
        for row in rows:
            if first is None:
                self._print(row.name, row.style)
            cut = [
                [piece for line in cell.split("\n") for piece in wrapped(line, width)]
                for cell, width in zip(row.cells, widths, strict=True)
            ]
            for at in range(max(map(len, cut), default=0)):
                cells = tuple(lines[at] if at < len(lines) else "" for lines in cut)
                style: Style = row.style if at == 0 and first is not None else ""
                left = row.name if at == 0 else ""
                self._print(self._line(left, cells, columns, widths, first), style)

    def _line(
        self,
        name: str,
        cells: Sequence[str],
        columns: Sequence[Column],
        widths: Sequence[int],
        first: int | None,
    ) -> str:
        left = " " * _INDENT if first is None else name + " " * (first - cell_len(name) + _GAP)
        placed = []
        for cell, column, width in zip(cells, columns, widths, strict=True):
            space = " " * (width - cell_len(cell))
            placed.append(space + cell if column.right else cell + space)
        return (left + (" " * _GAP).join(placed)).rstrip()

    def _records(self, columns: Sequence[Column], rows: Sequence[ScreenRow]) -> None:
        headings = [" ".join(column.heading) for column in columns]
        for row in rows:
            self._print(row.name, row.style)
            for heading, cell in zip(headings, row.cells, strict=True):
                text = f"{' ' * _INDENT}{heading}: {'  '.join(cell.split(chr(10)))}"
                for line in self._broken(text, 2 * _INDENT):
                    self._print(line, "")

    def _broken(self, text: str, indent: int) -> list[str]:
        """`text` in lines that fit, words kept whole; its own lines and what they begin with stay."""
        broken = []
        for line in text.split("\n"):
            body = line.lstrip(" ")
            before = " " * (len(line) - len(body))
            pieces = wrapped(body, self._width and self._width - len(before), indent)
            broken += [before + pieces[0]]
            broken += [f"{before}{' ' * indent}{piece}" for piece in pieces[1:]]
        return broken

    def _print(self, line: str, style: Style) -> None:
        code = _CODES[style] if self._styled else ""
        print(f"{code}{line}\x1b[0m" if code and line else line, file=self._file)


def wrapped(text: str, width: int | None, indent: int = 0) -> list[str]:
    """`text` in pieces of at most `width`, broken at single spaces; a longer word stays whole."""
    if width is None or cell_len(text) <= width:
        return [text]
    pieces: list[str] = []
    line = ""
    for word in text.split(" "):
        most = width - (indent if pieces else 0)
        if line and cell_len(line) + 1 + cell_len(word) > most:
            pieces.append(line.rstrip())
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*pieces, line]
