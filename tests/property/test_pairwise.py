"""Comparing answers two by two: antisymmetric by construction, and the same in whatever order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.strategies.inference.pairs import Answers, Pairs, kernels
from cosilo.strategies.inference.pairwise import PairRanker, chosen

WIDTH = 6


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    found = rng.normal(size=(count, WIDTH))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def drawn_pairs(rng: np.random.Generator, count: int) -> Pairs:
    return Pairs(*(unit(rng, count) for _ in range(3)), rng.normal(size=count))


def drawn_answers(rng: np.random.Generator, count: int) -> Answers:
    shares = rng.random(count) + 0.1
    (question,) = unit(rng, 1)
    grades = rng.integers(0, 2, count).astype(np.float64)
    return Answers(question, unit(rng, count), shares / shares.sum(), grades)


def ranker(rng: np.random.Generator) -> PairRanker:
    return PairRanker(drawn_pairs(rng, 9), rng.normal(size=9), (0.7, 1.3), 1.0, rng.normal(size=4))


def slow(one: Pairs, i: int, other: Pairs, j: int) -> tuple[float, float, float]:
    """The three kernels of two pairs, number after number."""

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(4.0 * min(0.0, sum(x * y for x, y in zip(a, b, strict=True)) - 1))

    q, a, b = one.questions[i], one.firsts[i], one.seconds[i]
    r, c, d = other.questions[j], other.firsts[j], other.seconds[j]
    first, second = (
        [*(v - w), *(np.sqrt(WIDTH) * u * (v - w)), u @ (v - w)]
        for u, v, w in ((q, a, b), (r, c, d))
    )
    linear = sum(x * y for x, y in zip(first, second, strict=True))
    both = alike(q, r) * (alike(a, c) * alike(b, d) - alike(a, d) * alike(b, c))
    return float(one.votes[i] * other.votes[j]), float(linear), both


@given(st.integers(0, 10_000))
def test_the_kernels_are_those_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = drawn_pairs(rng, 3), drawn_pairs(rng, 4)
    found = kernels(one, other)
    for i in range(3):
        for j in range(4):
            assert [k[i, j] for k in found] == pytest.approx(list(slow(one, i, other, j)))


@given(st.integers(0, 10_000))
def test_the_other_way_round_it_says_the_opposite(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of, answers = ranker(rng), drawn_answers(rng, 4)
    found = of.margins(answers)
    assert np.array_equal(found, -found.T)
    turned = Answers(answers.question, answers.vectors[::-1], answers.shares[::-1])
    assert of.margins(turned) == pytest.approx(found[::-1, ::-1])


@given(st.integers(0, 10_000))
def test_kernels_of_learned_pairs_are_those_of_a_regression(seed: int) -> None:
    """No weights give a negative square: each kernel is one of features."""
    rng = np.random.default_rng(seed)
    pairs = drawn_pairs(rng, 8)
    for gram in kernels(pairs, pairs):
        assert np.linalg.eigvalsh(gram).min() > -1e-9


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_the_order_of_the_answers_does_not_matter(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    of, answers = ranker(rng), drawn_answers(rng, count)
    order = rng.permutation(count)
    turned = Answers(answers.question, answers.vectors[order], answers.shares[order])
    at, sure = of.choose(turned)
    assert (order[at], sure) == pytest.approx(of.choose(answers))
    assert 0 <= sure <= 1


def test_who_wins_is_by_all_pairs_and_the_margin_by_the_nearest_rival() -> None:
    found = np.array([[0.0, 0.3, 2.0], [-0.3, 0.0, 0.5], [-2.0, -0.5, 0.0]])
    assert chosen(found) == (0, 0.3)
    assert chosen(np.zeros((1, 1))) == (0, 0.0)
