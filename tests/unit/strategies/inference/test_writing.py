"""How what a small model wrote is read."""

from __future__ import annotations

import pytest

from cosilo.strategies.inference.writing import lines, one_text, original_of, with_note
from cosilo.types import Turn, user


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (' "How so?" ', "How so?"),
        ("Sure! Here is the rewritten request:\n\nHow so?", "How so?"),
        ("Question: How so?", "How so?"),
        ("How so: by day?", "How so: by day?"),
        ("“Why?”", "Why?"),
        ('"', '"'),
        ("", ""),
    ],
)
def test_a_text_is_read_without_what_introduces_it(reply: str, text: str) -> None:
    assert one_text(reply) == text


def test_a_list_is_read_without_bullets_blanks_and_repeats() -> None:
    reply = "1. One\n\n2) Two\n- Three\n* One\n(4) 'Four'\nCase 5: Five\n"
    assert lines(reply) == ("One", "Two", "Three", "Four", "Five")


def test_a_conversation_says_who_said_what() -> None:
    assert original_of(user("b", system="a")) == "a\n\nb"
    chat = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", ""), Turn("user", "c"))
    assert original_of(chat) == "user: a\n\nassistant: b\n\nuser: c"


def test_a_note_goes_to_the_last_turn_of_the_user() -> None:
    chat = (Turn("user", "a"), Turn("user", "b", name="n"), Turn("assistant", "c"))
    assert with_note(chat, "x")[1] == Turn("user", "b\n\nx", name="n")
    assert with_note((), "x") == (Turn("user", "x"),)
