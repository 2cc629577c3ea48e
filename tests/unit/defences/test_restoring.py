"""What comes back where: SQL stays valid, dates come back in the form the model wrote them in."""

from __future__ import annotations

import calendar
import datetime
import sqlite3

import pytest

from cosilo.defences.detection import Span
from cosilo.defences.restoring import SqlTarget, Stream, restore
from cosilo.defences.vault import Vault


def vault_for(**values: str) -> tuple[Vault, dict[str, str]]:
    """A vault that hides each of `values` (value by kind), and what each is shown as."""
    vault = Vault(b"k" * 32, "c")
    texts = list(values.values())
    spans = [[Span(0, len(v), kind)] for kind, v in values.items()]
    vault.issue(texts, spans, "")
    shown = {k: vault.hide(v, s) for (k, v), s in zip(values.items(), spans, strict=True)}
    return vault, shown


class TestSql:
    @pytest.mark.parametrize(
        ("template", "wanted"),
        [
            ("SELECT 1 WHERE x = '{}'", "SELECT 1 WHERE x = 'O''Hara'"),
            ("SELECT 1 WHERE x LIKE '%{}%'", "SELECT 1 WHERE x LIKE '%O''Hara%'"),
            ("SELECT 1 WHERE x = {}", "SELECT 1 WHERE x = 'O''Hara'"),
            ("SELECT 1 WHERE x IN ({}, 'b')", "SELECT 1 WHERE x IN ('O''Hara', 'b')"),
            ('SELECT 1 WHERE x = "{}"', 'SELECT 1 WHERE x = "O\'Hara"'),
            ("a:\n```sql\nSELECT '{}'\n```\nof {}", "a:\n```sql\nSELECT 'O''Hara'\n```\nof O'Hara"),
            ("It is {}.", "It is O'Hara."),
            ("with t as (select '{}') select 1", "with t as (select 'O''Hara') select 1"),
        ],
    )  # fmt: skip
    def test_quotes_are_doubled_and_added_where_sql_needs_them(
        self, template: str, wanted: str
    ) -> None:
        vault, shown = vault_for(VALUE="O'Hara")
        reply = template.replace("{}", shown["VALUE"])
        assert restore(vault.restorer, reply, SqlTarget()) == wanted
        for size in (1, 3, 7):
            stream = Stream(vault.restorer, SqlTarget())
            pieces = [stream.feed(reply[i : i + size]) for i in range(0, len(reply), size)]
            assert "".join((*pieces, stream.finish())) == wanted

    def test_a_lowered_placeholder_gives_a_lowered_value(self) -> None:
        vault, shown = vault_for(VALUE="Alice", PERSON="Bob")
        assert shown["VALUE"].isalpha()
        assert shown["VALUE"].istitle()
        reply = f"SELECT '{shown['VALUE'].lower()}', '{shown['VALUE'].upper()}'"
        assert restore(vault.restorer, reply, SqlTarget()) == "SELECT 'alice', 'ALICE'"
        assert vault.restore(shown["PERSON"].lower()) == "Bob"  # a name is restored as it is

    def test_first_and_last_name_may_come_back_apart(self) -> None:
        vault, shown = vault_for(VALUE="Sarah Williams")
        first, last = shown["VALUE"].split()
        reply = f"SELECT 1 WHERE a = '{first}' AND LOWER(b) = '{last.lower()}'"
        wanted = "SELECT 1 WHERE a = 'Sarah' AND LOWER(b) = 'williams'"
        assert restore(vault.restorer, reply, SqlTarget()) == wanted

    def test_codes_stay_codes_and_others_get_a_placeholder(self) -> None:
        shown = vault_for(VALUE="US")[1]
        assert shown["VALUE"].isupper()
        assert len(shown["VALUE"]) == 3
        assert vault_for(VALUE="ab-12 x")[1]["VALUE"].startswith("VALUE_")

    def test_numbers_stay_numbers(self) -> None:
        vault, shown = vault_for(NUMBER="5", VALUE="x")
        number = shown["NUMBER"]
        sql = f"SELECT {number} + '{number}', date('2024-01-10', '-{number} days') LIMIT {number}"
        back = restore(vault.restorer, sql, SqlTarget())
        assert sqlite3.connect(":memory:").execute(back).fetchall() == [(10, "2024-01-05")]
        assert vault.restore(f"1{number} {number}7 {number}.5") == f"1{number} {number}7 {number}.5"


