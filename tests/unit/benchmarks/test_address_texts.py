"""The English sentences that addresses, places and people are looked for in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks" / "pseudonyms"))

from address_texts import DEV, HALVES, HELD, PLACES, texts  # noqa: E402


def test_no_sentence_stands_in_both_halves() -> None:
    assert not set(DEV) & set(HELD)
    assert len({*DEV, *HELD}) == len(DEV) + len(HELD) >= 60
    assert len(PLACES) >= 30


@pytest.mark.parametrize("half", HALVES)
def test_spans_say_where_values_stand(half: str) -> None:
    found = texts(half, 3)
    assert len(found) == 3 * len(HALVES[half])
    for text, spans in found:
        assert spans
        assert not set("{§#") & set(text)
        ends = 0
        for start, end, _, value in spans:
            assert ends <= start < end
            assert text[start:end] == value
            ends = end


def test_texts_are_drawn_by_their_seed() -> None:
    assert texts("dev", 2) == texts("dev", 2) != texts("dev", 2, seed=12)
