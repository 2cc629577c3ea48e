"""Fronts, hypervolumes and p-values against slow, obvious versions; the certificate by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import certificate
from cosilo.objectives.base import Floats
from cosilo.objectives.intervals import clopper_pearson
from cosilo.pvalues import (
    betting_items,
    betting_p,
    binomial_items,
    binomial_p,
    hoeffding_bentkus_items,
    hoeffding_bentkus_p,
)
from cosilo.selection.front import crowding, hypervolume, pareto_mask, ranks

SIDE = 4


@st.composite
def grids(draw: st.DrawFn) -> Floats:
    d = draw(st.integers(1, 4))
    row = st.lists(st.integers(0, SIDE), min_size=d, max_size=d)
    rows = draw(st.lists(row, min_size=0, max_size=8))
    return np.array(rows, dtype=np.float64).reshape(-1, d)


def dominates(a: Floats, b: Floats) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


@given(grids())
def test_front_is_what_nothing_dominates(values: Floats) -> None:
    expected = [not any(dominates(other, row) for other in values) for row in values]
    assert pareto_mask(values).tolist() == expected


@given(grids())
def test_ranks_peel_the_fronts(values: Floats) -> None:
    found = ranks(values)
    for i, row in enumerate(values):
        above = [found[j] for j, other in enumerate(values) if dominates(other, row)]
        assert found[i] == (max(above) + 1 if above else 0)


@given(grids())
def test_hypervolume_counts_the_dominated_cells(values: Floats) -> None:
    d = values.shape[1]
    reference = np.full(d, float(SIDE))
    cells = sum(
        any(all(row <= np.array(cell)) for row in values) for cell in product(range(SIDE), repeat=d)
    )
    assert hypervolume(values, reference) == pytest.approx(cells)


def test_hypervolume_agrees_with_random_darts() -> None:
    rng = np.random.default_rng(1)
    values = rng.random((12, 4))
    reference = np.array([1.0, 0.9, 1.1, 0.8])
    darts = rng.random((200_000, 4)) * reference
    hit = np.zeros(len(darts), dtype=bool)
    for row in values:
        hit |= (darts >= row).all(axis=1)
    share, box = hit.mean(), reference.prod()
    error = 4 * box * math.sqrt(share * (1 - share) / len(darts))
    assert abs(hypervolume(values, reference) - share * box) < error


@given(grids())
def test_crowding_is_infinite_at_the_ends_and_ignores_scale(values: Floats) -> None:
    distance = crowding(values)
    assert np.allclose(distance, crowding(values * 10 + 3))
    for column in values.T:
        if len(column) and np.ptp(column) > 0:
            assert np.isinf(distance[column == column.max()]).any()
            assert np.isinf(distance[column == column.min()]).any()


@given(st.integers(1, 40), st.data(), st.floats(0.001, 0.999))
def test_binomial_p_is_the_summed_tail(n: int, data: st.DataObject, alpha: float) -> None:
    k = data.draw(st.integers(0, n))
    tail = sum(math.comb(n, i) * alpha**i * (1 - alpha) ** (n - i) for i in range(k + 1))
    assert binomial_p(k, n, alpha) == pytest.approx(tail, abs=1e-9)


def slow_betting(losses: Floats, alpha: float, delta: float) -> float:
    x, m = 1 - np.random.default_rng(0).permutation(losses), 1 - alpha
    wealth, best, total, squares, variance = 1.0, 1.0, 0.5, 0.25, 0.25
    for i, value in enumerate(x, 1):
        bet = min(0.75 / m, math.sqrt(2 * math.log(1 / delta) / (len(x) * variance)))
        wealth *= 1 + bet * (value - m)
        best = max(best, wealth)
        total += value
        squares += (value - total / (i + 1)) ** 2
        variance = squares / (i + 1)
    return 1 / best


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 0.99), st.floats(0.01, 0.2)
)
def test_betting_p_is_the_gamblers_best_wealth(
    losses: list[float], alpha: float, delta: float
) -> None:
    values = np.array(losses)
    expected = slow_betting(values, alpha, delta)
    assert betting_p(values, alpha, delta=delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("n", [30, 200])
def test_p_values_are_super_uniform_at_the_limit(alpha: float, n: int) -> None:
    """At a mean of exactly `alpha`, P(p ≤ δ) ≤ δ for every δ, within the simulation's error."""
    rng = np.random.default_rng(7)
    trials = 600
    found: dict[str, list[float]] = {"binomial": [], "hb": [], "betting": []}
    for _ in range(trials):
        coins = (rng.random(n) < alpha).astype(np.float64)
        # Bounded values with that mean: a coin that pays 0 or 1, or a sure alpha.
        mixed = np.where(rng.random(n) < 0.5, coins, alpha)
        found["binomial"].append(binomial_p(int(coins.sum()), n, alpha))
        found["hb"].append(hoeffding_bentkus_p(float(mixed.mean()), n, alpha))
        found["betting"].append(betting_p(mixed, alpha))
    for name, p in found.items():
        for delta in (0.01, 0.05, 0.1, 0.5):
            hits = int((np.array(p) <= delta).sum())
            low, _ = clopper_pearson(hits, trials)
            assert low <= delta, (name, delta, hits)


def test_p_values_have_power() -> None:
    """A test that never rejects is super-uniform too."""
    assert binomial_p(0, 240, 0.02) == pytest.approx(0.98**240)
    assert hoeffding_bentkus_p(0.01, 240, 0.06) < 0.05
    assert betting_p(np.full(240, 0.45), 0.5) < 1e-6


@settings(max_examples=30)
@given(st.floats(0.0, 0.3), st.floats(0.02, 0.4), st.sampled_from([0.05, 0.1]))
def test_items_needed_pass_and_clearly_fewer_do_not(
    mean: float, alpha: float, delta: float
) -> None:
    for needed, p in (
        (binomial_items(mean, alpha, delta), lambda n: binomial_p(_up(n * mean), n, alpha)),
        (
            hoeffding_bentkus_items(mean, alpha, delta),
            lambda n: hoeffding_bentkus_p(mean, n, alpha),
        ),
    ):
        if mean >= alpha:
            assert needed is None
        elif needed is not None:
            assert p(needed) <= delta
            # The tails are saw-toothed in n, so only a clearly smaller n must fail.
            assert needed <= 4 or p(needed // 2) > delta


def _up(x: float) -> int:
    return math.ceil(x - 1e-9)


def test_betting_items_foretells_when_betting_passes() -> None:
    rng = np.random.default_rng(3)
    losses = np.clip(rng.normal(0.48, 0.08, 4000), 0, 1)
    needed = betting_items(losses, 0.5, 0.05)
    assert needed is not None
    passed = [
        np.mean([betting_p(rng.choice(losses, n), 0.5) <= 0.05 for _ in range(100)])
        for n in (needed // 2, needed * 2)
    ]
    assert passed[0] < 0.6 < 0.9 < passed[1]
    assert betting_items(losses, 0.4, 0.05) is None


@pytest.mark.parametrize("scenario", certificate.scenarios(), ids=lambda s: s.name)
def test_certificates_are_false_no_more_often_than_stated(scenario: object) -> None:
    outcome = certificate.simulate(scenario, trials=150, items=120, delta=0.1, seed=11)
    low, _ = clopper_pearson(outcome.false, outcome.trials)
    assert low <= 0.1
    if scenario.name == "four points inside, three at the limit":  # type: ignore[attr-defined]
        assert outcome.right > 100
