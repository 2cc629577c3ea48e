"""Structured text is read cell by cell, and a column is judged as one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pytest

from cosilo.defences.arranged import arranged
from cosilo.defences.detection import Span, Steps, looked, run
from cosilo.defences.patterns import PatternDetector


def look(texts: Sequence[str]) -> Steps[list[list[Span]]]:
    return (yield from looked(PatternDetector(), texts, ""))


def hidden(text: str, raw: Iterable[Span] | None = None) -> list[str]:
    """The private values of `text`, in order."""
    found = PatternDetector().detect(text) if raw is None else list(raw)
    spans = run(arranged(text, found, look))
    return sorted({text[s.start : s.end] for s in spans}, key=text.index)


def test_what_stands_under_a_private_label_is_private_whatever_it_looks_like() -> None:
    text = '{"ssn":"000-12-3456","dob":"1980-02-14","account_last4":4821,"name":"will"}'
    assert hidden(text) == ["000-12-3456", "1980-02-14", "4821", "will"]


def test_and_what_is_none_is_not() -> None:
    assert hidden('{"name":null,"phone":"none","dob":"unknown","email":"n/a","ssn":""}') == []


def test_under_a_public_label_only_what_has_a_form_of_its_own() -> None:
    text = '{"article_no":"AX-10423","status":"x","updated_at":"2026-11-03T09:00:00Z"}'
    assert hidden(text) == []
    assert hidden('{"status":"ask maud@post.org"}') == ["maud@post.org"]


def test_a_public_label_speaks_for_few_words_only() -> None:
    assert hidden('{"status":"ask for a call at 555-867-5309"}') == ["555-867-5309"]
    text = '{"status":"Maud Ottokar","department":"Claims"}'
    raw = [
        Span(text.index(word), text.index(word) + len(word), "PERSON", 0.85)
        for word in ("Maud Ottokar", "Claims")
    ]
    assert hidden(text, raw) == ["Maud Ottokar"]


def test_a_find_that_runs_over_several_cells_is_none() -> None:
    text = "id;full_name;status\n7;Maud Ottokar;open\n8;Otto Maud;closed"
    start = text.index("7;")
    raw = [Span(start, start + len("7;Maud Ottokar;open"), "ADDRESS", 0.9)]
    assert hidden(text, raw) == ["Maud Ottokar", "Otto Maud"]


def test_an_address_may_go_on_in_the_next_line() -> None:
    text = "Name: Maud Ottokar\nAddress: PSC 6695, Box 2353\nAPO AP 20849\n"
    found = " ".join(hidden(text))
    assert "PSC 6695" in found
    assert "20849" in found


def rows(*columns: Iterable[object]) -> str:
    return "\n".join(";".join(map(str, row)) for row in zip(*columns, strict=True))


NAMES = [
    "Abernathy",
    "Okonkwo",
    "Lindqvist",
    "Marchetti",
    "Haverkamp",
    "Petrosyan",
    "Ferreira",
    "Nakagawa",
]
DATES = [f"{y}-03-1{i}" for i, y in enumerate((1951, 1980, 1999, 1962, 1975, 2001, 1944, 1988))]
STATES = ["open", "closed", "open", "open", "closed", "open", "closed", "open"]
TOWNS = ["Millbrook", "Eastham", "Eastham", "Norwood", "Millbrook", "Norwood", "Eastham", "Eastham"]
PRICES = [12.5, 3.99, 120.0, 7.25, 18.1, 44.0, 9.99, 3.5]
ENDS = [4821, 1190, 7734, 2056, 9913, 6408, 3377, 8102]


def test_columns_without_names_show_what_they_hold() -> None:
    text = rows(NAMES, STATES, DATES, PRICES, ENDS, TOWNS)
    found = hidden(text)
    assert set(NAMES) <= set(found)
    assert set(DATES) <= set(found)
    assert set(map(str, ENDS)) <= set(found)
    assert not {*STATES, *TOWNS, *map(str, PRICES)} & set(found)


def test_dates_of_orders_are_not_dates_of_birth() -> None:
    orders = [f"2026-0{m}-11" for m in range(1, 9)]
    assert hidden(rows(range(8), orders, STATES)) == []


def test_a_key_that_is_a_word_of_programs_is_no_name() -> None:
    text = '{"Status": "x", "Ottokar": "y"}'
    at = text.index("Status")
    other = text.index("Ottokar")
    raw = [Span(at, at + 6, "PERSON", 0.85), Span(other, other + 7, "PERSON", 0.85)]
    assert hidden(text, raw) == ["Ottokar"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "requests_total{code=200}", "qty": 1}',
        "| layers | ms a token | cell phone |\n|---|---|---|\n| 30 | 20.0 | 0.0111 (0.0137) |\n"
        "| 25 | 16.2 | 0.0047 |\n",
        "tar --owner=NAME[:UID] --owner-map=FILE",
    ],
)
def test_a_private_label_makes_no_measure_and_no_code_private(text: str) -> None:
    assert hidden(text) == []


def test_digests_are_no_identifiers() -> None:
    digests = [
        f"{n:016x}" for n in (0x0FF44DA97E8F71E8, *(0xF31A733EE3A4A1A4 + i for i in range(9)))
    ]
    assert hidden(rows(range(10), digests)) == []


def test_what_somebody_says_in_a_chat_is_no_name_though_their_role_stands_before_it() -> None:
    chat = (
        "Customer: I still wait for the parcel of last week\nCustomer: can you say where it is now"
    )
    assert hidden(chat, []) == []
    assert hidden("Customer: Maud Ashgrove\nCustomer: Olga Brandt", []) == [
        "Maud Ashgrove",
        "Olga Brandt",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<customer><name>Sofia Novak</name><city>Vienna</city></customer>",
        "id;name;city\n7;Sofia Novak;Vienna",
        '{"a_b":7,"h_town":"Vienna","x_y":"z"}',
        "INSERT INTO customers VALUES (7,'Sofia Novak','Vienna');",
    ],
)
def test_a_cell_that_is_nothing_but_a_name_is_hidden_in_technical_text_too(text: str) -> None:
    at = text.index("Vienna")

    def seen(texts: Sequence[str]) -> Steps[list[list[Span]]]:
        yield
        starts = [made.find("Vienna") for made in texts]
        return [[Span(at, at + 6, "PLACE", 0.85)] if at >= 0 else [] for at in starts]

    spans = run(arranged(text, [Span(at, at + 6, "PLACE", 0.85)], seen))
    assert "Vienna" in {text[s.start : s.end] for s in spans}


def test_of_few_values_that_repeat_one_that_looks_like_a_name_is_none() -> None:
    values = ["Claims", "Legal", "Retail Banking", "Legal", "Claims", "Retail Banking", "Legal"]
    text = rows(range(7), values, values)
    found = [Span(m.start(), m.end(), "PERSON", 0.85) for m in re.finditer("Retail Banking", text)]
    assert hidden(text, found) == []


def test_but_full_names_that_repeat_are() -> None:
    values = ["Maud Ottokar", "Ada Lindqvist", "Maud Ottokar", "Ada Lindqvist", "Maud Ottokar"]
    text = rows(range(5), values, values)
    found = [
        Span(m.start(), m.end(), "PERSON", 0.85)
        for m in re.finditer("Maud Ottokar|Ada Lindqvist", text)
    ]
    assert hidden(text, found) == ["Maud Ottokar", "Ada Lindqvist"]


@pytest.mark.parametrize(
    "secret",
    [
        "ATATT3x" + "Ab0-" * 40 + "Wc8s-rZf=ffbd22ce",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
        "sntrys_" + "aB3=" * 12 + "k=9f",
    ],
)
@pytest.mark.parametrize("around", ["my token is {} and live", "TOKEN={}", "a: {}\nb: 3\n"])
def test_a_credential_that_holds_what_looks_like_a_field_is_hidden_whole(
    secret: str, around: str
) -> None:
    text = around.format(secret)
    spans = run(arranged(text, PatternDetector().detect(text), look))
    covered = {i for s in spans for i in range(s.start, s.end)}
    at = text.index(secret)
    assert {i for i in range(at, at + len(secret)) if text[i].isalnum()} <= covered
