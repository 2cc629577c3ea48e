"""The literals of a question about a database: what a query compares with, not what it is about.

Numbers, dates, quoted and capitalised words, codes, prefixes ("starts with J"), and every value that
stands as a cell in the owner's own database: the owner may look there, the LM may not. Words of the
schema are public: the LM is sent the schema.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from cosilo.defences import words as ordinary
from cosilo.defences.detection import Span
from cosilo.defences.surrogates import MONTHS, SHORT_MONTHS, WORDS
from cosilo.errors import ConfigError

_MONTH = "|".join((*MONTHS, *SHORT_MONTHS, "Sept"))
_YEAR = r"(?:18|19|20)\d\d"
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(rf"(?<![\w.])(?P<value>{form})(?!\w)", re.I))
    for kind, form in (
        ("DAY", r"\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}/\d{1,2}/\d{4}"),
        ("DAY", r"\d{1,2}\.\d{1,2}\.\d{4}"),
        ("DAY", rf"(?:{_MONTH})\.?\ \d{{1,2}}(?:st|nd|rd|th)?,?\ {_YEAR}"),
        ("DAY", rf"\d{{1,2}}(?:st|nd|rd|th)?\ (?:of\ )?(?:{_MONTH})\.?,?\ {_YEAR}"),
        ("MONTH", rf"(?:{_MONTH})\.?,?\ {_YEAR}|\d{{4}}-\d\d"),
        ("DATE", rf"(?:{_MONTH})\.?\ \d{{1,2}}(?:st|nd|rd|th)?(?!\d|,?\ {_YEAR})"),
        ("DATE", rf"\d{{1,2}}(?:st|nd|rd|th)?\ (?:of\ )?(?:{_MONTH})(?!\.?,?\ {_YEAR})"),
        ("TIME", r"\d{1,2}:\d\d(?::\d\d)?(?:\ ?[ap]m)?|\d{1,2}\ ?[ap]m"),
        ("YEAR", _YEAR),
        ("NUMBER", r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,15}(?:\.\d{1,6})?"),
        ("VALUE", r"\d+(?:st|nd|rd|th|k|m|bn)"),
        ("COUNT", "|".join(w for w in WORDS if w not in ("zero", "one"))),
        ("VALUE", r"[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,5}"),
        ("VALUE", r"(?=[\w\-]{0,40}\d)(?=[\w\-]{0,40}[a-z])[a-z\d][\w\-]{2,60}"),
    )
)
_QUOTED = re.compile(
    r"(?<!\w)(?:'(?P<a>[^'\n]{1,200})'|\"(?P<b>[^\"\n]{1,200})\"|`(?P<c>[^`\n]{1,200})`"
    r"|“(?P<d>[^”\n]{1,200})”|‘(?P<e>[^’\n]{1,200})’)(?!\w)"
)
_AFFIX = re.compile(
    r"(?i:\b(?:start(?:s|ing)?|begin(?:s|ning)?|end(?:s|ing)?)\ (?:with|in)"
    r"|\b(?:contain(?:s|ing)?|including|letters?|prefix|suffix|called|named|ticker|symbol|code))"
    r"(?i:\ (?:the|a|an|letters?|prefix|suffix|string|substring|word|text|of|is|=))*"
    r"\ (?P<value>[^\W_]{1,20}(?:-[^\W_]+)*)"
)
_CAPITAL = re.compile(
    r"(?<![\w'’])(?P<value>[^\W\d_a-zß-ÿ][\w'’&.\-]{0,60}[^\W_]|[^\W\d_a-zß-ÿ])(?!\w)"
)
_STARTS = re.compile(r"(?:^|[.!?:;]\s+|\n\s*)[\"'(]?$")
_POSSESSIVE = re.compile(r"['’]s$")
_WORDS = re.compile(r"[^\W_]+(?:['’&.\-][^\W_]+)*")


_MOST_COLUMNS = 3

Index = Mapping[str, set[tuple[str, ...]]]


@dataclass(frozen=True)
class Cells:
    """What stands in one database.

    Attributes:
        tables: the names of its tables; they tell whether a schema is its schema.
        values: texts of its cells; each is private wherever a question names it.
        columns: text of a cell → the columns it stands in, as table.column.
    """

    tables: frozenset[str]
    values: frozenset[str]
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def places(self) -> Mapping[str, Mapping[bool, set[str]]]:
        """A text in small letters → the columns in which it is a whole value (True), or one word of
        a short one (False)."""
        found: dict[str, dict[bool, set[str]]] = {}
        for value, columns in self.columns.items():
            words = [w.casefold() for w in _WORDS.findall(value)]
            parts = words if 1 < len(words) <= 3 else []
            for text, whole in [(value.casefold(), True), *((word, False) for word in parts)]:
                found.setdefault(text, {}).setdefault(whole, set()).update(columns)
        return found

    @cached_property
    def index(self) -> Index:
        """First word → the values that begin with it, as words; also each word of a short value."""
        found: dict[str, set[tuple[str, ...]]] = {}
        for value in self.values:
            words = tuple(w.casefold() for w in _WORDS.findall(value))
            parts = {words} | {(w,) for w in words if len(words) <= 3 and len(w) >= 4}
            for part in parts:
                if part and len(part) <= 8 and any(not _is_common(w) for w in part):
                    found.setdefault(part[0], set()).add(part)
        return found


class LiteralDetector:
    """Args:
    values: private values; each is hidden wherever a question names it.
    databases: the owner's databases: the values of those whose tables the public text names are
        private, or of all where it names none.
    """

    def __init__(self, values: Iterable[str] = (), databases: Sequence[Cells] = ()) -> None:
        own = Cells(frozenset(), frozenset(values))
        self._databases = (*((own,) if own.values else ()), *databases)

    def detect(self, text: str, public: str = "") -> list[Span]:
        known = _vocabulary(public)
        spans = list(_formed(text, known))
        spans += _quoted(text, known)
        spans += _affixes(text, known)
        spans += _capitals(text, known)
        named = [cells for cells in self._databases if cells.tables <= known]
        for cells in named or self._databases:
            spans += _stored(text, known, cells.index)
        return spans

    def about(self, value: str, public: str) -> str:
        """What the LM may know of a hidden value: the columns of `public`'s database that it stands
        in; empty when it stands in none, or in many.
        """
        known = _vocabulary(public)
        for cells in self._databases:
            if not cells.tables or not cells.tables <= known:
                continue
            places = cells.places.get(value.casefold(), {})
            for whole, what in ((True, "a value"), (False, "part of a value")):
                if 0 < len(places.get(whole, ())) <= _MOST_COLUMNS:
                    return f"{what} of {' or '.join(sorted(places[whole]))}"
        return ""


def _formed(text: str, known: frozenset[str]) -> Iterator[Span]:
    for kind, form in _FORMS:
        for found in form.finditer(text):
            start, end = found.span("value")
            if kind not in ("NUMBER", "VALUE") or not _names_a_column(text, start, end, known):
                yield Span(start, end, kind, 0.95 if kind == "YEAR" else 0.9)


def _stored(text: str, known: frozenset[str], index: Index) -> Iterator[Span]:
    words = [(w.start(), _POSSESSIVE.sub("", w.group().casefold())) for w in _WORDS.finditer(text)]
    for i, (start, first) in enumerate(words):
        for cell in index.get(first, ()):
            here = words[i : i + len(cell)]
            if tuple(w for _, w in here) != cell:
                continue
            if not all(w in known or _is_common(w) for w in cell):
                yield Span(start, here[-1][0] + len(here[-1][1]), "VALUE", 0.8)


def _names_a_column(text: str, start: int, end: int, known: frozenset[str]) -> bool:
    """Whether the number at this place is part of a column's name: 'day 100' where the schema has
    day100_score.
    """
    if text[start:end].casefold() in known and not text[start:end].isdigit():
        return True
    before = re.search(r"([^\W\d_]+)[ \-]?$", text[max(0, start - 30) : start])
    return before is not None and f"{before[1]}{text[start:end]}".casefold() in known


def _quoted(text: str, known: frozenset[str]) -> Iterator[Span]:
    for found in _QUOTED.finditer(text):
        start, end = found.span(str(found.lastgroup))
        words = _WORDS.findall(text[start:end])
        if not words or not all(w.casefold() in known for w in words):
            yield Span(start, end, "VALUE", 1.0)


def _affixes(text: str, known: frozenset[str]) -> Iterator[Span]:
    for found in _AFFIX.finditer(text):
        word = found["value"].casefold()
        if len(word) == 1 or not (_is_common(word) or word in known):
            yield Span(*found.span("value"), "VALUE", 0.8)


def _capitals(text: str, known: frozenset[str]) -> Iterator[Span]:
    shouted = text.isupper()
    for found in _CAPITAL.finditer(text):
        start, end = found.span("value")
        end = start + len(_POSSESSIVE.sub("", found["value"]))
        word = text[start:end].casefold()
        opens = bool(_STARTS.search(text[max(0, start - 4) : start]))
        # 'US', 'IN', 'OR' and a lone 'C' are codes where small letters surround them.
        coded = text[start:end].isupper() and not shouted
        code = (
            coded and len(word) <= 2 and word not in ("i", "id") and not (opens and len(word) == 1)
        )
        if word in known and not (code and _is_common(word)):
            continue
        if code or not (_is_common(word) or (opens and not coded) or word.split("-")[0] in known):
            yield Span(start, end, "VALUE", 0.6)


def _is_common(word: str) -> bool:
    return word in ordinary.OF_QUESTIONS


@lru_cache(maxsize=256)
def _vocabulary(public: str) -> frozenset[str]:
    """The words of the schema and the instructions: whole names, their parts, and their plurals."""
    words: set[str] = set()
    for name in re.findall(r"\w+", public):
        words.add(name.casefold())
        for part in name.split("_"):
            words.add(part.casefold())
            words.update(
                p.casefold() for p in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", part)
            )
    words |= {word.removesuffix("s") for word in words if len(word) > 3}
    words |= {f"{word}s" for word in words} | {f"{word}es" for word in words}
    return frozenset(words)


def read_cells(databases: Path, longest: int = 60) -> tuple[Cells, ...]:
    """Every text of up to `longest` characters that stands in a cell of each SQLite database in a
    folder (or of the one file): database files and SQL dumps.

    Raises:
        ConfigError: there are none, or one cannot be read.
    """
    files = [databases] if databases.is_file() else sorted(databases.glob("*"))
    files = [f for f in files if f.suffix in (".sql", ".db", ".sqlite", ".sqlite3")]
    if not files:
        raise ConfigError(f"no SQLite database and no SQL dump in {str(databases)!r}")
    found: list[Cells] = []
    for file in files:
        try:
            with closing(_open(file)) as connection:
                found.append(_cells(connection, longest))
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            what = type(error).__name__
            raise ConfigError(f"the database {str(file)!r} cannot be read ({what})") from None
    return tuple(found)


def _open(file: Path) -> sqlite3.Connection:
    if file.suffix != ".sql":
        return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    connection = sqlite3.connect(":memory:")
    connection.executescript(file.read_text("utf-8"))
    return connection


def _cells(connection: sqlite3.Connection, longest: int) -> Cells:
    values: dict[str, set[str]] = {}
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = [str(row[0]) for row in rows]
    for table in tables:
        for column in connection.execute(f"PRAGMA table_info({_quote(table)})").fetchall():
            name = _quote(column[1])
            query = f"SELECT DISTINCT {name} FROM {_quote(table)} WHERE typeof({name}) = 'text'"
            for (value,) in connection.execute(f"{query} AND length({name}) <= ?", (longest,)):
                if any(c.isalpha() for c in value):
                    values.setdefault(value, set()).add(f"{table}.{column[1]}")
    columns = {value: frozenset(found) for value, found in values.items()}
    return Cells(frozenset(t.casefold() for t in tables), frozenset(values), columns)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
