"""A SELECT is read into verbs and means the same; what is none of the verbs is refused."""

from __future__ import annotations

import sqlite3

import pytest

from cosilo.strategies.tables.reading import PlanError, bound, read_table_plan
from cosilo.strategies.tables.verbs import Filter, Group, Join, RowLimit, Scan, Sort

NAMES = frozenset({"patients", "visits", "id", "name", "age", "ward", "patient_id", "cost", "day"})


@pytest.fixture
def db() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    made.executescript(
        """CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT, age INT, ward TEXT);
        CREATE TABLE visits (id INTEGER PRIMARY KEY, patient_id INT, cost REAL, day TEXT);
        INSERT INTO patients VALUES (1, 'Ada', 36, 'North'), (2, 'Ben', NULL, 'South'),
            (3, 'O''Hara', 61, 'North');
        INSERT INTO visits VALUES (1, 1, 10.5, '2024-01-02'), (2, 1, 20, '2024-02-03'),
            (3, 3, 7.25, '2024-02-04');"""
    )
    return made


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM patients",
        "SELECT p.*, v.cost FROM patients p JOIN visits AS v ON p.id = v.patient_id ORDER BY v.id",
        "select name from patients where age is null or not (age between 30 and 40) -- old",
        "SELECT ward, COUNT(*) AS n, AVG(age) FROM patients GROUP BY ward HAVING COUNT(*) > 1",
        "SELECT p.name, SUM(v.cost) total FROM patients p LEFT JOIN visits v ON v.patient_id = p.id "
        "GROUP BY p.id, p.name ORDER BY total DESC NULLS LAST LIMIT 2 OFFSET 1",
        "WITH a AS (SELECT patient_id, MAX(day) AS d FROM visits GROUP BY 1), b AS (SELECT * FROM a) "
        "SELECT name FROM patients JOIN b ON patients.id = b.patient_id WHERE b.d > '2024-02-03'",
        "SELECT name FROM patients WHERE id IN (SELECT patient_id FROM visits WHERE cost > 8)",
        "SELECT name FROM patients WHERE name IN ('Ada', 'O''Hara') AND ward NOT IN ('South')",
        "SELECT name FROM patients p WHERE NOT EXISTS (SELECT 1 FROM visits WHERE patient_id = p.id)",
        "SELECT name, ROW_NUMBER() OVER (PARTITION BY ward ORDER BY age DESC) AS r FROM patients",
        "SELECT SUM(cost) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM visits",
        "SELECT CASE WHEN age > 40 THEN 'old' ELSE 'new' END, CASE ward WHEN 'North' THEN 1 END "
        "FROM patients",
        "SELECT CAST(SUM(cost) AS INTEGER) * 100.0 / COUNT(DISTINCT patient_id) - -1 FROM visits",
        "SELECT strftime('%Y-%m', day) AS m, COUNT(*) FROM visits GROUP BY m ORDER BY m",
        "SELECT name || '%' FROM patients WHERE name LIKE '%a%' UNION ALL SELECT ward FROM patients",
        "SELECT (SELECT MAX(cost) FROM visits), x.n FROM (SELECT COUNT(*) n FROM patients) AS x",
        'SELECT "name" FROM "patients" WHERE ward = "North"',
        "SELECT a.name FROM patients a, patients b WHERE a.age > b.age",
        "SELECT 2 + 3 * 4 - 6 / 2, 1 < 2 AND NOT 0, 'a' || 1 + 2",
        "SELECT DISTINCT ward FROM patients WHERE age IS NOT NULL",
    ],
)
def test_the_verbs_give_the_rows_that_the_select_gives(db: sqlite3.Connection, sql: str) -> None:
    plan = read_table_plan(f"Here it is:\n```sql\n{sql};\n```\nIt counts.", NAMES)
    assert db.execute(plan.sql()).fetchall() == db.execute(sql).fetchall()


