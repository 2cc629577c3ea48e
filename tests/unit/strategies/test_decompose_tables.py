"""No cell value crosses, whatever is asked; the verbs run at home."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import ConfigError, UnexpectedReplyError, UnprotectableError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Chat, ToolCall, Turn, user


def made(
    file: Path, table: str = "patients", names: tuple[str, ...] = ("Ada", "Ben", "Cid")
) -> Path:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT, city TEXT)")
        rows = [(name, ("Bristol", "Exeter")[i % 2]) for i, name in enumerate(names)]
        connection.executemany(f"INSERT INTO {table} (name, city) VALUES (?, ?)", rows)
    return file


def replied(
    database: Path,
    chat: Chat,
    says: str | Callable[[str], str],
    *,
    pseudonyms: Path | None = None,
    **options: object,
) -> tuple[str, str]:
    """What the strategy answers, and all that the LM read."""
    read: list[str] = []

    def say(asked: Chat) -> str:
        read.append("\n".join(turn.content for turn in asked))
        return says if isinstance(says, str) else says(read[-1])

    strategy = strategies.create("decompose_tables", database=str(database), **options)
    around = []
    if pseudonyms:
        around = [
            defences.create(
                "pseudonym", detectors=["literals"], system="public", replies="sql",
                key_file=pseudonyms,
            )
        ]  # fmt: skip

    async def run() -> str:
        session = open_session(
            DataOwner(ScriptedModel({})),
            LMOwner(ScriptedModel(say)),
            strategy,
            defences=around,
            ledger=MemoryLedger(),
        )
        prepared, session = await strategy.prepare(session)
        assert session.cards[-1].by == "decompose_tables"
        return (await prepared.answer(session.bind("one"), chat)).text

    return asyncio.run(run()), "\n".join(read)


def test_the_rows_come_from_home_and_no_cell_crosses(tmp_path: Path) -> None:
    file = made(tmp_path / "x.sqlite")
    said, read = replied(
        file,
        user("Who is from EXETER?"),
        "```sql\nSELECT name, id AS number FROM patients WHERE city = :value_a\n```",
    )
    assert said == "name | number\nBen | 2"
    assert "exeter" not in read.casefold()
    assert "Ben" not in read
    assert "Who is from :value_a?" in read
    assert ":value_a is a value of patients.city" in read


def test_the_query_can_be_had_instead(tmp_path: Path) -> None:
    said, _ = replied(
        made(tmp_path / "x.sqlite"),
        user("Who is from exeter?"),
        'SELECT name FROM patients WHERE city = ":value_a"',
        reply="query",
    )
    assert said == "SELECT name FROM patients WHERE (city = 'Exeter')"


def test_other_literals_stay_home_behind_pseudonyms(tmp_path: Path) -> None:
    def says(read: str) -> str:
        town = read.split("Who is from ")[1].split(" or ")[0]
        return f"SELECT count(*) AS n FROM patients WHERE city IN ('{town}', :value_a)"

    said, read = replied(
        made(tmp_path / "x.sqlite"),
        user("Who is from Tiverton or Exeter?"),
        says,
        pseudonyms=tmp_path / "key",
    )
    assert said == "n\n1"
    assert "Tiverton" not in read
    assert "Exeter" not in read


@pytest.mark.parametrize(
    "says",
    [
        "DROP TABLE patients",
        "SELECT name FROM patients WHERE city = :value_b",
        "SELECT sql FROM sqlite_master",
        "SELECT name FROM other",
        "SELECT secret FROM patients",
        "SELECT a.id FROM patients a, patients b, patients c",  # 27 rows are more than `rows`
        "I do not know.",
    ],
)
def test_a_plan_that_is_none_is_refused_and_nothing_changes(tmp_path: Path, says: str) -> None:
    file = made(tmp_path / "x.sqlite")
    before = file.read_bytes()
    with pytest.raises(UnexpectedReplyError) as caught:
        replied(file, user("Who is from Exeter?"), says, rows=20)
    assert "Exeter" not in str(caught.value)
    assert file.read_bytes() == before


def test_a_plan_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    file = made(tmp_path / "x.sqlite", names=tuple(f"name {i}" for i in range(300)))
    slow = (
        "SELECT COUNT(*) FROM patients a, patients b, patients c, patients d WHERE a.id + d.id < 0"
    )
    with pytest.raises(UnexpectedReplyError, match=r"longer than 0\.05 s"):
        replied(file, user("How many?"), slow, seconds=0.05)


def test_an_empty_table_is_asked_about_too(tmp_path: Path) -> None:
    file = made(tmp_path / "x.sqlite", names=())
    said, read = replied(file, user("Who is there?"), "SELECT name FROM patients")
    assert said == "name\n(no rows)"
    assert "about" not in read.split("CREATE TABLE")[1]


def test_rows_that_came_since_are_private_too(tmp_path: Path) -> None:
    file = made(tmp_path / "x.sqlite")
    strategy = strategies.create("decompose_tables", database=str(file), reply="query")
    read: list[str] = []

    def say(chat: Chat) -> str:
        read.append(str(chat))
        return "SELECT 1"

    session = open_session(DataOwner(ScriptedModel({})), LMOwner(ScriptedModel(say)), strategy)
    asyncio.run(strategy.answer(session, user("Is it Zoe?")))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO patients (name) VALUES ('Zoe')")
    asyncio.run(strategy.answer(session, user("Is it Zoe?")))
    assert ["Zoe" in each for each in read] == [True, False]


def test_of_several_databases_the_schema_tells_which(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    made(folder / "a.sqlite", "patients")
    made(folder / "b.db", "drivers", ("Dan",))
    chat = (Turn("system", "CREATE TABLE drivers (id, name, city);"), *user("Who drives?"))
    said, _ = replied(folder, chat, "SELECT name FROM drivers")
    assert said == "name\nDan"
    with pytest.raises(UnprotectableError, match="0 databases"):
        replied(folder, user("Who?"), "SELECT 1")


def test_what_is_no_text_is_not_sent(tmp_path: Path) -> None:
    turn = Turn("user", "Who?", tool_calls=(ToolCall("1", "f", "{}"),))
    with pytest.raises(UnprotectableError, match="tools"):
        replied(made(tmp_path / "x.sqlite"), (turn,), "SELECT 1")


def test_options_are_checked_before_anything_is_asked(tmp_path: Path) -> None:
    for wrong in ({"database": ""}, {"rows": 0}, {"seconds": -1}, {"tokens": 0}):
        with pytest.raises(ConfigError):
            strategies.create("decompose_tables", **{"database": "x", **wrong})
    with pytest.raises(ConfigError, match="no SQLite file"):
        replied(tmp_path / "none.sqlite", user("Who?"), "SELECT 1")
