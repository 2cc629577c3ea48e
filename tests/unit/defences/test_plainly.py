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
    ],
)
def test_what_is_read(written: str, read: str) -> None:
    plain = plainly(written)
    assert plain is not None
    assert plain.text == read


@pytest.mark.parametrize(
    "text", ["", "Jane Doe, 12 St. John's Rd", "Jörg 100 % & Söhne\n", "猫", "&no;"]
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
