"""A token model's next bytes, against adding up every sequence of tokens there is."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.strategies.mixing.lattice import END, UNITS, Behind, Lattice
from cosilo.strategies.mixing.spelling import Spellings

PIECES = (b"a", b"b", b"ab", b"ba", b"aba", b"bab", b"aa", "ü".encode(), "ü".encode()[:1], b"a")
"""Two of them are spelt alike, and one is half a character."""

TEXTS = st.text("abü", max_size=7).map(str.encode)


@cache
def model(text: bytes, seed: int) -> tuple[np.ndarray, float]:
    """The probability of each token behind `text`, and of the end."""
    digest = hashlib.sha256(text + bytes([seed])).digest()[:8]
    weights = np.random.default_rng(int.from_bytes(digest, "big")).exponential(size=11) ** 2
    weights /= weights.sum()
    return weights[:10], float(weights[10])


def slow(text: bytes, seed: int) -> np.ndarray:
    """The next byte behind `text`: the weight of all sequences of tokens that go on so."""
    found = np.zeros(UNITS)

    def follow(said: bytes, weight: float) -> None:
        p, end = model(said, seed)
        if said == text:
            found[END] += weight * end
        for piece, chance in zip(PIECES, p, strict=True):
            more = said + piece
            if len(more) > len(text):
                if more.startswith(text):
                    found[more[len(text)]] += weight * chance
            elif text.startswith(more):
                follow(more, weight * chance)

    follow(b"", 1.0)
    return found / found.sum()


def lattice(seed: int, *, least: float = 0.0, told: int = 10) -> Lattice:
    async def ask(text: bytes, tail: tuple[int, ...]) -> Behind:
        p, end = model(text, seed)
        known = np.sort(np.argsort(-p)[:told])
        spelling = Spellings([PIECES[i] for i in known])
        ids = known[spelling.order]
        return Behind(spelling, p[ids], ids, end, float(p.sum() - p[known].sum()))

    return Lattice(ask, least=least)


def read(one: Lattice, text: bytes, other: Lattice | None = None) -> np.ndarray:
    """What it says behind `text`, having gone there byte by byte."""

    async def run() -> np.ndarray:
        theirs = await other.next() if other else None
        found = await one.next(theirs)
        for byte in text:
            ended = other.take(byte) if other else 0.0
            one.take(byte, theirs, ended)
            theirs = await other.next() if other else None
            found = await one.next(theirs)
        return found

    return asyncio.run(run())


@given(TEXTS, st.integers(0, 255))
@settings(max_examples=80, deadline=None)
def test_it_is_the_sum_over_all_sequences_of_tokens(text: bytes, seed: int) -> None:
    assert np.allclose(read(lattice(seed), text), slow(text, seed), atol=1e-9)


@given(TEXTS, st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_untold_tokens_of_a_model_like_the_other_one_change_nothing(text: bytes, seed: int) -> None:
    """What is not told is taken from the other model: where that is the same one, and all that is told
    is nothing, only the other one speaks."""
    found = read(lattice(seed, told=0), text, lattice(seed))
    # Ends are told, so that the other tokens' share follows the text as theirs does, the end apart.
    exact = slow(text, seed)
    assert np.isclose(found.sum(), 1.0)
    if not text:
        end = model(b"", seed)[1]
        assert np.isclose(found[END], end + (1 - end) * exact[END])


@given(TEXTS, st.integers(0, 255), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_it_stays_a_distribution_whatever_is_told(text: bytes, seed: int, told: int) -> None:
    found = read(lattice(seed, told=told), text, lattice(seed + 1 & 255))
    assert np.isclose(found.sum(), 1.0)
    assert (found >= 0).all()


def test_boundaries_left_out_save_questions_and_change_little() -> None:
    apart, asked = [], [0, 0]
    for seed in range(20):
        text = b""
        for _ in range(6):
            text += bytes([int(np.argmax(slow(text, seed)[:END]))])
        whole, few = lattice(seed), lattice(seed, least=0.05)
        exact, found = read(whole, text), read(few, text)
        apart.append(np.abs(found - exact).sum() / 2)
        asked = [asked[0] + whole.asked, asked[1] + few.asked]
    assert asked[1] < asked[0]
    assert np.mean(apart) < 0.03


@given(TEXTS, st.integers(0, 255))
@settings(max_examples=40, deadline=None)
def test_whatever_was_left_out_it_goes_on(text: bytes, seed: int) -> None:
    assert np.isclose(read(lattice(seed, least=0.6), text).sum(), 1.0)


def test_every_probability_is_right_along_a_longer_text() -> None:
    text = "ababaübabaab".encode()
    total = 0.0
    for i in range(len(text)):
        exact = slow(text[:i], 3)
        total += np.log(exact[text[i]])
    fast, one = 0.0, lattice(3)

    async def run() -> float:
        found = 0.0
        for byte in text:
            found += float(np.log((await one.next())[byte]))
            one.take(byte)
        return found

    fast = asyncio.run(run())
    assert np.isclose(fast, total)


def test_columns_and_ranges_of_a_spelling() -> None:
    pieces = [b"ab", b"", b"a", b"abc", b"b", b"a"]
    spelling = Spellings(pieces)
    assert [pieces[i] for i in spelling.order] == [b"a", b"a", b"ab", b"abc", b"b"]
    assert spelling.narrowed(0, 5, 0, ord("a")) == (0, 2, 4)
    assert spelling.column(2, 4, 2).tolist() == [256, ord("c")]
    assert spelling.narrowed(2, 4, 1, ord("b")) == (2, 3, 4)
    assert spelling.narrowed(0, 5, 0, ord("z")) == (5, 5, 5)
