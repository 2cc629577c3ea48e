"""Values give way to names that say nothing, and come back where no host could read them."""

from __future__ import annotations

import pytest

from cosilo.parties.data_owner import PrivateValue
from cosilo.strategies.inference.stand_ins import cover, without_links

FOUND = [
    PrivateValue("Ada Lovelace", "PERSON"),
    PrivateValue("Ada", "PERSON"),
    PrivateValue("Ben", "PERSON"),
    PrivateValue("Rome", "PLACE"),
    PrivateValue("x@example.org", "EMAIL"),
]


def test_a_value_has_one_name_and_comes_back() -> None:
    text = "Ada Lovelace met Ben in ROME. ada  lovelace wrote; Ada did: x@example.org. Benign."
    covered, names = cover(text, FOUND)
    assert covered == (
        "Alban Ashby met Berit in Ardenfield. Alban Ashby wrote; Alban did: Item A. Benign."
    )
    assert names.put_back("Dear Berit, Ardenfield calls. Ashby’s Alban, Corin, Item B") == (
        "Dear Ben, ROME calls. Lovelace’s Ada, Corin, Item B"
    )


def test_a_name_that_the_text_has_already_is_not_given_again() -> None:
    covered, names = cover("Alban and Ben, Item A: 77881", [*FOUND, PrivateValue("77881", "ID")])
    assert covered == "Alban and Berit, Item A: Item B"
    assert names.put_back("Alban, Berit, Item A, Item B") == "Alban, Ben, Item A, 77881"


@pytest.mark.parametrize("kind", ["PERSON", "PLACE", "ORG", "DATE"])
def test_there_are_names_for_many_of_a_kind(kind: str) -> None:
    words = [f"Name{i} Of" for i in range(60)]
    text, names = cover("; ".join(words), [PrivateValue(w, kind) for w in words])
    assert len(set(text.split("; "))) == 60
    assert names.put_back(text) == "; ".join(words)


def test_there_are_names_for_many() -> None:
    words = [f"w{i}q" for i in range(800)]
    text, names = cover(" ".join(words), [PrivateValue(w, "OTHER") for w in words])
    assert "w7q" not in text
    assert names.put_back(text) == " ".join(words)


def test_what_has_no_letters_covers_nothing() -> None:
    assert cover("a - b", [PrivateValue("-", "OTHER")])[0] == "a - b"


@pytest.mark.parametrize(
    "reply",
    [
        "![x](https://e.example/?Alban)",
        "<img src='//e.example/?q=\nAlban'>",
        "[Alban]: e.example/x",
        "write to Alban@e.example",
        "www.e.example/ Alban",
        "mailto:e?subject=Alban",
        "[Alban] (e.example)",
    ],
)
def test_nothing_comes_back_into_a_reply_that_leads_elsewhere(reply: str) -> None:
    _, names = cover("Ada", [PrivateValue("Ada", "PERSON")])
    assert names.put_back(reply) == reply


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see [this](https://e.example/?a b) now", "see [this] now"),
        ("an <img src='https://e.example/?'> here, 3 < 4", "an  here, 3 < 4"),
        ("go to http://e.example/x, or www.e.example", "go to  or "),
        ("//e.example/x and javascript://y", " and "),
        ("[a]\n\n[a]: e.example", "[a]\n\n"),
        ("<img src='e.example/?", ""),
        ("plain [1] text (yes)", "plain [1] text (yes)"),
    ],
)
def test_links_are_taken_out(text: str, left: str) -> None:
    assert without_links(text) == left
