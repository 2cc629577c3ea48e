"""Detectors find what they promise, in any text, in bounded time."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.defences.detection import Span, resolve, windows
from cosilo.defences.literals import Cells, LiteralDetector, read_cells
from cosilo.defences.patterns import PatternDetector, luhn
from cosilo.errors import CatalogError, ConfigError
from cosilo.models import catalog


def covered(detector: object, text: str, public: str = "") -> str:
    """`text` with every hidden character as '#'."""
    spans = resolve(detector.detect(text, public), text)  # type: ignore[attr-defined]
    hidden = {i for s in spans for i in range(s.start, s.end)}
    return "".join("#" if i in hidden else c for i, c in enumerate(text))


class TestResolve:
    def test_the_longest_wins_and_the_rest_of_a_loser_stays_hidden(self) -> None:
        spans = [Span(0, 9, "ADDRESS", 0.1), Span(6, 14, "PERSON", 0.9)]
        assert resolve(spans, "12 Via Roma Po") == [
            Span(0, 9, "ADDRESS", 0.1),
            Span(9, 14, "PERSON", 0.9),
        ]

    def test_of_two_equally_long_the_surer_wins(self) -> None:
        assert resolve([Span(0, 3, "A", 0.2), Span(0, 3, "B", 0.3)], "abc") == [
            Span(0, 3, "B", 0.3)
        ]

    def test_neighbours_of_one_kind_become_one(self) -> None:
        spans = [Span(0, 3, "PERSON", 0.5), Span(4, 7, "PERSON", 0.9)]
        assert resolve(spans, "Ann Lee") == [Span(0, 7, "PERSON", 0.9)]
        assert len(resolve(spans, "Ann\nLee")) == 2

    def test_order_does_not_matter(self) -> None:
        spans = [Span(0, 5, "A"), Span(3, 9, "B"), Span(8, 12, "C", 0.4), Span(8, 12, "D", 0.6)]
        text = "abcdefghijkl"
        assert resolve(spans, text) == resolve(list(reversed(spans)), text)


class TestPatterns:
    @pytest.mark.parametrize(
        "value",
        [
            "jane.roe+x@mail.example.co.uk",
            "https://example.org/a?b=c#d",
            "www.example.de",
            "4111 1111 1111 1111",
            "DE89 3704 0044 0532 0130 00",
            "GB29NWBK60161331926819",
            "078-05-1120",
            "192.168.10.254",
            "2001:db8:0:1:1:1:1:1",
            "00:1B:44:11:3A:B7",
            "(212) 555-0142",
            "+49 30 901820",
            "+44 7700 900 123",
            "01 42 68 53 00",
            "212.555.0142 x77",
            "12 Baker Street, London NW1 6XE",
            "742 Evergreen Terrace Apt. 3, Springfield, IL 62704",
            "Hauptstraße 5, 10115 Berlin",
            "12 rue de Rivoli, 75001 Paris",
            "Kalvebod Brygge 45",
            "P.O. Box 1234",
        ],
    )
    def test_identifiers_are_covered(self, value: str) -> None:
        shown = covered(PatternDetector(), f"Please note: I live at {value}. Thank you")
        assert not any(c.isalnum() for c in shown[23:].removesuffix(" Thank you")), shown

    @pytest.mark.parametrize(
        ("text", "hidden"),
        [
            ("My name is Zuzka Nagy and I need help.", "Zuzka Nagy"),
            ("my name is zuzka", "zuzka"),
            ("Dear Mr. J. Smith, thank you.", "J. Smith"),
            ("dr. nagy is my doctor", "nagy"),
            ("I was born on 4 May 1985.", "4 May 1985"),
            ("DOB: 04/05/1985", "04/05/1985"),
            ("My policy number is AB-123456", "AB-123456"),
            ("She is a 94-year-old widow.", "94"),
            ("a 91 y/o male, aged and frail", "91"),
            ("The patient is aged 101, alert.", "101"),
            ("Chart # 238506 was merged.", "238506"),
            ("the encounter 4711203 was closed", "4711203"),
            ("VIN GKXCWEZKXBPRABNGH, airbag deployed.", "GKXCWEZKXBPRABNGH"),
            ("My aunt is in Morpeth, OR now.", "Morpeth, OR"),
            ("License plate: B AB 1234", "B AB 1234"),
            ("Someone hit my car, it was KX61 YHB I think.", "KX61 YHB"),
            ("Its registration is LM07ABC, a blue Golf.", "LM07ABC"),
            ("Reg. no. KX61 YHB, two owners.", "KX61 YHB"),
            ("zip: 10115", "10115"),
        ],
    )
    def test_cues_show_values(self, text: str, hidden: str) -> None:
        assert covered(PatternDetector(), text) == text.replace(hidden, "#" * len(hidden))

    @pytest.mark.parametrize(
        "text",
        [
            "I am really sorry, this is not what I wanted.",
            "Version 3.11 of 2024-06-17 fixed 10,000,000 rows in 25 ms.",
            "How do I sort a list in Python by the second key?",
            "The total is 1,250.50 and 3 items are left.",
            "A 45 year old man aged 62, within 120 days, turned 95 pages at 94 % of 100 years.",
            "See chart 3 and record 12; the sample of 2019 is in chart 2020.",
            "Call me back when the order ships, please.",
            "The registration process of 2024 took weeks, in py27 and later.",
            "RS44 CPU boards, QA12 ABC, AB30 CDE and AB12 CQE are no plates.",
        ],
    )
    def test_ordinary_text_stays(self, text: str) -> None:
        assert covered(PatternDetector(), text) == text

    def test_luhn(self) -> None:
        assert luhn("4111 1111 1111 1111")
        assert not luhn("4111 1111 1111 1112")

    @pytest.mark.parametrize("unit", ["A ", "1 ", "12 Aa apt 1 ", "A'", "1-", "a@", "Anna, ", "\n"])
    def test_hostile_text_takes_bounded_time(self, unit: str) -> None:
        text = (unit * 20_000)[:20_000]
        before = time.process_time()
        PatternDetector().detect(text)
        LiteralDetector().detect(text)
        assert time.process_time() - before < 15

    def test_a_value_at_a_cut_is_whole_in_one_window(self) -> None:
        text = ("word " * 7_990) + "jane.roe@example.org " + "word " * 8_000
        pieces = [piece for _, piece in windows(text)]
        assert len(pieces) > 3
        assert any("jane.roe@example.org" in piece for piece in pieces)


SCHEMA = """CREATE TABLE customers (id int, full_name text, state varchar(2),
 status text -- possible values: active, closed
); CREATE TABLE scores (day100_pasi real)"""


class TestLiterals:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("How many active customers are in CA?", "How many active customers are in ##?"),
            ("Customers named Alice Smith?", "Customers named ###########?"),
            ("Top 5 scores at day 100", "Top # scores at day 100"),
            ("joined on 2023-06-01 or May 3, 2022", "joined on ########## or ###########"),
            ("in march 2023", "in ##########"),
            ("in the year 2022 from Jan 1st", "in the year #### from #######"),
            ("name starts with J or ends with 'ez'", "name starts with # or ends with '##'"),
            ("more than 10,000.50 in ten days", "more than ######### in ### days"),
            ("mail of bob@x.org", "mail of #########"),
            ("stock AAPL", "stock ####"),
            ("What is the status of each customer?", "What is the status of each customer?"),
            ("grade of A or B", "grade of # or #"),
        ],
    )
    def test_literals_are_hidden_and_the_schema_is_not(self, text: str, shown: str) -> None:
        assert covered(LiteralDetector(), text, SCHEMA) == shown

    def test_values_of_the_database_are_private_in_any_case(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
            connection.execute("CREATE TABLE customers (full_name text, kind text)")
            connection.execute("INSERT INTO customers VALUES ('ada von hahn', 'Online Retail')")
            connection.commit()
        (tmp_path / "other.sql").write_text(
            "CREATE TABLE flights (city text); INSERT INTO flights VALUES ('lima');"
        )
        cells = read_cells(tmp_path)
        assert {c.tables for c in cells} == {frozenset({"customers"}), frozenset({"flights"})}
        detector = LiteralDetector(databases=cells)
        text = "retail orders of ada von hahn in lima"
        assert covered(detector, text, SCHEMA) == "###### orders of ############ in lima"
        # Without a schema that says which database is meant, the values of all are private.
        assert covered(detector, text) == "###### orders of ############ in ####"

    def test_what_is_said_of_a_value_is_where_it_stands(self, tmp_path: Path) -> None:
        (tmp_path / "shop.sql").write_text(
            "CREATE TABLE customers (full_name text, city text, kind text, note text, x text);"
            "INSERT INTO customers VALUES ('Ada Hahn', 'lima', 'shop', 'shop', 'shop');"
            "INSERT INTO customers VALUES ('Lima', 'oslo', 'b', 'c', 'd');"
        )
        detector = LiteralDetector(databases=read_cells(tmp_path))
        assert detector.about("LIMA", SCHEMA) == "a value of customers.city or customers.full_name"
        assert detector.about("hahn", SCHEMA) == "part of a value of customers.full_name"
        assert detector.about("nobody", SCHEMA) == ""
        assert detector.about("lima", "CREATE TABLE flights (city text)") == ""  # another database

    def test_given_values_are_private(self) -> None:
        detector = LiteralDetector(["blue whale"])
        assert covered(detector, "about the Blue Whale?") == "about the ##########?"
        assert Cells(frozenset(), frozenset({"of"})).index == {}

    def test_a_folder_without_databases_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no SQLite database"):
            read_cells(tmp_path)
        (tmp_path / "x.sqlite").write_text("this is no database, only text of some length")
        with pytest.raises(ConfigError, match=r"x\.sqlite"):
            read_cells(tmp_path)


@pytest.mark.models
class TestPresidio:
    @pytest.fixture(autouse=True)
    def _model(self) -> None:
        pytest.importorskip("presidio_analyzer")
        try:
            catalog.path("en-core-web-md")
        except CatalogError as error:
            pytest.skip(str(error))

    def test_people_and_places_are_found(self) -> None:
        from cosilo.defences.presidio import PresidioDetector

        text = "Angela met Kofi Annan in Geneva, and Ömer Çelik flew to hawaii."
        shown = covered(PresidioDetector(), text)
        for name in ("Angela", "Kofi", "Annan", "Geneva", "Çelik"):
            assert name not in shown
        assert "met" in shown

    def test_lists_and_small_letters(self) -> None:
        from cosilo.defences.presidio import PresidioDetector

        detector = PresidioDetector()
        assert "Zuzka" not in covered(detector, "They were Anna, Zuzka and Peter.")
        assert "paris" not in covered(detector, "who lives in paris with anna?")

    @pytest.mark.shared
    def test_at_most_one_in_twenty_identifiers_of_the_training_sentences_leaves(
        self, shared_data: Path
    ) -> None:
        from cosilo.defences.presidio import PresidioDetector

        detector = PresidioDetector()
        lines = (shared_data / "presidio_synth" / "train.jsonl").read_text("utf-8").splitlines()
        left = total = 0
        for row in map(json.loads, lines[:150]):
            shown = covered(detector, row["text"])
            for start, end, kind, _ in row["spans"]:
                if kind not in ("TITLE", "AGE", "NRP", "DATE_TIME", "ORGANIZATION"):
                    total += 1
                    left += any(c.isalnum() for c in shown[start:end])
        assert total > 150
        assert left <= 0.05 * total
