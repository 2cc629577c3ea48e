"""What a detector reads beside the text as it is written, and where that stands in it."""

from __future__ import annotations

import pytest

from cosilo.defences.detection import Span
from cosilo.defences.plainly import plainly


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("4111\u00a01111\u202f1111\u20031111", "4111 1111 1111 1111"),
        ("jo\u200bhn\u2060@x.o\u00adrg\ufeff", "john@x.org"),
        ("\u202ejohn\u202c \u2066x\u2069", "john x"),
        ("555\u2011123\u20134567", "555-123-4567"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("\uff11\uff12 \uff4a\uff4f", "12 jo"),
        (r"J\u00f6rg \ud83d\ude00", "J\u00f6rg \U0001f600"),
        (r"Dear team,\nJane", "Dear team,\nJane"),
        ("J&ouml;rg &#77;&#x75;", "J\u00f6rg Mu"),
        ("J%C3%B6rg%20M", "J\u00f6rg M"),
        ("\U000e0041x", "x"),
        ("<p>Maud</p>\n<p>4 Elm</p>", "Maud\n4 Elm\n"),
        ("Maud<br>4 Elm<BR />Bergum", "Maud\n4 Elm\nBergum"),
        ('<td class="x">Maud</td><td>Elm</td>', "Maud\nElm\n"),
        ("<b>Maud</b> <span id='a'>Elm</span>", "Maud Elm"),
        ("**Maud Elm** is **here**", "Maud Elm is **here"),
        ("__Maud Elm__ is", "Maud Elm__ is"),
        ("> Maud\n> > Elm", "Maud\nElm"),
        ("- Maud\n* Elm\n## Bergum\n  \u2022 4411", "Maud\nElm\nBergum\n4411"),
    ],
)
def test_what_is_read(written: str, read: str) -> None:
    plain = plainly(written)
    assert plain is not None
    assert plain.text == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Jane Doe, 12 St. John's Rd",
        "Jörg 100 % & Söhne\n",
        "猫",
        "&no;",
        "a < b > c",
        "def f(**kwargs)",
        "__init__",
        "List<T> x",
        "- a point",
        "- Chair: Maud",
        "# a comment",
        "2 ** 3",
    ],
)
def test_what_is_written_plainly_is_not_read_twice(text: str) -> None:
    assert plainly(text) is None


def test_a_place_that_was_read_is_found_in_what_was_written() -> None:
    written = "to jo\u200bhn@x.org, M\u0075\u0308ller or J&ouml;rg!"
    plain = plainly(written)
    assert plain is not None
    for value, whole in (
        ("john@x.org", "jo\u200bhn@x.org"),
        ("M\u00fcller", "Mu\u0308ller"),
        ("J\u00f6rg", "J&ouml;rg"),
    ):
        at = plain.text.index(value)
        span = plain.written(Span(at, at + len(value), "X"))
        assert written[span.start : span.end] == whole


def test_only_the_paragraph_that_is_written_in_another_way_is_read_again() -> None:
    text = "Nothing here.\n\nWrite to J&ouml;rg at home.\n\n" + "Nothing there. " * 50
    plain = plainly(text)
    assert plain is not None
    assert list(plain.parts()) == [(15, "Write to J\u00f6rg at home.")]


@pytest.mark.parametrize("between", [10, 1_000, 5_000, 60_000])
def test_each_change_stands_in_a_part_with_the_words_around_it(between: int) -> None:
    text = "a word or two " * (between // 14)
    plain = plainly(f"{text}J&ouml;rg Maier{text}, and M&uuml;ller again {text}")
    assert plain is not None
    parts = list(plain.parts())
    said = [part for _, part in parts]
    assert all(plain.text[at : at + len(part)] == part for at, part in parts)
    assert any("two J\u00f6rg Maier" in part for part in said) or between < 14
    assert any("and M\u00fcller again" in part for part in said)
    assert sum(map(len, said)) <= max(len(plain.text) if between < 5_000 else 0, 3_000)


def test_a_long_word_that_is_written_in_another_way_is_whole() -> None:
    plain = plainly("x " * 9_000 + "&ouml;" + "y" * 2_000 + " x" * 9_000)
    assert plain is not None
    assert any("\u00f6" in part for _, part in plain.parts())
