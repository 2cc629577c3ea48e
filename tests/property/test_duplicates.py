"""MinHash finds what comparing every pair finds, and calls nothing a duplicate that is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.strategies.duplicates import alike, new

WORDS = [
    "my",
    "card",
    "has",
    "not",
    "come",
    "yet",
    "please",
    "send",
    "another",
    "one",
    "to",
    "me",
    "soon",
    "or",
    "pay",
    "it",
    "back",
]


def slow(texts: list[str], least: float) -> list[bool]:
    kept: list[str] = []
    found = []
    for text in texts:
        found.append(all(alike(text, other) < least for other in kept))
        if found[-1]:
            kept.append(text)
    return found


def edited(rng: random.Random, text: str) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def test_it_finds_what_comparing_all_pairs_finds() -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(6, 14))) for _ in range(120)]
    texts += [edited(rng, rng.choice(texts)) for _ in range(120)]
    found = new(texts)
    assert 0 < found.count(False) < 120
    assert found == slow(texts, 0.7)


@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_texts_can_be_compared(texts: list[str]) -> None:
    found = new(texts)
    for i, fresh in enumerate(found):
        if not fresh:
            assert any(alike(texts[i], texts[j]) >= 0.7 for j in range(i) if found[j])


@pytest.mark.parametrize(("a", "b"), [("Where is it?", "where  is it"), ("", "!"), ("ÄB", "äb")])
def test_case_signs_and_spacing_do_not_count(a: str, b: str) -> None:
    assert alike(a, b) == 1
    assert new([a, b]) == [True, False]
