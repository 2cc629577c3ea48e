"""The energy's ranking loss and its least weights, against a slow way to write both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.strategies.inference.energy import adapted, features_of, least, loss


def slow_loss(
    weights: list[float],
    positives: list[list[float]],
    negatives: list[list[float]],
    alpha: float,
    ridge: float,
) -> float:
    """−E₊[g] + E₋[g] + α (E₊[g²] + E₋[g²]) + α·ridge·|w|², one answer after another."""
    total = alpha * ridge * sum(w * w for w in weights)
    for sign, answers in ((-1, positives), (1, negatives)):
        for answer in answers:
            g = sum(w * x for w, x in zip(weights, answer, strict=True))
            total += (sign * g + alpha * g * g) / len(answers)
    return total


seeds = st.integers(0, 10_000)
alphas = st.sampled_from([0.02, 0.5, 3.0])
ridges = st.sampled_from([0.01, 0.3, 2.0])


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    positives = rng.normal(0.5, 1, (int(rng.integers(1, 8)), size))
    return rng.normal(size=size), positives, rng.normal(size=(int(rng.integers(1, 8)), size))


@given(seeds, alphas, ridges)
def test_the_loss_is_what_it_says(seed: int, alpha: float, ridge: float) -> None:
    weights, right, wrong = drawn(seed)
    slow = slow_loss(weights.tolist(), right.tolist(), wrong.tolist(), alpha, ridge)
    assert loss(weights, right, wrong, alpha, ridge) == pytest.approx(slow, rel=1e-9, abs=1e-9)


@given(seeds, alphas, ridges)
def test_no_other_weights_lose_less(seed: int, alpha: float, ridge: float) -> None:
    step, right, wrong = drawn(seed)
    found = least(right, wrong, alpha, ridge)
    there = slow_loss(found.tolist(), right.tolist(), wrong.tolist(), alpha, ridge)
    for size in (1e-2, 1.0):
        for sign in (-1, 1):
            beside = (found + sign * size * step).tolist()
            assert slow_loss(beside, right.tolist(), wrong.tolist(), alpha, ridge) >= there - 1e-9


@given(seeds)
def test_the_adapted_share_is_the_share_times_the_exponential_of_the_energy(seed: int) -> None:
    weights, features, _ = drawn(seed)
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(features)))
    raised = [s * np.exp(f @ weights) for s, f in zip(shares, features, strict=True)]
    expected = np.array(raised) / sum(raised)
    assert np.allclose(adapted(weights, features, shares), expected)
    assert np.allclose(adapted(np.zeros_like(weights), features, shares), shares)


@given(seeds)
def test_features_hold_products_answer_and_nearness(seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=4), rng.normal(size=(3, 4))
    for row, answer in zip(features_of(u, v), v, strict=True):
        assert np.allclose(row, [*(2 * u * answer), *answer, float(u @ answer)])
