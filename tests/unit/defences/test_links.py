"""A word of one letter more is no scheme: a placeholder may end like one."""

from __future__ import annotations

import pytest

from cosilo.defences.links import _BARE


@pytest.mark.parametrize("word", ["VALUE_abcdws:", "PERSON_k2http:", "COUNT_abctel:"])
def test_a_placeholder_that_ends_like_a_scheme_begins_no_url(word: str) -> None:
    assert not _BARE.search(f"see {word}")


@pytest.mark.parametrize("begun", ["http:", "ws:", "tel:", "(https:", "foohttps://x"])
def test_a_scheme_begins_a_url(begun: str) -> None:
    assert _BARE.search(f"see {begun}")
