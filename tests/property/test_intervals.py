"""Intervals against their definitions, slow versions, and what they promise to cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from cosilo.objectives.base import Floats
from cosilo.objectives.intervals import (
    bootstrap,
    clopper_pearson,
    difference,
    mean,
    quantile,
    share_above,
    wilson,
)
from cosilo.objectives.membership import auc, tpr

Z = 1.959963984540054


@given(st.integers(1, 500), st.data())
def test_wilson_ends_are_where_the_score_test_is_at_its_limit(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    for end in wilson(k, n):
        if 0 < end < 1:
            gap = abs(k / n - end)
            assert gap == pytest.approx(Z * math.sqrt(end * (1 - end) / n), abs=1e-9)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


@given(st.integers(1, 300), st.data())
def test_clopper_pearson_is_the_beta_quantiles(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    assert clopper_pearson(k, n) == pytest.approx((low, high), abs=1e-7)


@pytest.mark.parametrize("p", [0.03, 0.4])
def test_clopper_pearson_covers_exactly_as_promised(p: float) -> None:
    n = 60
    covered = sum(
        binom.pmf(k, n, p)
        for k in range(n + 1)
        if clopper_pearson(k, n)[0] <= p <= clopper_pearson(k, n)[1]
    )
    assert covered >= 0.95


def test_nothing_is_known_of_no_items() -> None:
    assert wilson(0, 0) == clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("q", [0.5, 0.95])
@pytest.mark.parametrize("n", [1, 20, 90, 300])
def test_quantile_interval_covers(q: float, n: int) -> None:
    """Of uniform values the true quantile is q itself; ends at the extremes may cover less."""
    rng = np.random.default_rng(5)
    hits = tails = 0
    for _ in range(400):
        values = rng.random(n)
        at, low, high = quantile(values, q)
        assert low <= at <= high
        assert {low, high} <= {*values.tolist(), at}
        hits += low <= q <= high
        tails += q > values.max() or q < values.min()
    assert (hits + tails) / 400 >= 0.93


def slow_bootstrap(values: Floats, resamples: int, seed: int) -> tuple[float, float]:
    """BCa as in the paper, one resample and one left-out item at a time."""
    n = len(values)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    means = sorted(float(np.repeat(values, d).mean()) for d in draws)
    estimate = float(values.mean())
    below = sum(m < estimate for m in means) + sum(m == estimate for m in means) / 2
    from scipy.stats import norm

    z0 = norm.ppf(below / resamples)
    left = [float(np.delete(values, i).mean()) for i in range(n)]
    middle = sum(left) / n
    a = sum((middle - x) ** 3 for x in left) / (6 * sum((middle - x) ** 2 for x in left) ** 1.5)
    ends = []
    for tail in (0.025, 0.975):
        z = z0 + norm.ppf(tail)
        ends.append(float(np.quantile(means, norm.cdf(z0 + z / (1 - a * z)))))
    return ends[0], ends[1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_bootstrap_is_bca(seed: int, lumpy: bool) -> None:
    values = np.random.default_rng(seed).exponential(1.0, 40)
    if lumpy:  # resamples then often have exactly the estimate's value
        values = np.round(values)
    found = bootstrap(lambda w: w @ values / len(values), 40, resamples=300, seed=seed)
    assert found == pytest.approx(slow_bootstrap(values, 300, seed), rel=1e-6)


def test_bootstrap_covers_a_skewed_mean() -> None:
    rng = np.random.default_rng(9)
    hits = 0
    for _ in range(200):
        values = rng.exponential(1.0, 60)
        low, high = mean(values)
        hits += low <= 1 <= high
    assert hits / 200 >= 0.9


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
@example([0.0, 5.7e-136])
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_its_mean_and_never_moves(numbers: list[float]) -> None:
    values = np.array(numbers)
    low, high = mean(values, (-5, 5))
    assert low - 1e-9 <= values.mean() <= high + 1e-9
    assert mean(values, (-5, 5)) == (low, high)
    assert math.isfinite(low + high)


def test_equal_values_are_not_certainty() -> None:
    low, high = mean(np.zeros(100), (0, 1))
    assert low == 0
    assert 0.03 < high < 0.04
    low, high = mean(np.full(100, 0.5), (0, 1))
    assert low == pytest.approx(0.5 - 0.5 * (1 - 0.025**0.01))
    assert high == pytest.approx(0.5 + 0.5 * (1 - 0.025**0.01))
    assert mean(np.full(100, 3.0)) == (3.0, 3.0)
    assert mean(np.zeros(100)) == (0.0, 0.0)  # a count without bounds, not a share
    assert difference(np.ones(50), np.ones(50), (-1, 1))[1] > 0.05


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(2)
    first = (rng.random(300) < 0.7).astype(np.float64)
    second = np.where(rng.random(300) < 0.05, 1 - first, first)
    low, high = difference(first, second, (-1, 1))
    assert low <= (first - second).mean() <= high
    unpaired = 2 * Z * math.sqrt(2 * 0.7 * 0.3 / 300)
    assert high - low < unpaired / 2


# ── membership: both samples are drawn, and the threshold is known by one of them ────────────────


def ends_one_by_one(inside: Floats, outside: Floats, share: float) -> tuple[float, float]:
    """`share_above` as it is defined, each rank tried in turn."""
    n, m, tail = len(inside), len(outside), 0.0125
    above = sorted(outside, reverse=True)
    low, high = 0.0, 1.0
    for k in range(1, m + 1):
        found = int((inside > above[k - 1]).sum())
        if binom.cdf(k - 1, m, share) <= tail:  # fewer than k pass the threshold: hardly ever
            low = 0.0 if found == 0 else beta.ppf(tail, found, n - found + 1)
        if high == 1.0 and binom.sf(k - 1, m, share) <= tail:  # k or more: hardly ever
            high = 1.0 if found == n else beta.ppf(1 - tail, found + 1, n - found)
            break
    return low, high


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=60),
    st.lists(st.integers(0, 30), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.1, 0.3]),
)
def test_a_share_above_an_estimated_threshold_is_bounded_on_both_sides(
    inside: list[int], outside: list[int], share: float
) -> None:
    a, b = np.array(inside, float), np.array(outside, float)
    assert share_above(a, b, share=share) == pytest.approx(ends_one_by_one(a, b, share), abs=1e-7)


def passing(shift: float, step: float) -> float:
    """How often a record, N(shift, 1), passes what a stranger, N(0, 1), passes once in a hundred; both
    rounded down to `step`."""
    threshold = 2.3263478740408408
    if step:
        threshold = step * math.ceil(threshold / step)
    return 0.5 * math.erfc((threshold - shift) / math.sqrt(2))


@pytest.mark.parametrize("step", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("records", "strangers", "shift"), [(60, 60, 1.0), (100, 200, 1.0), (300, 500, 2.0)]
)
def test_true_positives_at_one_in_a_hundred_are_covered(
    records: int, strangers: int, shift: float, step: float
) -> None:
    """An interval that takes the threshold as known covers 58 to 64 in a hundred."""
    rng, true, held, trials = np.random.default_rng(0), passing(shift, step), 0, 150
    for _ in range(trials):
        inside, outside = rng.normal(shift, 1, records), rng.normal(0, 1, strangers)
        if step:
            inside, outside = np.floor(inside / step) * step, np.floor(outside / step) * step
        _, low, high = tpr(inside, outside)
        held += low <= true <= high
    assert held / trials >= 0.95


def test_true_positives_are_narrowed_down_by_more_of_either() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for records, strangers in ((100, 100), (2000, 100), (100, 2000), (2000, 2000)):
        _, low, high = tpr(rng.normal(2, 1, records), rng.normal(0, 1, strangers))
        widths.append(high - low)
    few, more_records, more_strangers, more = widths
    assert more < min(more_records, more_strangers) < few
    assert more_records > 0.5 * few, "strangers, too, must be many"


@pytest.mark.parametrize(("records", "strangers", "shift"), [(30, 30, 1.0), (40, 120, 2.0)])
def test_an_area_is_covered(records: int, strangers: int, shift: float) -> None:
    rng, true, held, trials = np.random.default_rng(0), 0.5 * math.erfc(-shift / 2), 0, 100
    for _ in range(trials):
        _, low, high = auc(rng.normal(shift, 1, records), rng.normal(0, 1, strangers))
        held += low <= true <= high
    assert held / trials >= 0.89  # 95 in a hundred, as far as a hundred trials can tell


def test_samples_that_are_drawn_apart_keep_their_sizes() -> None:
    seen: list[Floats] = []

    def statistic(weights: Floats) -> Floats:
        seen.append(weights)
        return weights @ np.arange(12.0)

    bootstrap(statistic, 12, apart=(5, 7))
    resamples = seen[0]
    assert resamples.shape == (2000, 12)
    assert set(resamples[:, :5].sum(axis=1)) == {5.0}
    assert set(resamples[:, 5:].sum(axis=1)) == {7.0}
    assert len({tuple(row) for row in resamples}) > 1900
