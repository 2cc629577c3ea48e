"""A digest tells sizes roughly and no value; cell values give way to placeholders."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.errors import ConfigError, PrivacyError
from cosilo.strategies.tables.asking import asked_of_tables
from cosilo.strategies.tables.private import HiddenCells, PrivateDatabase, read_database
from cosilo.types import Turn, user

DDL = """CREATE TABLE wards (code TEXT PRIMARY KEY DEFAULT 'zebra', floor INT CHECK (floor < 7741));
CREATE TABLE patients (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  ward TEXT REFERENCES wards(code), -- possible values: maple, birch, other
  kind "ENUM('gold')",
  weight REAL,
  born TEXT
);
CREATE TABLE empty_one (note TEXT, "odd name" TEXT);
"""
NAMES = ["Ada Lovelace", "Grace Hopper", "Émile Zola", "d'Artagnan", "Bo", "7319 Quay St."]


@pytest.fixture
def database(tmp_path: Path) -> PrivateDatabase:
    file = tmp_path / "clinic.sqlite"
    with closing(sqlite3.connect(file)) as made, made:
        made.executescript(DDL)
        made.executemany("INSERT INTO wards VALUES (?, ?)", [("maple", 1), ("birch", 2)])
        made.executemany(
            "INSERT INTO patients VALUES (?, ?, ?, 'gold', ?, ?)",
            [
                (
                    i,
                    NAMES[i % 6],
                    ["maple", "birch"][i % 2],
                    61.375 + i,
                    f"2001-02-{i % 28 + 1:02d}",
                )
                for i in range(97)
            ],
        )
    return read_database(file)


def test_the_digest_tells_names_types_keys_and_rough_sizes(database: PrivateDatabase) -> None:
    digest = database.digest()
    assert "CREATE TABLE patients ( -- about 100 rows" in digest
    assert "id INTEGER PRIMARY KEY" in digest
    assert "ward TEXT REFERENCES wards(code), --" in digest
    assert "few different values" in digest
    assert '"odd name" TEXT' in digest
    assert "CREATE TABLE wards (\n" in digest  # two rows are not counted
    for told in ("97", "zebra", "7741", "ENUM", "gold", "61.375", "2001", "Ada"):
        assert told not in digest


@pytest.mark.parametrize(
    "text",
    ["ADA  lovelace", "ada-lovelace's", "émile zola?", "D’Artagnan", "7319, quay st", "on 2001-02-03",
     "weighs 61.375 kg", "(maple)", "gold"],
)  # fmt: skip
def test_a_cell_value_is_found_however_it_is_written(database: PrivateDatabase, text: str) -> None:
    with pytest.raises(PrivacyError, match="1 cell values"):
        database.no_cells(f"Is it {text} then?")
    hidden = database.hide([f"Is it {text} then?"])
    database.no_cells(*hidden.texts)
    assert list(hidden.values) == [":value_a"]
    assert hidden.texts[0].replace(":value_a", hidden.values[":value_a"]) == f"Is it {text} then?"


@pytest.mark.parametrize(
    "text", ["patients per ward", "Bo", "the first 12 in 2001", "maples", "lovelace", ""]
)
def test_what_is_no_cell_value_stays(database: PrivateDatabase, text: str) -> None:
    database.no_cells(text)
    assert database.hide([text]).texts == (text,)


def test_what_looks_like_a_placeholder_is_none(database: PrivateDatabase) -> None:
    hidden = database.hide(["maple, not :value_a or :value_z"])
    assert hidden.texts == (":value_a, not value_a or value_z",)
    assert hidden.values == {":value_a": "maple"}


def test_a_value_has_one_placeholder_in_all_texts(database: PrivateDatabase) -> None:
    hidden = database.hide(["maple and birch", "Birch or Maple"])
    assert hidden.texts == (":value_a and :value_b", ":value_b or :value_a")
    assert hidden.columns[":value_a"] == ("patients.ward", "wards.code")


def test_texts_are_linked_to_what_the_column_has(database: PrivateDatabase) -> None:
    assert database.linked("ward", "MAPLE") == "maple"
    assert database.linked("Ward", "mapletree") == "maple"
    assert database.linked("name", "grace") == "Grace Hopper"
    assert database.linked("name", "nobody") == "nobody"
    assert database.linked("none", "maple") == "maple"


def test_what_is_asked_has_the_digest_where_the_schema_stood(database: PrivateDatabase) -> None:
    chat = (
        Turn("system", f"Answer in SQL.\n\nSchema:\n{DDL}\n\nNotes:\ngold is the best kind."),
        Turn("user", "Who was in maple before?"),
        Turn("assistant", "Grace Hopper"),
        Turn("user", "And in birch?"),
    )
    asked, hidden = asked_of_tables(database, chat)
    text = "\n".join(turn.content for turn in asked)
    database.no_cells(text.split("Words such as")[0])
    assert [turn.role for turn in asked] == ["system", "user", "assistant", "user"]
    assert asked[0].content.startswith("Answer in SQL.\n\nSchema:\nCREATE TABLE wards (")
    assert "zebra" not in text
    assert "Notes:\n:value_c is the best kind." in text
    assert ":value_c is a value of patients.kind" in text
    assert hidden.values[":value_b"] == "birch"
    assert asked[-1].content == "And in :value_b?"


def test_a_chat_without_a_schema_gets_one(database: PrivateDatabase) -> None:
    asked, _ = asked_of_tables(database, user("How many patients are there?"))
    assert asked[0].content.startswith("You translate questions into SQL")
    assert "CREATE TABLE patients" in asked[0].content


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_file_without_tables_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.sqlite").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.sqlite"):
        read_database(tmp_path / "x.sqlite")


def test_what_was_not_hidden_is_not_sent(
    database: PrivateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        PrivateDatabase, "hide", lambda self, texts: HiddenCells(tuple(texts), {}, {})
    )
    with pytest.raises(PrivacyError, match="not sent") as caught:
        asked_of_tables(database, user("Who was in maple?"))
    assert "maple" not in str(caught.value)
