"""95 % intervals. Everything is deterministic: a bootstrap is seeded, so a number never moves.

Arrays are float64, one value per item, shape (n,), n ≥ 1 unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cosilo.objectives.base import Floats

Interval = tuple[float, float]
Statistic = Callable[[Floats], Floats]  # weights of the items, (b, n) → the statistic, (b,)

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_BLOCK = 2_000_000  # weights held at once


def wilson(successes: float, n: int) -> Interval:
    """Wilson's score interval for a share (1927); (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - _TAIL)
    share = successes / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The formula touches 0 and 1 exactly there; rounding must not push it past the share itself.
    return (
        min(share, max(0.0, (middle - half) / scale)),
        max(share, min(1.0, (middle + half) / scale)),
    )


def clopper_pearson(successes: int, n: int, *, tail: float = _TAIL) -> Interval:
    """The exact interval for a share (1934), which on either side is missed with probability `tail` at
    the most: never covers less than 95 %; (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    low = 0.0 if successes == 0 else _root(lambda p: 1 - _binomial_cdf(n, p)[successes - 1], tail)
    high = 1.0 if successes == n else 1 - _root(lambda p: _binomial_cdf(n, 1 - p)[successes], tail)
    return low, high


def _root(rising: Callable[[float], float], tail: float) -> float:
    """Where `rising`, a function on [0, 1], reaches `tail`."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < tail else (low, middle)
    return (low + high) / 2


def share_above(inside: Floats, outside: Floats, *, share: float) -> Interval:
    """The interval of P(X > t), where t is what a Y passes with probability `share`; `inside` are draws
    of X, `outside` of Y, and t is known by those alone.

    How many of `outside` pass t is binomial, which says between which two of them t lies, each end
    wrong with half the tail's probability; above each of these two the share of X has an exact interval
    for the other half. So it never covers less than 95 %, ties or not. Too few of `outside` to say how
    high t may be (fewer than about 4.4 / `share`) leave 0 as the lower end.
    """
    tail = _TAIL / 2
    ordered = np.sort(outside)[::-1]
    cdf = _binomial_cdf(len(ordered), share)  # P(at most k pass t)
    surely = int(np.searchsorted(cdf, tail, side="right"))  # largest k with P(fewer than k) ≤ tail
    hardly = int(np.searchsorted(cdf, 1 - tail)) + 1  # smallest k with P(k or more) ≤ tail
    low, high = 0.0, 1.0
    if surely:
        found = int((inside > ordered[surely - 1]).sum())
        low, _ = clopper_pearson(found, len(inside), tail=tail)
    if hardly <= len(ordered):
        found = int((inside > ordered[hardly - 1]).sum())
        _, high = clopper_pearson(found, len(inside), tail=tail)
    return low, high


def _binomial_cdf(n: int, p: float) -> Floats:
    """P(Bin(n, p) ≤ k) for k = 0 … n; 0 < p < 1."""
    k = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    logs = factorials[n] - factorials - factorials[::-1] + k * math.log(p)
    logs += (n - k) * math.log1p(-p)
    cdf: Floats = np.minimum(1.0, np.cumsum(np.exp(logs)))
    return cdf


def quantile(values: Floats, q: float) -> tuple[float, float, float]:
    """The `q` quantile with a distribution-free interval between two of the values.

    Conover, "Practical Nonparametric Statistics", section 3.2: how many values lie below a quantile
    is binomial. Too few values to reach 95 % on one side give the extreme value there.
    """
    ordered, n = np.sort(values), len(values)
    if 0 < q < 1:
        cdf = _binomial_cdf(n, q)
        low = int(np.searchsorted(cdf, _TAIL))  # largest rank with P(Bin < rank) ≤ tail
        high = int(np.searchsorted(cdf, 1 - _TAIL))
    else:
        low = high = 0 if q == 0 else n - 1
    at = float(np.quantile(ordered, q))
    lowest = float(ordered[min(max(low - 1, 0), n - 1)])
    return at, min(at, lowest), max(at, float(ordered[min(high, n - 1)]))


