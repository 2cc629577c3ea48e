"""Tables stay at home: the large model says what to do with them, from a digest and the question.

    tables ─▶ digest (names, types, keys, about how many) ─┐
    question ─▶ cell values behind placeholders ───────────┴─▶ no cell? ─▶ defences ─▶ LM
                                                                                       │ SELECT
    answer ◀─ tables ◀─ run at home ◀─ placeholders filled ◀─ closed verbs, as data ◀──┘

The structural form of Narayan et al., "Minions: Cost-efficient Collaboration Between On-device and
Cloud Language Models" (arXiv 2502.15964): what is decomposed is a query, into verbs of a closed set
(`tables/verbs.py`). Large models write SELECT better than any language made up for the purpose, so a
SELECT is read into these verbs, and what is none of them is refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from cosilo.boundary.messages import Ask
from cosilo.errors import ConfigError, UnprotectableError
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.tables.asking import asked_of_tables
from cosilo.strategies.tables.private import PrivateDatabase, named_in, read_database
from cosilo.strategies.tables.reading import PlanError, bound, read_table_plan
from cosilo.strategies.tables.running import run_plan
from cosilo.types import Answer, Chat, Sampling

_ENDINGS = (".sqlite", ".sqlite3", ".db")
_Stamp = tuple[tuple[int, int], ...]


@strategies.register("decompose_tables")
@dataclass(frozen=True, kw_only=True)
class DecomposeTables:
    """The large model answers questions about private tables by verbs that run at home.

    Attributes:
        database: a SQLite file, or a folder of them; then a chat is about the one whose tables its
            schema names. A relative path is taken from where the process runs. It is read anew when it
            has changed, as its cells are what may not leave.
        reply: "rows", what the plan gives; or "query", the plan as SQL with the values filled in.
        tokens: of the LM's plan, at most.
        seconds, rows: what a plan may take, and give.
    """

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))
    guide: ClassVar[Guide] = Guide(
        crosses="the question without cell values, and the names, types and rough sizes of tables",
        choose="questions that a query over private tables answers, and no cell may cross",
    )

    database: str
    reply: Literal["rows", "query"] = "rows"
    tokens: int = 400
    seconds: float = 5.0
    rows: int = 1_000
    _read: dict[Path, tuple[_Stamp, PrivateDatabase]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.database:
            raise ValueError("database must name a SQLite file or a folder of them")
        for name in ("tokens", "seconds", "rows"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")

    def forecast(self) -> Forecast:
        return (Expected("answers", reads=("question", 1_500), writes=(self.tokens,)),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        found = await asyncio.to_thread(self._databases)
        facts: dict[str, float | str] = {
            "databases": len(found),
            "tables": sum(len(each.tables) for each in found),
            "different cells": sum(len(each.cells) + len(each.numbers) for each in found),
        }
        return self, session.with_card(Card(by="decompose_tables", title="tables", facts=facts))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        if any(turn.tool_calls or turn.other_texts or turn.extra for turn in chat):
            raise UnprotectableError(
                "tools and files cannot be asked about with decompose_tables, so nothing was sent"
            )
        database = await asyncio.to_thread(self._about, chat)
        asked, hidden = await asyncio.to_thread(asked_of_tables, database, chat)
        sampling = Sampling(max_tokens=self.tokens)  # nothing of the caller's, such as stop words
        reply = await session.lm.send(Ask(chat=asked, sampling=sampling))

        def carried_out() -> str:
            plan = read_table_plan(reply.generation.text, database.names, hidden.values)
            known = {table.name.casefold() for table in database.tables}
            if not plan.tables() <= known:
                raise PlanError("the plan scans a table that is none of the database's")
            plan = bound(plan, hidden.values, database.linked)
            if self.reply == "query":
                return plan.sql()
            return run_plan(database.path, plan, seconds=self.seconds, rows=self.rows)

        text = await asyncio.to_thread(carried_out)
        done = msgspec.structs.replace(
            reply.generation, text=text, tokens=(), tool_calls=(), other_texts=(), extra=""
        )
        return Answer(done, by="both")

    def _about(self, chat: Chat) -> PrivateDatabase:
        """The database that `chat` is about.

        Raises:
            UnprotectableError: it names the tables of none, or of several.
        """
        found = self._databases()
        if len(found) > 1:
            text = "\n".join(turn.content for turn in chat)
            found = [each for each in found if named_in(text, each)]
        if len(found) != 1:
            raise UnprotectableError(
                f"the chat names the tables of {len(found)} databases, not of one, so nothing was "
                "sent: put its schema into the system turn, or give `database` one file"
            )
        return found[0]

    def _databases(self) -> list[PrivateDatabase]:
        given = Path(self.database)
        files = sorted(given.iterdir()) if given.is_dir() else [given]
        files = [file for file in files if file.suffix in _ENDINGS or file == given]
        if not files or not all(file.is_file() for file in files):
            raise ConfigError(
                f"database: {self.database!r} is no SQLite file and no folder of them"
            )
        found = []
        for file in files:
            stamp = _stamp(file)
            if file not in self._read or self._read[file][0] != stamp:
                self._read[file] = (stamp, read_database(file))
            found.append(self._read[file][1])
        return found


def _stamp(file: Path) -> _Stamp:
    """Changes when the file does, or its write-ahead log."""
    stats = [each.stat() for each in (file, file.with_name(f"{file.name}-wal")) if each.exists()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
