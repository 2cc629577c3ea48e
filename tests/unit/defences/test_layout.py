"""Where cells are found, and under which label."""

from __future__ import annotations

import json
import time

import pytest

from cosilo.defences.detection import run
from cosilo.defences.layout import cells


def read(text: str) -> list[tuple[str, str]]:
    """(label, value) of each cell that is a value."""
    return [(c.label, text[c.start : c.end]) for c in run(cells(text)) if not c.names]


ROW = [("name", "Maud O'Hara"), ("qty", "3")]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"name": "Maud O'Hara", "qty": 3}),
        json.dumps({"name": "Maud O'Hara", "qty": 3}, separators=(",", ":")),
        json.dumps([{"data": {"name": "Maud O'Hara", "qty": 3}}], indent=2),
        'fyi: {"name": "Maud O\'Hara", "qty": 3, "cut": [1',
        "INSERT INTO t (name, qty) VALUES ('Maud O''Hara', 3);".replace("''", "'", 0),
        "<r><name>Maud O'Hara</name><qty>3</qty></r>",
        "name: Maud O'Hara\nqty: 3\n",
        '2026-11-03 09:00 INFO a name="Maud O\'Hara" qty=3',
        "name;qty\nMaud O'Hara;3",
        "name\tqty\nMaud O'Hara\t3",
        "| name | qty |\n|---|---|\n| Maud O'Hara | 3 |",
    ],
)
def test_forms(text: str) -> None:
    found = [(label, value.replace("''", "'")) for label, value in read(text)]
    assert found == ROW


def test_rows_without_names_share_columns_by_their_place() -> None:
    for text in (
        "Maud;3;open\nOttokar;4;closed",
        "INSERT INTO t VALUES ('Maud', 3, 'open'), ('Ottokar', 4, 'closed')",
        '[["Maud", 3, "open"], ["Ottokar", 4, "closed"]]',
        "09:00 [Maud] [3] [open]\n09:01 [Ottokar] [4] [closed]",
    ):
        columns: dict[str, list[str]] = {}
        for cell in run(cells(text)):
            columns.setdefault(cell.column, []).append(text[cell.start : cell.end])
        assert list(columns.values()) == [["Maud", "Ottokar"], ["3", "4"], ["open", "closed"]]


def test_fields_in_quotes_may_hold_the_delimiter() -> None:
    text = 'id,full_name,city\n1,"O""Hara, Maud",Bergum\n2,Otto,Norwood'
    assert ("full_name", 'O""Hara, Maud') in read(text)


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ann, I came, I saw, I left.\nHe came, he saw, he won, and left.",
        "I would like to move 250 euros, please.\nThanks, Bob",
        "see [1] and [2]",
        "Re: the meeting",
        "for item in items: print(item)",
    ],
)
def test_prose_has_none(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "    found = shallow(layer, 0)\n    parts = layer.children(name, part)\n",
        "from a.b import FIELDS, FORMS, LONGEST\nfrom a.c import Change, What, in_chat\n",
        "    found = first(a) | second(b)\n    held += own(c) | rest(d)\n    last = all(e) | f\n",
        "The file holds names, sizes, and\nthe dates of it, of its links, in order\n",
        "rows[-1], rows[-2]",
        "Lomená 44, Unit 14,\nGMUNDEN, Tirol,\n8185,\nAustria",
        "12 Elm Hill, Flat 3,\nWhitby, Yorks,\n",
        "What's your address? 677, Lomená 43, Apt 423V\nARAD, nan, 376 78",
        "Ada Lind; Lomená 73, Apt 391V\n, Arad\n, Belgium",
        "She has 4267, Lomená 85,\nArad, 13, and Lind 72",
    ],
)
def test_code_and_wrapped_prose_are_no_tables(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "name, city, qty\nMaud Ottokar, Bergum, 3\nAda Lindqvist, Norwood, 4\n",
        "Maud Ottokar, Bergum, 3\nAda Lindqvist, Norwood, 4\n",
        "user_id, last_name, first_seen\n3, van der Berg, today\n",
    ],
)
def test_tables_with_spaces_after_their_commas(text: str) -> None:
    assert any("Maud" in value or "Berg" in value for _, value in read(text))


def test_the_variables_of_a_call_are_no_values() -> None:
    assert read("open_session(name=model, owner=self.owner)") == []
    assert read('open_session(name="Maud")') == [("name", "Maud")]


@pytest.mark.parametrize(
    "piece",
    [
        '"',
        '"a":',
        "[1,",
        "<a>",
        "a=",
        "x: y\n",
        ",\n",
        "a;b\n",
        "[a] ",
        "'",
        "(",
        "INSERT INTO t VALUES (",
    ],
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            run(cells(text))
            best = min(best, time.process_time() - began)
        return best

    assert seconds(16_000) < 12 * seconds(4_000) + 0.05
