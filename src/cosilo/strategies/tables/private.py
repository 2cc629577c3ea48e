"""A private database: what may be said of it, and its cell values in what is about to be said.

    tables, columns, keys, about how many ──▶ digest                     ┐
    question, notes ──▶ each cell value gives way to :value_a, :value_b …├─▶ no cell left? ─▶ leaves
    comments of the schema ─────────────▶ the same                       ┘        └─▶ else PrivacyError

A digest never holds a minimum, maximum, mode or sample: these are cell values. Counts are rounded to
5, 10, 20, 50 … and none below five is told.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, product
from pathlib import Path
from string import ascii_lowercase

from cosilo.errors import ConfigError, PrivacyError

SMALLEST = 5
"""Rows or values of which fewer are not counted."""

MOST_CELLS = 2_000_000
_FEW = 20
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w])")
_NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_TYPE = re.compile(r"[A-Za-z][A-Za-z ]{0,30}(?:\(\d{1,4}(?:, ?\d{1,4})?\))?")
_HELD = re.compile(r":value_[a-z]+")
_FRAME = "create table primary key not null references about rows few different values"
"""Words that a digest has whatever stands in the database, so they tell nothing of it."""

Words = tuple[str, ...]


@dataclass(frozen=True)
class PrivateColumn:
    """A column: its declaration without defaults and checks, and its comment in the schema."""

    name: str
    type: str
    key: bool
    filled: bool
    target: str
    spread: str
    comment: str


@dataclass(frozen=True)
class PrivateTable:
    """A table and about how many rows it has; "" where fewer than five."""

    name: str
    rows: str
    columns: tuple[PrivateColumn, ...]


@dataclass(frozen=True)
class HiddenCells:
    """Texts whose cell values gave way to placeholders.

    Attributes:
        texts: as they may leave.
        values: placeholder, as ":value_a" → what stood there.
        columns: placeholder → the columns that have such a value.
    """

    texts: tuple[str, ...]
    values: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PrivateDatabase:
    """What one SQLite file holds, read once.

    Attributes:
        cells: words of a text cell, in small letters → the columns it stands in.
        numbers: those that say which row they are of: four digits and more, and no year.
        stored: a column's name in small letters → its texts as they are written.
    """

    path: Path
    tables: tuple[PrivateTable, ...]
    cells: Mapping[Words, tuple[str, ...]]
    numbers: frozenset[float]
    stored: Mapping[str, frozenset[str]]

    @cached_property
    def names(self) -> frozenset[str]:
        """Tables and columns, in small letters."""
        columns = (c.name for t in self.tables for c in t.columns)
        return frozenset(n.casefold() for n in (*(t.name for t in self.tables), *columns))

    @cached_property
    def _public(self) -> frozenset[str]:
        words = set(_FRAME.split())
        for table in self.tables:
            for name in (table.name, *(c.name for c in table.columns)):
                words |= {w.casefold() for w in (*_WORD.findall(name), *_NAME_PART.findall(name))}
            for column in table.columns:
                words |= {w.casefold() for w in _WORD.findall(column.type)}
        words |= {w.removesuffix("s") for w in words if len(w) > 3}
        return frozenset(words | {f"{w}s" for w in words})

    @cached_property
    def _index(self) -> Mapping[str, tuple[Words, ...]]:
        found: dict[str, list[Words]] = {}
        for cell in self.cells:
            if not all(word in self._public for word in cell):
                found.setdefault(cell[0], []).append(cell)
        return {w: tuple(sorted(cells, key=len, reverse=True)) for w, cells in found.items()}

    def found(self, text: str) -> Iterator[tuple[int, int, Words]]:
        """(start, end, words) of each cell value in `text`, from left to right; the longest of those
        that begin at the same word. Words of tables' and columns' names are no cell values."""
        spans = [(m.start(), m.end(), m[0].casefold()) for m in _WORD.finditer(text)]
        numbers = {}
        for m in _NUMBER.finditer(text):
            digits = m[0].replace(",", "")
            if _telling(digits) and float(digits) in self.numbers:
                numbers[m.start()] = m.end()
        held = [m.span() for m in _HELD.finditer(text)]
        end = 0
        for i, (start, _, first) in enumerate(spans):
            if start < end or any(a <= start < b for a, b in held):
                continue
            if start in numbers:
                end = numbers[start]
                yield start, end, (text[start:end],)
                continue
            for cell in self._index.get(first, ()):
                here = spans[i : i + len(cell)]
                if tuple(word for _, _, word in here) == cell:
                    end = here[-1][1]
                    yield start, end, cell
                    break

    def hide(self, texts: Iterable[str]) -> HiddenCells:
        """`texts` with a placeholder for each cell value, the same for the same value."""
        given: dict[Words, str] = {}
        values: dict[str, str] = {}
        columns: dict[str, tuple[str, ...]] = {}
        names = _placeholders()
        written = []
        for text in texts:
            free = _HELD.sub(lambda m: m[0][1:], text)  # one that the asker wrote is none
            at, parts = 0, []
            for start, end, cell in self.found(free):
                if cell not in given:
                    given[cell] = name = next(names)
                    values[name] = free[start:end]
                    columns[name] = self.cells.get(cell, ())
                parts += [free[at:start], given[cell]]
                at = end
            written.append("".join([*parts, free[at:]]))
        return HiddenCells(tuple(written), values, columns)

    def no_cells(self, *texts: str) -> None:
        """Refuse what holds a cell value.

        Raises:
            PrivacyError: it does.
        """
        there = sum(1 for text in texts for _ in self.found(text))
        if there:
            raise PrivacyError(
                f"{there} cell values of the private tables stand in what would leave; not sent"
            )

    def digest(self) -> str:
        """The tables as CREATE TABLE statements, with comments that may hold cell values still."""
        return "\n".join(_declared(table) for table in self.tables)

    def linked(self, column: str, value: str) -> str:
        """`value` as the column has it: in its capitals, or as the one text that it begins or that
        begins it; `value` itself where there is no such text."""
        stored = self.stored.get(column.casefold(), frozenset())
        if value in stored or not value:
            return value
        low = value.casefold()
        same = sorted(s for s in stored if s.casefold() == low)
        if same:
            return same[0]
        near = {s for s in stored if _begins(s.casefold(), low) or _begins(low, s.casefold())}
        return near.pop() if len(near) == 1 else value


def named_in(text: str, database: PrivateDatabase) -> bool:
    """Whether `text` names all tables of `database`."""
    words = {word.casefold() for word in re.findall(r"\w+", text)}
    return all(words >= set(re.findall(r"\w+", t.name.casefold())) for t in database.tables)


def _begins(one: str, other: str) -> bool:
    return len(one) >= 4 and other.startswith(one)


def _placeholders() -> Iterator[str]:
    for length in count(1):
        for letters in product(ascii_lowercase, repeat=length):
            yield f":value_{''.join(letters)}"


def _declared(table: PrivateTable) -> str:
    lines = []
    for column in table.columns:
        line = " ".join(filter(None, (_quoted(column.name), column.type)))
        line += " PRIMARY KEY" if column.key else " NOT NULL" if column.filled else ""
        line += f" REFERENCES {column.target}" if column.target else ""
        lines.append((line, "; ".join(filter(None, (column.comment, column.spread)))))
    last = len(lines) - 1
    body = "\n".join(
        f"  {line}{',' if i < last else ''}{f' -- {note}' if note else ''}"
        for i, (line, note) in enumerate(lines)
    )
    about = f" -- {table.rows}" if table.rows else ""
    return f"CREATE TABLE {_quoted(table.name)} ({about}\n{body}\n);"


def _quoted(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_]\w*", name):
        return name
    return '"' + name.replace('"', '""') + '"'


def read_database(path: Path) -> PrivateDatabase:
    """The tables of a SQLite file.

    Raises:
        ConfigError: it cannot be read, holds no table, or more cells than are kept in memory.
    """
    try:
        address = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            return _read(connection, path)
    except (sqlite3.Error, OSError) as error:
        what = type(error).__name__
        raise ConfigError(f"the database {str(path)!r} cannot be read ({what})") from None


def _read(connection: sqlite3.Connection, path: Path) -> PrivateDatabase:
    cells: dict[Words, set[str]] = {}
    numbers: set[float] = set()
    stored: dict[str, set[str]] = {}
    tables = []
    made = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    for table, sql in made:
        (rows,) = connection.execute(f"SELECT COUNT(*) FROM {_own(table)}").fetchone()
        targets = {
            row[3].casefold(): f"{_quoted(row[2])}({_quoted(row[4])})"
            if row[4]
            else _quoted(row[2])
            for row in connection.execute(f"PRAGMA foreign_key_list({_own(table)})").fetchall()
        }
        columns = []
        for _, name, kind, filled, _, key in connection.execute(
            f"PRAGMA table_info({_own(table)})"
        ).fetchall():
            texts = 0
            for (value,) in connection.execute(f"SELECT DISTINCT {_own(name)} FROM {_own(table)}"):
                _keep(value, f"{table}.{name}", cells, numbers)
                if isinstance(value, str):
                    texts += 1
                    stored.setdefault(name.casefold(), set()).add(value)
                if len(cells) + len(numbers) > MOST_CELLS:
                    raise ConfigError(
                        f"the database {str(path)!r} holds more than {MOST_CELLS:,} different "
                        "cells: give `database` a file with the tables that are asked about"
                    )
            columns.append(
                PrivateColumn(
                    name=name,
                    type=kind if _TYPE.fullmatch(kind) else "",
                    key=bool(key),
                    filled=bool(filled),
                    target=targets.get(name.casefold(), ""),
                    spread=_spread(texts, rows),
                    comment=_comment(sql or "", name),
                )
            )
        tables.append(PrivateTable(table, _about(rows), tuple(columns)))
    if not tables:
        raise ConfigError(f"the database {str(path)!r} holds no table")
    return PrivateDatabase(
        path,
        tuple(tables),
        {cell: tuple(sorted(where)) for cell, where in cells.items()},
        frozenset(numbers),
        {name: frozenset(texts) for name, texts in stored.items()},
    )


def _own(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _keep(value: object, where: str, cells: dict[Words, set[str]], numbers: set[float]) -> None:
    if isinstance(value, str):
        words = tuple(w.casefold() for w in _WORD.findall(value))
        if len("".join(words)) >= 3 and (len(words) > 1 or not words[0].isdigit()):
            cells.setdefault(words, set()).add(where)
        elif words and _telling(value.strip()):
            numbers.add(float(value))
    elif isinstance(value, int | float) and _telling(f"{abs(value):.10g}"):
        numbers.add(abs(float(value)))


def _telling(number: str) -> bool:
    """Whether it says which row it is of: four digits that count, and no year."""
    if not re.fullmatch(r"\d+(?:\.\d+)?", number, re.A):
        return False
    digits = number.replace(".", "").strip("0")
    return len(digits) >= 4 and not re.fullmatch(r"(?:18|19|20)\d\d", number)


def _about(rows: int) -> str:
    return f"about {_rounded(rows)} rows" if rows >= SMALLEST else ""


def _rounded(number: int) -> int:
    """The nearest of 5, 10, 20, 50, 100, 200 …"""
    steps = [int(f"{digit}{'0' * zeros}") for zeros in range(19) for digit in (1, 2, 5)][2:]
    return min(steps, key=lambda step: abs(step - number))


def _spread(values: int, rows: int) -> str:
    """A class of how many different texts a column has; "" where it would count fewer than five."""
    few = rows >= SMALLEST and 0 < values < _FEW and 2 * values < rows
    return "few different values" if few else ""


def _comment(sql: str, column: str) -> str:
    """What the schema says of a column, behind its declaration on the same line."""
    declared = (
        rf'^\s*(?:\w+ TABLE [^\n(]*\()?\s*["`\[]?{re.escape(column)}["`\]]?\s[^\n]*?--[ \t]*(.*)$'
    )
    found = re.search(declared, sql, re.M | re.I)
    return found[1].strip() if found else ""
