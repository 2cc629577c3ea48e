"""Which label a reply names; labels that differ only in signs are told apart."""

from __future__ import annotations

import pytest

from cosilo.labels import named, plain, same, written

LANGUAGES = ("C", "C++", "C#", "Go", ".NET")
SIGNS = ("-1", "0", "1")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("C", "C"),
        ("c", "C"),
        (" C++.\n", "C++"),
        ("c#", "C#"),
        ("**C++**", "C++"),
        ("`C#`", "C#"),
        ('"C"', "C"),
        ("The label is: C++", "C++"),
        ("I would say **C#**, clearly.", "C#"),
        ("It is C.", "C"),
        ("C++, or maybe C#", None),
        ("C+", None),
        ("C and Go", None),
        ("net", ".NET"),
        (".NET", ".NET"),
        ("it is a c-compiler", None),
        ("", None),
        ("++", None),
    ],
)
def test_signs_tell_labels_apart(text: str, label: str | None) -> None:
    assert named(text, LANGUAGES) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("-1", "-1"),
        ("−1", "-1"),
        ("–1.", "-1"),
        ("1", "1"),
        ("0", "0"),
        ("label: -1", "-1"),
        ("The answer is −1", "-1"),
        ("The answer is 1", "1"),
        ("between -1 and 1", None),
        ("2", None),
    ],
)
def test_numbers_have_their_sign(text: str, label: str | None) -> None:
    assert named(text, SIGNS) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("+", "+"),
        (" − ", "-"),
        ('"+"', "+"),
        ("The sentiment is: +", "+"),
        ("the well-known one", None),
        ("a text - a good one", None),  # a dash in prose
        ("?", None),
    ],
)
def test_labels_of_signs_alone(text: str, label: str | None) -> None:
    assert named(text, ("+", "-")) == label


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (("*", "**", "***"), "**", "**"),
        (("👍", "👎"), "👎", "👎"),
        (("yes", "no"), "Yes!", "yes"),
        (("A", "plan A"), "plan A", "plan A"),
        (("A", "plan A"), "It is plan A, I think", "plan A"),
        (("A", "B"), "it is a riddle", None),
        (("Größe", "Masse"), "GRÖSSE", "Größe"),
        (("a/b", "a b c"), "a b c", "a b c"),
        (("true", "false"), "False.", "false"),
        (("是", "否"), "是", "是"),
    ],
)
def test_other_sets(labels: tuple[str, ...], text: str, label: str | None) -> None:
    assert named(text, labels) == label


def test_every_label_names_itself() -> None:
    for labels in (LANGUAGES, SIGNS, ("+", "-"), ("a_b", "a c"), ("1.5", "15"), ("R&D", "R D")):
        for label in labels:
            assert named(label, labels) == label
            assert named(f"{label}.", labels) == label


def test_forms() -> None:
    assert plain("  Größe_№1 / ЖКХ ") == "grösse no1 жкх"
    assert written(" C++.") == "c++"
    assert written("credit_card") == written("Credit-Card")


def test_the_place_of_the_same_text() -> None:
    assert same("paris.", ("Rome", "Paris")) == 1
    assert same("Paris", ("Paris", "paris ")) is None
    assert same("−1", ("1", "-1")) == 1
    assert same("it is Paris", ("Rome", "Paris")) is None