def mean(values: Floats, bounds: Interval | None = None) -> Interval:
    """The interval of a mean: Wilson's for shares (0 or 1, bounded so), otherwise the bootstrap's.

    Values that are all the same tell a bootstrap nothing. Then the share of items that could differ
    unseen is bounded (Clopper–Pearson), each as far off as `bounds` allow.
    """
    if bounds == (0.0, 1.0) and np.isin(values, (0.0, 1.0)).all():
        return wilson(float(values.sum()), len(values))
    if np.ptp(values) == 0:
        return _constant(float(values[0]), len(values), bounds)
    total = len(values)
    return bootstrap(lambda weights: weights @ values / total, total, bounds=bounds)


def difference(first: Floats, second: Floats, bounds: Interval | None = None) -> Interval:
    """The interval of mean(first − second) over the same items.

    `bounds` are those of one difference, e.g. (−1, 1) for grades.
    """
    gaps = first - second
    if np.ptp(gaps) == 0:
        return _constant(float(gaps[0]), len(gaps), bounds)
    total = len(gaps)
    return bootstrap(lambda weights: weights @ gaps / total, total, bounds=bounds)


def _constant(value: float, n: int, bounds: Interval | None) -> Interval:
    if bounds is None:
        return value, value
    unseen = 1 - _TAIL ** (1 / n)
    return value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    bounds: Interval | None = None,
    apart: Sequence[int] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The bias-corrected, accelerated bootstrap interval over items.

    Efron, "Better Bootstrap Confidence Intervals" (1987). The statistic gets the items' weights (how
    often each was drawn), shape (b, n), and returns b numbers.

    Args:
        n: items; at least 1.
        apart: how many of the items, from the first on, belong to each of several samples; each
            resample draws as many from each of them. One sample when empty.
        bounds: of the statistic; where no resample differs, as for a single item, the interval is
            that of `mean` for values that are all the same.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // n)
    drawn = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        weights = [rng.multinomial(k, np.full(k, 1 / k), size=count) for k in apart or (n,)]
        drawn.append(statistic(np.concatenate(weights, axis=1).astype(np.float64)))
    found = np.sort(np.concatenate(drawn))
    estimate = float(statistic(np.ones((1, n)))[0])
    # Ties count half, so that a lumpy statistic is not corrected for a bias it does not have.
    below = float((found < estimate).mean() + (found == estimate).mean() / 2)
    if found[-1] - found[0] <= 1e-12 * abs(
        estimate
    ):  # sums of equal numbers may differ in the last
        return _constant(estimate, n, bounds)
    if not 0 < below < 1:
        return min(estimate, float(found[0])), max(estimate, float(found[-1]))
    normal = NormalDist()
    shift, acceleration = normal.inv_cdf(below), _acceleration(statistic, n, rows)
    ends = []
    for tail in (_TAIL, 1 - _TAIL):
        z = shift + normal.inv_cdf(tail)
        # A heavy skew can push the correction over its pole; the plain percentile remains.
        scale = 1 - acceleration * z
        level = normal.cdf(shift + z / scale) if scale > 0 else tail
        ends.append(float(np.quantile(found, level)))
    return min(ends[0], estimate), max(ends[1], estimate)


def _acceleration(statistic: Statistic, n: int, rows: int) -> float:
    """The skew of the statistic, from leaving out one item at a time (at most 2,000 of them)."""
    left_out: NDArray[np.int_] = np.unique(np.linspace(0, n - 1, min(n, 2000)).astype(int))
    found = []
    for start in range(0, len(left_out), rows):
        chosen = left_out[start : start + rows]
        weights = np.ones((len(chosen), n))
        weights[np.arange(len(chosen)), chosen] = 0
        if n > 1:
            weights *= n / (n - 1)
        found.append(statistic(weights))
    each = np.concatenate(found)
    gaps = each.mean() - each
    largest = float(np.abs(gaps).max())
    if largest == 0:
        return 0.0
    gaps /= largest  # the skew has no scale, and powers of tiny numbers vanish
    spread = float((gaps**2).sum())
    return float((gaps**3).sum()) / (6 * spread * math.sqrt(spread))