class TestDates:
    def test_a_day_comes_back_in_the_iso_form_and_the_day_after(self) -> None:
        vault, shown = vault_for(DAY="April 1, 2023")
        month, day, year = shown["DAY"].replace(",", "").split()
        ordinal = list(calendar.month_name).index(month)
        assert vault.restore(f">= '{year}-{ordinal:02}-{int(day):02}'") == ">= '2023-04-01'"
        assert vault.restore(f"{shown['DAY']} 10:00") == "April 1, 2023 10:00"

    def test_a_year_comes_back_with_the_year_after_it(self) -> None:
        vault, shown = vault_for(YEAR="2023")
        year = int(shown["YEAR"])
        sql = f"x >= '{year}-01-01' AND x < '{year + 1}-01-01' OR y LIKE '{year}%'"
        assert vault.restore(sql) == "x >= '2023-01-01' AND x < '2024-01-01' OR y LIKE '2023%'"

    def test_a_month_comes_back_with_its_first_and_last_day(self) -> None:
        vault, shown = vault_for(MONTH="2023-02")
        year, month = map(int, shown["MONTH"].split("-"))
        last = {2: 28 + (year % 4 == 0), 4: 30, 6: 30, 9: 30, 11: 30}.get(month, 31)
        sql = f"BETWEEN '{shown['MONTH']}-01' AND '{shown['MONTH']}-{last}'"
        assert vault.restore(sql) == "BETWEEN '2023-02-01' AND '2023-02-28'"

    def test_a_day_of_a_year_joins_the_year(self) -> None:
        vault, shown = vault_for(YEAR="2022", DATE="Dec 31st")
        name = shown["DATE"].split()[0]
        month = list(calendar.month_abbr).index(name)
        day = int(shown["DATE"].split()[1].rstrip("stndrh"))
        assert vault.restore(f"'{shown['YEAR']}-{month:02}-{day:02}'") == "'2022-12-31'"

    def test_dates_move_together_so_that_a_range_keeps_its_length(self) -> None:
        for seed in range(30):
            vault = Vault(bytes([seed]) * 32, "c")
            text = "from 2023-04-04 to 2023-05-21"
            spans = [Span(5, 15, "DAY"), Span(19, 29, "DAY")]
            vault.issue([text], [spans], "")
            _, start, _, end = vault.hide(text, spans).split()
            days = datetime.date.fromisoformat(end) - datetime.date.fromisoformat(start)
            assert days.days == 47
            assert vault.restore(f"'{start}' AND '{end}'") == "'2023-04-04' AND '2023-05-21'"

    def test_a_small_number_is_no_part_of_a_date_or_a_time(self) -> None:
        vault, shown = vault_for(NUMBER="7")
        n = shown["NUMBER"]
        assert (
            vault.restore(f"date('now', '-{n} days') LIMIT {n}") == "date('now', '-7 days') LIMIT 7"
        )
        for own in (f"'2024-06-{n}'", f"'2024-{n}-01'", f"'10:{n}:00'", f"{n}/4/1999", f"1{n}"):
            assert vault.restore(own) == own

    @pytest.mark.parametrize("value", ["70", "10", "200", "4000"])
    def test_a_round_number_stays_round(self, value: str) -> None:
        for seed in range(20):
            vault = Vault(bytes([seed]) * 32, "c")
            vault.issue([value], [[Span(0, len(value), "NUMBER")]], "")
            shown = vault.hide(value, [Span(0, len(value), "NUMBER")])
            assert shown != value
            assert len(shown) == len(value)
            assert shown.endswith(value[1:])
            assert vault.restore(f"LIMIT {shown}") == f"LIMIT {value}"

    def test_number_words(self) -> None:
        vault, shown = vault_for(COUNT="three")
        assert shown["COUNT"] != "three"
        assert vault.restore(f"top {shown['COUNT']}") == "top three"


class TestSurrogates:
    def test_none_stands_in_the_prompt_or_spells_a_value(self) -> None:
        for seed in range(30):
            vault = Vault(bytes([seed]) * 32, "c")
            text = "2 and 3 of 1987 from April 1, 2023 to April 4, 2023"
            spans = [Span(0, 1, "NUMBER"), Span(6, 7, "NUMBER"), Span(11, 15, "YEAR")]
            spans += [Span(21, 34, "DAY"), Span(38, 51, "DAY")]
            vault.issue([text], [spans], "numeric(473) 1950 1951")
            shown = vault.hide(text, spans)
            assert vault.restore(shown) == text
            words = shown.replace(",", "").split()
            assert not {"2", "3", "1", "4", "1987", "2023", "473", "1950"} & set(words)

    def test_a_number_inside_a_word_gets_a_placeholder(self) -> None:
        vault = Vault(b"k" * 32, "c")
        vault.issue(["a5b"], [[Span(1, 2, "NUMBER")]], "")
        shown = vault.hide("a5b", [Span(1, 2, "NUMBER")])
        assert shown.startswith("aNUMBER_")
        assert vault.restore(shown) == "a5b"
