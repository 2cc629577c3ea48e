"""No secret survives in an example message, in any spelling the attacks would recognise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.matching import FuzzyPool, Pool, as_written, normalised
from cosilo.report.masking import BLOCK, BLOCKS, Masker, covers, masked
from cosilo.tasks.base import Example, Secret
from cosilo.types import user

ANN = Secret("1/1", "person", "Ann Müller-Lee")
IBAN = Secret("1/2", "iban", "DE89 3704 0044 0532 0130 00")
AMOUNT = Secret("1/3", "amount", "1,200.50")


def outside(text: str) -> list[str]:
    return BLOCKS.split(text)[::2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("I am Ann Müller-Lee.", "I am ▇person▇."),
        ("I am ANN MULLER LEE.", "I am ▇person▇."),
        ("I am annmüllerlee", "I am ▇person▇"),
        ("pay DE89370400440532013000 now", "pay ▇iban▇ now"),
        ("pay DE89-3704-0044-0532-0130-00 now", "pay ▇iban▇ now"),
        ("they took 1.200,5 from me", "they took ▇amount▇ from me"),
        ("they took 1200.50!", "they took ▇amount▇!"),
        ("Dear Ann, hello Mrs. lee", "Dear ▇person▇, hello Mrs. ▇person▇"),
        ("write to a.kern@bank.example today", "write to ▇e-mail▇ today"),
        ("call +49 (0)170 / 123 45 67", "call ▇number▇"),
        ("nothing here", "nothing here"),
        (r"I am A\u006en M\u00fcller-Lee", "I am ▇person▇"),
        ("I am Ann M&uuml;ller-Lee", "I am ▇person▇"),
        ("I am Ann%20M%C3%BCller-Lee", "I am ▇person▇"),
        ("I am Ann M&amp;uuml;ller-Lee", "I am ▇person▇"),
        ("card 4111\u00a01111\u202f1111\u20111111", "card ▇number▇"),
        ("AT&T; and a \u202eword", "AT&T; and a word"),
        ("&amp;amp;amp;amp;amp;", None),
    ],
)
def test_a_secret_becomes_a_block_with_its_kind(text: str, shown: str | None) -> None:
    assert masked(text, [ANN, IBAN, AMOUNT]) == shown


def test_other_items_secrets_are_masked_whole_and_the_own_ones_in_parts() -> None:
    mask = Masker([ANN, Secret("2/1", "address", "Bank Street 12")])
    shown = mask("You serve a bank. Ann of Bank Street 12 asks.", own=[ANN])
    assert shown == "You serve a bank. ▇person▇ of ▇address▇ asks."


def test_a_short_value_is_not_looked_for_inside_words() -> None:
    assert masked("Al also asks", [Secret("1", "person", "Al")]) == "▇person▇ also asks"


def test_a_value_of_signs_only_is_masked() -> None:
    assert masked("he wrote ♥♥ to me", [Secret("1", "sign", "♥♥")]) == "he wrote ▇sign▇ to me"


def test_a_misspelt_secret_leaves_the_message_out() -> None:
    secret = Secret("1", "person", "Bartholomew")
    assert masked("I am bartholomew.", [secret]) == "I am ▇person▇."
    assert masked("I am Barthol0mew.", [secret]) is None
    assert masked("I am Ann Muler Lee.", [ANN]) is None  # although Ann and Lee could be masked


def test_what_only_a_reader_of_numbers_recognises_is_left_out() -> None:
    flat = Secret("9", "address", "Flat 1,200.50")
    assert Masker([flat])("at flat 1,200.50 now") == "at ▇address▇ now"
    assert Masker([flat])("at flat 1.200,5 now") is None


def test_a_block_covers_whole_words() -> None:
    assert (
        masked("Ann Leeds's, Joann Lee", [Secret("1", "person", "Ann Lee")])
        == "▇person▇'s, ▇person▇"
    )


def test_a_block_in_the_text_or_in_the_kind_forges_nothing() -> None:
    shown = masked("▇card▇ Ann", [Secret("1", "per▇son", "Ann")])
    assert shown == "■card■ ▇per■son▇"
    assert BLOCKS.findall(shown) == ["per■son"]


def test_the_length_of_a_block_says_nothing() -> None:
    assert masked("Ann", [Secret("1", "n", "Ann")]) == masked("Jo", [Secret("1", "n", "Jo")])


def test_overlapping_secrets_become_one_block_of_the_longer_kind() -> None:
    secrets = [Secret("1", "person", "Ann Berg"), Secret("2", "address", "Berg Street 7, Bern")]
    assert masked("at Ann Berg Street 7, Bern", secrets) == "at ▇address▇"


def test_a_secret_kind_is_told_before_a_guessed_one() -> None:
    phone = Secret("1", "phone", "170 123456")
    assert masked("call +49 170 123456", [phone]) == "call ▇phone▇"


words = st.text(st.sampled_from("abcAB12éß .,-'♥"), min_size=2, max_size=12)


@settings(deadline=None, max_examples=200)
@given(values=st.lists(words.filter(str.strip), max_size=4), around=st.lists(words, max_size=6))
def test_no_attack_finds_a_secret_in_what_is_shown(values: list[str], around: list[str]) -> None:
    secrets = [Secret(str(i), "kind", value.strip()) for i, value in enumerate(values)]
    text = " ".join([*around, *values, *(v.upper() for v in values)])
    shown = Masker(secrets)(text, own=secrets)
    if shown is None:
        return
    given_values = [secret.value for secret in secrets]
    for piece in outside(shown):
        for value in given_values:
            if any(c.isalnum() for c in value):
                assert not Pool([value], as_written).found(as_written(piece))
        assert not Pool(given_values, normalised).found(normalised(piece))
        assert not FuzzyPool(given_values).found(normalised(piece))
    assert shown.count(BLOCK) % 2 == 0


@pytest.mark.parametrize(
    ("text", "values", "whole"),
    [
        ("my leg hurts", ["my leg hurts"], True),
        ("My leg hurts!", ["my leg HURTS"], True),
        ("Ann Lee, 0170 123", ["Ann Lee", "0170 123"], True),
        ("Ann Lee, 0170 123", ["0170 123"], False),
        ("I am Ann Lee", ["Ann Lee"], False),
        ("Ann Lee", [], False),
        ("Ann Lees", ["Ann Lee"], False),
    ],
)
def test_secrets_cover_a_text_when_nothing_else_is_said(
    text: str, values: list[str], whole: bool
) -> None:
    secrets = tuple(Secret(str(i), "text", value) for i, value in enumerate(values))
    assert covers(Example("1", user(text, system="Sort this."), ("a",), secrets)) is whole