def test_a_plan_is_verbs_in_their_order() -> None:
    plan = read_table_plan(
        "SELECT ward, COUNT(*) FROM patients JOIN visits USING (id) WHERE age > 3 GROUP BY ward "
        "ORDER BY 2 LIMIT 5",
        NAMES,
    )
    kinds = [type(verb).__name__ for verb in plan.verbs]
    assert kinds == ["Scan", "Join", "Filter", "Group", "Compute", "Sort", "RowLimit"]
    assert plan.tables() == {"patients", "visits"}
    assert {Scan, Join, Filter, Group, Sort, RowLimit} <= {type(verb) for verb in plan.verbs}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot say.",
        "DELETE FROM patients",
        "SELECT",
        "SELECT * FROM patients; DROP TABLE patients; SELECT (",
        "SELECT load_extension('x') FROM patients",
        "SELECT randomblob(1000000000)",
        "SELECT * FROM pragma_table_info('patients')",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t",
        "WITH x AS (DELETE FROM patients RETURNING *) SELECT * FROM x",
        "SELECT * INTO other FROM patients",
        "SELECT * FROM patients WHERE name = :value_z",
        "SELECT * FROM patients WHERE name = ':value_z'",
        "SELECT * FROM patients WHERE name LIKE '%:value_z%'",
        "SELECT * FROM patients WHERE name = :name",
        "SELECT * FROM patients WHERE name = ?",
        "SELECT * FROM patients WHERE name MATCH 'x'",
        "SELECT * FROM patients NATURAL JOIN visits",
        "SELECT * FROM patients" + " JOIN visits ON 1" * 1000,
        "SELECT * FROM patients" + " JOIN visits ON 1" * 17,
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT " + "(" * 200 + "1" + ")" * 200,
        "SELECT " + "NOT " * 2000 + "1",
        "SELECT " + "- " * 2000 + "1",
        "SELECT " + "1 + " * 5000 + "1",
        "SELECT 1" + " UNION SELECT 1" * 100,
        "WITH a AS (SELECT * FROM visits)"
        + "".join(
            f", {x} AS (SELECT * FROM {y} p, {y} q)"
            for x, y in zip("bcdefghijklmno", "abcdefghijklmn", strict=True)
        )
        + " SELECT COUNT(*) FROM o",
        "SELECT SUM(cost) OVER (ROWS BETWEEN 1 FOLLOWING AND nothing) FROM visits",
        "SELECT 'open FROM patients",
        "SELECT name FROM patients WHERE",
        "SELECT name FROM patients, select",
    ],
)
def test_what_is_none_of_the_verbs_is_refused(reply: str) -> None:
    if ";" in reply:  # a second statement is not read at all
        assert "DROP" not in read_table_plan(reply, NAMES).sql()
        return
    with pytest.raises(PlanError):
        read_table_plan(reply, NAMES, [":value_a"])


def test_a_long_sum_is_read() -> None:
    plan = read_table_plan("SELECT " + "1 + " * 60 + "1", NAMES)
    assert sqlite3.connect(":memory:").execute(plan.sql()).fetchall() == [(61,)]


def test_an_error_holds_nothing_of_the_plan() -> None:
    with pytest.raises(PlanError) as caught:
        read_table_plan("SELECT secret_thing('Ada') FROM patients", NAMES)
    assert "secret" not in str(caught.value)
    assert "Ada" not in str(caught.value)


def test_placeholders_are_filled_and_texts_are_written_as_the_column_has_them() -> None:
    plan = read_table_plan(
        "SELECT * FROM patients p WHERE p.name = :value_a AND ward = ':value_b' AND "
        "ward IN ('north', 'x') AND name LIKE '%:value_a%' AND age < 3",
        NAMES,
        [":value_a", ":value_b"],
    )
    asked: list[tuple[str, str]] = []

    def linked(column: str, text: str) -> str:
        asked.append((column, text))
        return text.capitalize()

    sql = bound(plan, {":value_a": "o'hara :value_b", ":value_b": "south"}, linked).sql()
    assert "(p.name = 'O''hara :value_b')" in sql
    assert "(ward = 'South')" in sql
    assert "(ward IN ('North', 'X'))" in sql
    assert "LIKE '%o''hara :value_b%'" in sql
    assert ("name", "o'hara :value_b") in asked
