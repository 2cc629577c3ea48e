import hashlib
import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.tasks.database import Databases
from cosilo.tasks.query import QueryError, QueryLimits, open_database
from cosilo.tasks.results import same_result
from cosilo.tasks.sql import constants, is_ordered, sql_in, stands_in
from cosilo.types import last_user

CLOCK = "2024-06-17 10:30:00"
DUMP = """BEGIN TRANSACTION;
CREATE TABLE people (
  id INT, -- the key
  name TEXT, city TEXT, joined DATE, balance REAL);
INSERT INTO people VALUES(1,'Ann','Oslo','2024-06-01',10.5);
INSERT INTO people VALUES(2,'Bob','Rome','2024-01-01',20.25);
INSERT INTO people VALUES(3,'Cid','Oslo','2023-01-01',NULL);
INSERT INTO people VALUES(4,'50%_x','Rome','2023-01-01',0.1);
CREATE VIEW rich AS SELECT * FROM people WHERE balance > 15;
COMMIT;
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "desk.sql").write_text(DUMP)
    return tmp_path


@pytest.fixture
def databases(folder: Path) -> Databases:
    limits = QueryLimits(seconds=0.5, rows=1000, memory_bytes=64 << 20)
    return Databases(folder / "db", clock=CLOCK, limits=limits)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# what a query may not do


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE people",
        "DELETE FROM people",
        "UPDATE people SET name = 'x'",
        "INSERT INTO people VALUES (9, 'x', 'x', 'x', 0)",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "SELECT 1; DROP TABLE people",
        "WITH x AS (SELECT 1) DELETE FROM people",
        "ATTACH DATABASE '/tmp/cosilo-attack.db' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM INTO '/tmp/cosilo-attack.db'",
        "PRAGMA query_only = OFF",
        "PRAGMA table_info(people)",
        "SELECT * FROM pragma_table_info('people')",
        "SELECT * FROM pragma_database_list",
        "SELECT sql FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT load_extension('/tmp/evil.so')",
        "SELECT LOAD_EXTENSION('/tmp/evil.so', 'entry')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/cosilo-attack', 'x')",
        "SELECT randomblob(1000000000)",
        "SELECT random()",
        "BEGIN EXCLUSIVE",
        "REINDEX",
        "ANALYZE",
        "SELECT nothing FROM people",
        "SELECT 'unfinished",
        "SELECT 1 \0",
        "SELECT '\ud800'",
        "",
    ],
)
def test_whatever_is_not_one_select_is_refused(databases: Databases, sql: str) -> None:
    before = digest(databases.path("desk"))
    with pytest.raises(QueryError) as caught:
        databases.query("desk", sql)
    assert digest(databases.path("desk")) == before
    assert not Path("/tmp/cosilo-attack.db").exists()
    assert not Path("/tmp/cosilo-attack").exists()
    assert "people" not in str(caught.value)
    assert len(databases.query("desk", "SELECT * FROM people")) == 4


BOMBS = {
    "recursion": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n",
    "cross join": "SELECT count(*) FROM " + ", ".join(f"people a{i}" for i in range(30)),
    "sorted cross join": "SELECT a0.name FROM "
    + ", ".join(f"people a{i}" for i in range(30))
    + " ORDER BY random_name(a0.name || a1.name || a2.name)".replace("random_name", "lower"),
    "long text": "SELECT printf('%900000000d', 1)",
    "growing text": "WITH RECURSIVE n(t) AS (SELECT 'xxxxxxxxxxxxxxxx' UNION ALL SELECT t || t "
    "FROM n) SELECT max(length(t)) FROM n",
    "zeroblob": "SELECT hex(zeroblob(1000000000))",
    "many rows": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    "wide rows": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT printf('%200000d', i) FROM n LIMIT 999",
    "deep expression": "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "huge text of SQL": "SELECT '" + "x" * 100_000 + "'",
    "like": "SELECT printf('%200000d', 1) LIKE '" + "% %" * 30 + "z'",
    "like without cuts": "SELECT replace(printf('%200000d', 1), ' ', 'a') LIKE '%"
    + "a" * 40_000
    + "b'",
    "many like": "SELECT "
    + " + ".join(["(replace(printf('%200000d', 1), ' ', 'a') LIKE '" + "%a" * 400 + "b%')"] * 20),
    "doubling clauses": "WITH a0 AS (SELECT 1 AS x), "
    + ", ".join(f"a{i} AS (SELECT l.x FROM a{i - 1} l, a{i - 1} r)" for i in range(1, 40))
    + " SELECT count(*) FROM a39",
    "many trims": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000), "
    "t(a, b) AS (SELECT group_concat('a', ''), group_concat('b', '') FROM n) SELECT "
    + ", ".join(f"length(trim(a, b || '{i}a'))" for i in range(90))
    + " FROM t",
    "needle": "SELECT instr(replace(printf('%250000d', 1), ' ', 'a'), "
    "replace(printf('%125000d', 1), ' ', 'a') || 'b')",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_query_that_takes_too_much_is_stopped(databases: Databases, name: str) -> None:
    try:
        rows = databases.query("desk", BOMBS[name])
    except QueryError:
        pass
    else:  # answered after all, within its limits
        assert name in ("like", "many like", "needle", "long text")
        assert len(repr(rows)) < 1000
    assert len(databases.query("desk", "SELECT * FROM people")) == 4


def test_each_lock_holds_without_the_others(databases: Databases) -> None:
    """The authorizer refuses a write first; the connection and the file would do so as well."""
    with closing(open_database(databases.path("desk"))) as connection:
        assert connection.execute("PRAGMA query_only").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("DELETE FROM people")
        connection.execute("PRAGMA query_only = OFF")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM people")


def test_a_process_that_dies_is_replaced_and_leaves_nothing_open(databases: Databases) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    databases.query("desk", "SELECT 1")
    before = open_files()
    for _ in range(3):
        process = databases._process._process
        assert process is not None
        process.kill()
        with suppress(QueryError):  # whether it is noticed before or after the question was sent
            databases.query("desk", "SELECT 1")
    assert databases.query("desk", "SELECT 1") == [(1,)]
    assert open_files() == before


def test_the_reason_is_said(databases: Databases) -> None:
    with pytest.raises(QueryError, match=r"stopped after 0.5 s"):
        databases.query("desk", BOMBS["recursion"])
    with pytest.raises(QueryError, match="more than 1,000 rows"):
        databases.query("desk", BOMBS["many rows"])
    with pytest.raises(QueryError, match="more than 16 MiB"):
        databases.query("desk", BOMBS["wide rows"])


def test_memory_is_watched(folder: Path) -> None:
    greedy = Databases(folder / "db", limits=QueryLimits(seconds=30, memory_bytes=32 << 20))
    sql = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
        "SELECT group_concat(t) FROM (SELECT printf('%100000d', i) AS t FROM n ORDER BY t DESC)"
    )
    with pytest.raises(QueryError, match="stopped at 32 MiB"):
        greedy.query("desk", sql)


def test_an_own_database_file_is_never_changed(folder: Path) -> None:
    path = folder / "db" / "own.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(DUMP)
    connection.close()
    before = digest(path)
    databases = Databases(folder / "db")
    assert databases.query("own", "SELECT count(*) FROM people") == [(4,)]
    with pytest.raises(QueryError):
        databases.query("own", "DELETE FROM people")
    assert digest(path) == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["desk.sql", "own.sqlite"]


def test_a_dump_is_built_privately_and_goes_with_its_owner(folder: Path) -> None:
    databases = Databases(folder / "db")
    built = databases.path("desk")
    assert built == databases.path("desk")
    assert built.parent.stat().st_mode & 0o077 == 0
    del databases
    assert not built.exists()


def test_a_dump_reaches_no_other_file(folder: Path) -> None:
    target = folder / "other.db"
    (folder / "db" / "bad.sql").write_text(f"ATTACH '{target}' AS x; CREATE TABLE x.t (a);")
    with pytest.raises(DataError, match="does not build"):
        Databases(folder / "db").path("bad")
    assert not target.exists()


def test_an_unknown_database_names_the_nearest(databases: Databases) -> None:
    with pytest.raises(DataError, match="did you mean 'desk'"):
        databases.path("dsek")


def test_a_folder_without_databases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Databases(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no database"):
        Databases(tmp_path)


def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / "db" / "fake.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match="fake"):
        Databases(folder / "db").ddl("fake")


def test_the_schema_shows_comments_and_views_but_no_row(databases: Databases) -> None:
    ddl = databases.ddl("desk")
    assert "-- the key" in ddl
    assert "CREATE VIEW rich" in ddl
    assert "Ann" not in ddl


# the clock


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT date('now')", "2024-06-17"),
        ("SELECT DATE('NOW', '-30 days')", "2024-05-18"),
        ("SELECT date()", "2024-06-17"),
        ("SELECT date('now', 'localtime')", "2024-06-17"),
        ("SELECT datetime('now', 'start of month')", "2024-06-01 00:00:00"),
        ("SELECT strftime('%Y-%m', 'now')", "2024-06"),
        ("SELECT strftime('%Y', '2020-01-01')", "2020"),
        ("SELECT time('now')", "10:30:00"),
        ("SELECT julianday('now') - julianday('2024-06-16 10:30:00')", 1.0),
        ("SELECT CURRENT_DATE", "2024-06-17"),
        ("SELECT CURRENT_TIMESTAMP", "2024-06-17 10:30:00"),
        ("SELECT current_time", "10:30:00"),
        ("SELECT count(*) FROM people WHERE joined >= date('now', '-1 month')", 1),
        ("SELECT date('nonsense')", None),
    ],
)
def test_now_is_the_frozen_clock(databases: Databases, sql: str, value: object) -> None:
    assert databases.query("desk", sql) == [(value,)]


def test_without_a_clock_now_is_now(folder: Path) -> None:
    ((year,),) = Databases(folder / "db").query("desk", "SELECT strftime('%Y', 'now')")
    assert year > "2024"


@pytest.mark.parametrize("clock", ["now", "yesterday", "2024-13-01"])
def test_a_clock_that_does_not_stand_still_is_refused(folder: Path, clock: str) -> None:
    with pytest.raises(DataError, match="no fixed time"):
        Databases(folder / "db", clock=clock)


# results


@pytest.mark.parametrize(
    ("gold", "found", "ordered", "same"),
    [
        ([(1, "a")], [(1, "a")], False, True),
        ([(1,), (2,)], [(2,), (1,)], False, True),
        ([(1,), (2,)], [(2,), (1,)], True, False),
        ([(1, "a"), (2, "b")], [("a", 1), ("b", 2)], True, True),
        ([(1, "a"), (2, "b")], [("b", 2), ("a", 1)], False, True),
        ([(1, "a"), (2, "b")], [("a", 2), ("b", 1)], False, False),
        ([(1, 2), (2, 1)], [(1, 2), (2, 1)], False, True),
        ([(1, 2), (3, 4)], [(1, 4), (3, 2)], False, False),
        ([(1,)], [(1, 2)], False, False),
        ([(1,)], [(1,), (1,)], False, False),
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False, False),
        ([], [], False, True),
        ([], [(None,)], False, False),
        ([(0.1 + 0.2,)], [(0.3,)], False, True),
        ([(1.0,)], [(1,)], False, True),
        ([(12.345678,)], [(12.35,)], False, False),
        ([(1718620200001,)], [(1718620200002,)], False, False),
        ([(12345678.999999998,)], [(12345679,)], False, True),
        ([(1,)], [("1",)], False, False),
        ([(None,)], [("",)], False, False),
        ([(None,)], [(0,)], False, False),
        ([(float("inf"),)], [(float("inf"),)], False, True),
        ([(b"a",)], [("a",)], False, False),
    ],
)
def test_when_two_results_are_the_same(
    gold: list[tuple[object, ...]], found: list[tuple[object, ...]], ordered: bool, same: bool
) -> None:
    assert same_result(gold, found, ordered=ordered) is same
    assert same_result(found, gold, ordered=ordered) is same


# reading SQL


@pytest.mark.parametrize(
    ("reply", "sql"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 1;\nThis counts one.", "SELECT 1"),
        ("```sql\nSELECT 1;\n```\nDone.", "SELECT 1"),
        (
            "Sure:\n```\nWITH a AS (SELECT 1) SELECT * FROM a\n```",
            "WITH a AS (SELECT 1) SELECT * FROM a",
        ),
        ("```SQLite\nselect 1", "select 1"),
        (
            "Here is the query: SELECT ';' AS x -- a; comment\nFROM t",
            "SELECT ';' AS x -- a; comment\nFROM t",
        ),
        ("```python\nprint(1)\n```\n```sql\nSELECT 2\n```", "SELECT 2"),
        ("I cannot do that.", ""),
        ("DROP TABLE people", ""),
    ],
)
def test_the_sql_in_a_reply(reply: str, sql: str) -> None:
    assert sql_in(reply) == sql


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM t order\nby a LIMIT 3", True),
        ("SELECT a, RANK() OVER (ORDER BY b) FROM t", False),
        ("WITH x AS (SELECT a FROM t ORDER BY a LIMIT 1) SELECT * FROM x", False),
        ("SELECT 'ORDER BY' FROM t", False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT a FROM t /* ORDER BY */", False),
    ],
)
def test_an_order_counts_at_the_top_only(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered


def test_the_constants_of_a_query() -> None:
    sql = (
        "SELECT \"name\" FROM t WHERE a = 'O''Neil' AND b LIKE '%smith%' AND c > 1500 AND d = 3 "
        "AND e > date('now', '-30 days') AND strftime('%Y-%m', f) = '2024-05' -- 'comment'"
    )
    assert constants(sql) == ["O'Neil", "smith", "1500", "2024-05"]


def test_a_constant_stands_in_a_text_as_whole_words() -> None:
    assert stands_in("smith", "Dr. SMITH's patients")
    assert not stands_in("smith", "blacksmiths")
    assert stands_in("A+ (x)", "grade A+ (x) only")


# the task


def load(folder: Path, gold: object, **changes: object) -> Task:
    rows = [
        {"q": f"How much has Ann in {n}?", "sql": gold, "db": "desk", "note": "Money is balance."}
        for n in range(60)
    ]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"text": "q", "target": "sql", "group": "db", "context": "note"}
    table: dict[str, object] = {
        "kind": "sql",
        "file": "all.jsonl",
        "columns": columns,
        "options": {"databases": "db", "clock": CLOCK},
    }
    return load_task(parse_task({**table, **changes}), folder)


GOLD = ["SELECT balance FROM people WHERE name = 'Ann'", "SELECT 10.5, 'Ann'"]


def test_any_gold_alternative_is_right(folder: Path) -> None:
    task = load(folder, GOLD)
    example = task.splits["test"][0]
    assert task.grade(example, "```sql\nSELECT balance FROM people WHERE id = 1;\n```") == 1.0
    assert task.grade(example, "SELECT name, balance FROM people WHERE id = 1") == 1.0
    assert task.grade(example, "SELECT balance FROM people") == 0.0
    assert task.grade(example, "DROP TABLE people") == 0.0
    assert task.grade(example, "WITH x AS (SELECT 1) DELETE FROM people") == 0.0
    assert task.grade(example, "no SQL") == 0.0


def test_an_ordered_gold_asks_for_its_order(folder: Path) -> None:
    task = load(folder, "SELECT name FROM people ORDER BY balance DESC")
    example = task.splits["test"][0]
    assert task.grade(example, "SELECT name FROM people ORDER BY balance DESC") == 1.0
    assert task.grade(example, "SELECT name FROM people ORDER BY id") == 0.0


def test_the_prompt_holds_the_schema_and_the_notes_but_no_row(folder: Path) -> None:
    example = load(folder, GOLD).splits["test"][0]
    system = example.chat[0].content
    assert "CREATE TABLE people" in system
    assert "Money is balance." in system
    assert CLOCK in system
    assert "Ann" not in system
    assert last_user(example.chat).startswith("How much has Ann in")


def test_the_questions_constants_are_secrets(folder: Path) -> None:
    task = load(folder, GOLD)
    assert task.gold_secrets
    assert [(s.kind, s.value) for s in task.splits["test"][0].secrets] == [("literal", "Ann")]
    off = load(folder, GOLD, options={"databases": "db", "literals_are_secret": False})
    assert not off.splits["test"][0].secrets
    assert not off.gold_secrets


def test_gold_that_does_not_run_is_refused_before_anything_is_asked(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line \d+: the gold SQL fails") as caught:
        load(folder, "SELECT secret_thing FROM nowhere")
    assert "secret_thing" not in str(caught.value)


def test_an_item_without_a_database_is_refused(folder: Path) -> None:
    columns = {"text": "q", "target": "sql"}
    with pytest.raises(DataError, match=r"line \d+: names no database"):
        load(folder, GOLD, columns=columns)


@pytest.mark.shared
def test_every_gold_alternative_of_the_shared_set_grades_right(shared_data: Path) -> None:
    columns = {"id": "id", "text": "question", "target": "gold_sql", "group": "db"}
    task = load_task(
        parse_task(
            {
                "kind": "sql",
                "train": "train.jsonl",
                "test": "test.jsonl",
                "columns": columns,
                "options": {"databases": "db", "clock": CLOCK},
            }
        ),
        shared_data / "text2sql_defog",
    )
    examples = [e for split in task.splits.values() for e in split]
    assert len(examples) > 300
    assert all(task.grade(e, sql) == 1.0 for e in examples for sql in e.targets)
