"""Text to SQL: graded by running it beside the gold SQL (execution match).

The system turn holds the database's schema, never a row; the user turn holds the question. An
answer is right when its rows are those of any gold alternative, as multisets; as lists where that
gold has an ORDER BY of its own (ties included, so a gold that leaves ties open is stricter than its
question). All columns count: one more or one fewer is another result. Their order does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cosilo.errors import DataError
from cosilo.tasks.base import Example, Grade
from cosilo.tasks.database import Databases
from cosilo.tasks.kinds import Form, Given, Kept, Kind, RowItem, kinds, nothing
from cosilo.tasks.query import QueryError, QueryLimits, Rows
from cosilo.tasks.results import same_result
from cosilo.tasks.text import references
from cosilo.types import Chat, Sampling, Turn

_INSTRUCTIONS = (
    "You translate questions into SQL for SQLite. Reply with one SELECT statement and nothing else."
)


@kinds.register("sql")
@dataclass(frozen=True, kw_only=True)
class Sql(Kind):
    """Options:
    databases: the folder of databases; an item's group names its own (`columns.group`).
    clock: what "now" is, e.g. "2024-06-17 10:30:00"; the machine's clock when empty.
    seconds, rows: limits of one query.
    max_tokens: the longest reply.
    literals_are_secret: the constants of the gold SQL that stand in the question are secrets.
    """

    databases: str
    clock: str = ""
    seconds: float = 5.0
    rows: int = 10_000
    max_tokens: int = 400
    literals_are_secret: bool = True

    def __post_init__(self) -> None:
        for name in ("seconds", "rows", "max_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")

    def check(self, item: RowItem) -> None:
        references(item)

    def form(self, given: Given) -> Form:
        databases = self._opened(given.folder)
        grade = ExecutionGrade(databases)
        schema = lru_cache(maxsize=None)(databases.ddl)
        system = given.instructions or _INSTRUCTIONS
        if self.clock:
            system += f" The current time is {self.clock}."

        def chat(item: RowItem) -> Chat:
            if not item.group:
                raise DataError(f"{item.row.where}: names no database (columns.group)")
            turn = f"{system}\n\nSchema:\n{schema(item.group)}"
            if item.context:
                turn += f"\n\nNotes:\n{item.context}"
            return (Turn("system", turn), Turn("user", item.text))

        def targets(item: RowItem) -> tuple[str, ...]:
            gold = references(item)
            for sql in gold:
                try:
                    grade.run(item.group, sql)
                except QueryError as error:
                    raise DataError(f"{item.row.where}: the gold SQL fails: {error}") from None
            return gold

        def secrets(item: RowItem) -> list[tuple[str, str]]:
            public = f"{schema(item.group)}\n{item.context}".casefold()
            found = dict.fromkeys(v for sql in references(item) for v in constants(sql))
            return [
                ("literal", value)
                for value in found
                if stands_in(value, item.text) and not stands_in(value, public)
            ]

        return Form(
            chat=chat,
            targets=targets,
            grade=grade,
            instructions=system,
            readable=lambda example, answer: bool(sql_in(answer)),
            sampling=Sampling(max_tokens=self.max_tokens),
            secrets=secrets if self.literals_are_secret else nothing,
        )

    def grader(self, kept: Kept) -> Grade:
        return ExecutionGrade(self._opened(kept.folder))

    def _opened(self, folder: Path) -> Databases:
        limits = QueryLimits(seconds=self.seconds, rows=self.rows)
        return Databases(folder / Path(self.databases), clock=self.clock, limits=limits)


class ExecutionGrade:
    """1.0 when the reply's SQL gives the rows of any gold alternative, else 0.0."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._gold: dict[tuple[str, str], Rows] = {}

    def run(self, database: str, gold: str) -> Rows:
        """The rows of a gold SQL; each is run once.

        Raises:
            QueryError: it fails.
        """
        if (database, gold) not in self._gold:
            self._gold[database, gold] = self._databases.query(database, gold)
        return self._gold[database, gold]

    def __call__(self, example: Example, answer: str) -> float:
        sql = sql_in(answer)
        if not sql:
            return 0.0
        try:
            found = self._databases.query(example.group, sql)
        except QueryError:
            return 0.0
        return float(
            any(
                same_result(self.run(example.group, gold), found, ordered=is_ordered(gold))
                for gold in example.targets
            )
        )


_FENCE = re.compile(r"```[ \t]*(?:sql(?:ite)?3?)?[ \t]*\r?\n?(.*?)(?:```|\Z)", re.S | re.I)
_START = re.compile(r"\b(?:WITH|SELECT)\b", re.I)


def sql_in(answer: str) -> str:
    """The SQL of a reply: out of the first code fence that holds a query, or from the first SELECT
    or WITH on; up to the end of that statement. Empty when there is none.
    """
    fenced = [block for block in _FENCE.findall(answer) if _START.search(block)]
    text = fenced[0] if fenced else answer
    start = _START.search(text)
    if start is None:
        return ""
    text = text[start.start() :]
    end = next((at for kind, at, _ in tokens(text) if kind == ";"), len(text))
    return text[:end].strip()


_TOKEN = re.compile(
    r"""(?P<string>'(?:[^']|'')*')
      | (?P<name>"(?:[^"]|"")*"|\[[^\]]*\]|`[^`]*`)
      | (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<number>\b\d+(?:\.\d+)?\b)
      | (?P<word>[^\W\d]\w*)
      | (?P<sign>[();])""",
    re.X | re.S,
)


def tokens(sql: str) -> Iterator[tuple[str, int, str]]:
    """(kind, position, text): strings, numbers, words, brackets and semicolons; no comments."""
    for found in _TOKEN.finditer(sql):
        kind = found.lastgroup or ""
        if kind != "comment":
            yield (found.group() if kind == "sign" else kind), found.start(), found.group()


def is_ordered(sql: str) -> bool:
    """Whether the whole result has an ORDER BY: one outside all brackets."""
    depth = 0
    previous = ""
    for kind, _, text in tokens(sql):
        depth += (kind == "(") - (kind == ")")
        word = text.upper() if kind == "word" else ""
        if depth == 0 and previous == "ORDER" and word == "BY":
            return True
        previous = word
    return False


def constants(sql: str) -> list[str]:
    """The constants in `sql`: texts without LIKE's signs, and numbers of three digits or more.

    Formats ('%Y-%m'), time modifiers ('-30 days') and the word 'now' are the query's, not the
    question's.
    """
    found = []
    for kind, _, text in tokens(sql):
        if kind == "string":
            inner = text[1:-1].replace("''", "'")
            if not re.search(r"%[a-zA-Z](?:[^a-zA-Z]|$)", inner):
                found.append(inner.strip("%").strip())
        elif kind == "number" and len(text.replace(".", "")) >= 3:
            found.append(text)
    modifier = re.compile(
        r"now|[+-]?\s*\d*\s*(?:second|minute|hour|day|month|year|week)s?|start of .*"
    )
    return [value for value in found if len(value) > 1 and not modifier.fullmatch(value.casefold())]


def stands_in(value: str, text: str) -> bool:
    """Whether `value` stands in `text` as whole words, in any case."""
    return bool(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.I))
