"""A word of one letter more is no scheme: a placeholder may end like one."""

from __future__ import annotations

import random

import pytest

from cosilo.defences.links import _BARE, Links, may_hold_urls


@pytest.mark.parametrize("word", ["VALUE_abcdws:", "PERSON_k2http:", "COUNT_abctel:"])
def test_a_placeholder_that_ends_like_a_scheme_begins_no_url(word: str) -> None:
    assert not _BARE.search(f"see {word}")


@pytest.mark.parametrize("begun", ["http:", "ws:", "tel:", "(https:", "foohttps://x"])
def test_a_scheme_begins_a_url(begun: str) -> None:
    assert _BARE.search(f"see {begun}")


def test_where_no_url_can_be_nothing_is_learned() -> None:
    draw = random.Random(8)
    pieces = (
        "www.", "x.org", "/", ":", "mailto:", "http", "//", " ", "\n", "(", ")", "[a]", "](", "<a ",
        "href=", "@", "?", "#", "%2f", "&sol;", "\\\\", "url(", "@import ", "\x1b]8;", "a", ".", '"',
        "\u3002", "\xa0", "- ",
    )  # fmt: skip
    learned = skipped = 0
    for _ in range(20_000):
        before = "".join(draw.choices(pieces, k=draw.randrange(1, 7)))
        own: set[str] = set()
        links = Links(own)
        links.passed(before)
        links.learn("PERSON_abcdef", " ")
        if may_hold_urls(before + "PERSON_abcdef "):
            learned += bool(own)
        else:
            skipped += 1
            assert not own, before
    assert learned > 1_000
    assert skipped > 1_000
