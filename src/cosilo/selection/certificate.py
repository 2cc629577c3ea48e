"""Which point holds the limits on data nobody has seen, said with a stated error.

Learn-then-Test (Angelopoulos et al., arXiv 2110.01052) in the way of Pareto Testing (Laufer-Goldshtein
et al., arXiv 2210.07913):

    validation split ──▶ an order: points that keep the limits, on the front, safest first
    certificate split ─▶ each point's p-value, in that order, until one is above delta

A point's hypothesis is "some limit is broken"; its p-value is the largest of its limits' p-values.
Every test runs at the full `delta`, and the sequence stops at the first that fails, so that the
probability of certifying any point that breaks a limit is at most `delta` (fixed-sequence testing).
Any certified point may then be chosen, by any rule.

Tests: exact binomial where values are 0 or 1 and for quantiles (the share of items over the limit);
Hoeffding–Bentkus for other bounded values; betting for limits relative to another point, on the
items' paired differences. A limit on something without bounds is checked as it was measured, and
the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cosilo.errors import ConfigError
from cosilo.objectives.base import Floats, Measurement, Objective
from cosilo.objectives.wording import amount, wanted
from cosilo.pvalues import (
    betting_items,
    betting_p,
    binomial_items,
    binomial_p,
    hoeffding_bentkus_items,
    hoeffding_bentkus_p,
)
from cosilo.registry import unknown
from cosilo.selection.front import bound_for, pareto_front, violation
from cosilo.selection.limits import Limit
from cosilo.selection.points import Point, named, objectives_of

Method = Literal["binomial", "hoeffding-bentkus", "betting", "measured"]


@dataclass(frozen=True)
class LimitTest:
    """The test of one limit on one point.

    Attributes:
        value, bound: the point's number and what the limit came down to, on the certificate split
            (on the validation split where the certificate split has no values).
        n: items the test used; 0 when it was measured elsewhere.
        p: the p-value; None for a limit that is measured, not certified.
        holds: whether `value` itself keeps the limit. It says nothing about unseen items; for those
            there is `p`, where there is one.
        needed: about how many certificate items it would take to certify the limit if further items
            had the mean seen so far; None when no number of items would do.
    """

    limit: Limit
    method: Method
    value: float
    bound: float
    n: int
    p: float | None
    holds: bool
    needed: int | None = None


@dataclass(frozen=True)
class PointTest:
    """A point that the sequence came to, with the largest p-value of its limits."""

    point: str
    p: float
    certified: bool
    limits: tuple[LimitTest, ...]


@dataclass(frozen=True)
class Certificate:
    """What could be shown, and what it was shown with.

    Attributes:
        n: items of the certificate split.
        order: every point's name in the order of testing, fixed on the validation split.
        tested: the points the sequence came to, in order.
        chosen: the certified point that is best at `prefer` on the validation split and keeps the
            limits that were only measured; None when no point was certified. Where no limit is of
            a kind that can be certified, the best point that keeps them as measured.
        nearest: without a chosen point, the one that came closest.
        needed: about how many certificate items it would take to certify `nearest`; None when no
            number of items would do.
    """

    limits: tuple[Limit, ...]
    delta: float
    n: int
    prefer: str
    order: tuple[str, ...]
    tested: tuple[PointTest, ...]
    chosen: PointTest | None
    nearest: PointTest | None = None
    needed: int | None = None

    @property
    def certified(self) -> tuple[str, ...]:
        return tuple(test.point for test in self.tested if test.certified)

    def sentence(self) -> str:
        """The result in one sentence, saying what was certified, with what, and what was not."""
        if self.chosen is not None:
            return self._granted(self.chosen)
        if self.nearest is None:
            return "no point can be certified: there are no points"
        text = f"no point can be certified with n = {self.n}; the nearest is {self.nearest.point}"
        if all(t.p is None for t in self.nearest.limits):
            return (
                f"no point keeps the limits as measured; the nearest is {self.nearest.point}: "
                f"{_misses(self.nearest)}"
            )
        if self.needed is not None:
            return f"{text}; about {self.needed:,} certificate items would be needed (an estimate)"
        return f"{text}, which no number of items would certify: {_misses(self.nearest)}"

    def _granted(self, test: PointTest) -> str:
        shown = [
            _wanted(t.limit) + (f" (of {t.n} items)" if t.limit.objective.partial else "")
            for t in test.limits
            if t.p is not None
        ]
        only = [
            f"{_wanted(t.limit)} ({amount(t.limit.objective, t.value)})"
            for t in test.limits
            if t.p is None
        ]
        measured = f"measured, not certified: {', '.join(only)}"
        if not shown:
            return f"{test.point}, {measured}"
        sure = f"with {100 * (1 - self.delta):g} % confidence: {test.point} has {', '.join(shown)}"
        return f"{sure} (n = {self.n})" + (f"; {measured}" if only else "")


def certify(
    points: Sequence[Point],
    limits: Sequence[Limit],
    *,
    delta: float = 0.05,
    prefer: str = "utility",
    ceilings: Mapping[str, float] | None = None,
) -> Certificate:
    """Test `points` against `limits` on their certificate values.

    Args:
        delta: the accepted probability of certifying any point that breaks a limit.
        prefer: the objective by which one of the certified points is chosen.
        ceilings: objective name → the most one item can have, for objectives without bounds where
            something enforces it (a budget per request); their means can then be certified too.

    Raises:
        ConfigError: no limits, a delta outside (0, 1), an unknown name, values of different items,
            or values outside their bounds.
    """
    if not limits:
        raise ConfigError("nothing to certify: no limit is given")
    if not 0 < delta < 1:
        raise ConfigError(f"delta = {delta!r} is not between 0 and 1")
    limits = tuple(_bounded(limit, ceilings or {}) for limit in limits)
    _check(points, limits)
    order = testing_order(points, limits, prefer)
    names = tuple(point.name for point in order)
    sequence: list[PointTest] = []
    for point in order:
        test = _test_point(point, limits, points, delta)
        sequence.append(replace(test, certified=test.p <= delta))
        if test.p > delta:
            break
    chosen = _choose([t for t in sequence if t.certified], points, prefer)
    if sequence and all(t.p is None for t in sequence[0].limits):  # nothing here can be tested
        everyone = [_test_point(point, limits, points, delta) for point in order]
        sequence, chosen = [], _choose(everyone, points, prefer)
    nearest, needed = (None, None) if chosen else _nearest(order, limits, points, delta)
    return Certificate(
        limits,
        delta,
        _items(points, limits),
        prefer,
        names,
        tuple(sequence),
        chosen,
        nearest,
        needed,
    )


def testing_order(points: Sequence[Point], limits: Sequence[Limit], prefer: str) -> list[Point]:
    """Most promising first, read from the validation split alone.

    Points that keep every limit come first, then those on the front of what is limited and
    `prefer`, then those with the most room to their tightest limit, in standard errors.
    """
    if not points:
        return []
    known = objectives_of(points)
    names = list(dict.fromkeys(limit.objective.name for limit in limits))
    if prefer in known and prefer not in names:
        names.append(prefer)
    front = {point.name for point in pareto_front(points, [n for n in names if n in known])}

    def key(point: Point) -> tuple[bool, bool, float, float]:
        room = min(_room(point, limit, points) for limit in limits)
        better = _preference(point, prefer)
        return violation(point, limits, points) > 0, point.name not in front, -room, -better

    return sorted(points, key=key)


def _room(point: Point, limit: Limit, points: Sequence[Point]) -> float:
    """How far inside `limit` the validation measurement lies, in its standard errors."""
    found, bound = point.validation.get(limit.objective.name), bound_for(limit, points)
    if found is None or bound is None:
        return -math.inf
    error = _standard_error(found)
    if limit.relative_to is not None and limit.relative_to != point.name:
        reference = named(points, limit.relative_to).validation[limit.objective.name]
        error = math.hypot(error, limit.bound * _standard_error(reference))
    room = bound - found.value if limit.direction == "at most" else found.value - bound
    if error == 0:
        return math.copysign(math.inf, room) if room else 0.0
    return room / error


def _standard_error(measurement: Measurement) -> float:
    return (measurement.high - measurement.low) / (2 * 1.96)


def _preference(point: Point, prefer: str) -> float:
    found = point.validation.get(prefer)
    if found is None:
        return -math.inf
    return found.value if found.objective.goal == "max" else -found.value


def _bounded(limit: Limit, ceilings: Mapping[str, float]) -> Limit:
    objective = limit.objective
    if objective.bounds is not None or objective.name not in ceilings:
        return limit
    return replace(limit, objective=replace(objective, bounds=(0.0, ceilings[objective.name])))


def _check(points: Sequence[Point], limits: Sequence[Limit]) -> None:
    known = objectives_of(points)
    for limit in limits:
        name = limit.objective.name
        if points and name not in known:
            raise ConfigError(unknown("objective", name, known))
        if points and limit.relative_to is not None:
            named(points, limit.relative_to)
        sizes = {len(p.certificate[name]) for p in points if name in p.certificate}
        if len(sizes) > 1:
            raise ConfigError(
                f"objective {name!r} has values of {min(sizes)} and of {max(sizes)} items on the "
                "certificate split; all points must be measured on the same items"
            )
        if limit.relative_to is not None and limit.objective.partial:
            raise ConfigError(
                f"objective {name!r} is about other items at each point, so it has no limit relative "
                "to another point's: give a number"
            )
        for point in points:
            if limit.objective.partial:
                continue
            if np.isnan(point.certificate.get(name, ())).any():  # it would pass every comparison
                raise ConfigError(f"objective {name!r} of {point.name!r} has values that are none")


def _items(points: Sequence[Point], limits: Sequence[Limit]) -> int:
    return max(
        (len(p.certificate.get(limit.objective.name, ())) for p in points for limit in limits),
        default=0,
    )


def _test_point(
    point: Point, limits: Sequence[Limit], points: Sequence[Point], delta: float
) -> PointTest:
    tests = tuple(_test(point, limit, points, delta) for limit in limits)
    p = max((t.p for t in tests if t.p is not None), default=0.0)
    # Without a single p-value nothing is shown, however well the measured limits are kept.
    if not any(t.p is not None for t in tests):
        p = 1.0
    return PointTest(point.name, p, False, tests)


def _test(point: Point, limit: Limit, points: Sequence[Point], delta: float) -> LimitTest:
    objective = limit.objective
    values = _values(point, objective)
    reference = None
    if limit.relative_to is not None:
        reference = _values(named(points, limit.relative_to), objective)
    compared = limit.relative_to is None or reference is not None
    if values is None or not compared or not _testable(limit):
        return _measured(point, limit, points)
    if objective.quantile is not None:
        return _quantile_test(point, limit, values, objective.quantile, delta)
    losses, alpha = _losses(values, reference, limit)
    value = float(values.mean())
    bound = limit.bound if reference is None else limit.bound * float(reference.mean())
    holds = value <= bound if limit.direction == "at most" else value >= bound
    n = len(losses)
    best = _best_mean(losses, point, limit, points)
    if reference is not None:
        method: Method = "betting"
        p = betting_p(losses, alpha, delta=delta)
        moved = np.clip(losses + (best - losses.mean()), 0, 1)
        needed = betting_items(moved, alpha, delta)
    elif np.isin(losses, (0, 1)).all():
        method = "binomial"
        p = binomial_p(int(losses.sum()), n, alpha)
        needed = binomial_items(best, alpha, delta)
    else:
        method = "hoeffding-bentkus"
        p = hoeffding_bentkus_p(float(losses.mean()), n, alpha)
        needed = hoeffding_bentkus_items(best, alpha, delta)
    return LimitTest(limit, method, value, bound, n, p, holds, needed)


def _testable(limit: Limit) -> bool:
    """Whether items' values can be tested against `limit`: not without bounds, and not a quantile
    relative to another point's, which is itself an estimate."""
    if limit.objective.quantile is not None:
        return limit.relative_to is None
    return limit.objective.bounds is not None


def _quantile_test(
    point: Point, limit: Limit, values: Floats, quantile: float, delta: float
) -> LimitTest:
    """The `quantile` is kept when at most that share of items lies on the wrong side."""
    over = values > limit.bound if limit.direction == "at most" else values < limit.bound
    alpha = 1 - quantile if limit.direction == "at most" else quantile
    share = float(over.mean())
    return LimitTest(
        limit,
        "binomial",
        float(np.quantile(values, quantile)),
        limit.bound,
        len(values),
        binomial_p(int(over.sum()), len(values), alpha),
        share <= alpha,
        binomial_items(share, alpha, delta),
    )


def _measured(point: Point, limit: Limit, points: Sequence[Point]) -> LimitTest:
    """Check `limit` on the measured number alone, without a test: on the certificate split or,
    where it has no values, on the validation split.
    """
    value, n = _number(point, limit.objective)
    bound: float | None = limit.bound
    if limit.relative_to is not None:
        other, _ = _number(named(points, limit.relative_to), limit.objective)
        bound = None if other is None else limit.bound * other
    if value is None or bound is None:  # nothing is known of it, so it is not kept
        return LimitTest(limit, "measured", math.nan, limit.bound, 0, None, False)
    holds = value <= bound if limit.direction == "at most" else value >= bound
    return LimitTest(limit, "measured", value, bound, n, None, holds, 1 if holds else None)


def _number(point: Point, objective: Objective) -> tuple[float | None, int]:
    values = _values(point, objective)
    if values is not None:
        if objective.quantile is not None:
            return float(np.quantile(values, objective.quantile)), len(values)
        return float(values.mean()), len(values)
    found = point.validation.get(objective.name)
    return (None, 0) if found is None else (found.value, found.n)


def _values(point: Point, objective: Objective) -> Floats | None:
    found = point.certificate.get(objective.name)
    if found is None:
        return None
    values = np.asarray(found, dtype=np.float64)
    if objective.partial:  # a test on those alone is exact: which they are is given
        values = values[~np.isnan(values)]
    return values if len(values) else None


def _losses(values: Floats, reference: Floats | None, limit: Limit) -> tuple[Floats, float]:
    """Losses within [0, 1] and the mean they must not be above.

    For a relative limit the loss of an item is what it misses of `bound` times the other point's
    value, which must be 0 or less on average.
    """
    assert limit.objective.bounds is not None
    low, high = limit.objective.bounds
    for found in (values, reference):
        if found is not None and not ((found >= low - 1e-9) & (found <= high + 1e-9)).all():
            raise ConfigError(
                f"objective {limit.objective.name!r} has values outside {low:g} to {high:g}"
            )
    if limit.direction == "at least":  # a loss is the same seen from below
        values, low, high = -values, -high, -low
        reference = None if reference is None else -reference
        bound = -limit.bound
    else:
        bound = limit.bound
    if reference is None:
        return np.clip((values - low) / (high - low), 0, 1), (bound - low) / (high - low)
    factor = limit.bound
    least, most = low - factor * high, high - factor * low
    losses = (values - factor * reference - least) / (most - least)
    return np.clip(losses, 0, 1), -least / (most - least)


def _best_mean(losses: Floats, point: Point, limit: Limit, points: Sequence[Point]) -> float:
    """The mean loss over both splits: the best guess of what further items would show."""
    found = point.validation.get(limit.objective.name)
    own = float(losses.mean())
    if found is None:
        return own
    value = np.array([found.value])
    reference = None
    if limit.relative_to is not None:
        other = named(points, limit.relative_to).validation.get(limit.objective.name)
        if other is None:
            return own
        reference = np.array([other.value])
    seen, _ = _losses(value, reference, limit)
    return (own * len(losses) + float(seen[0]) * found.n) / (len(losses) + found.n)


def _choose(tests: Sequence[PointTest], points: Sequence[Point], prefer: str) -> PointTest | None:
    kept = [t for t in tests if all(x.holds for x in t.limits if x.p is None)]
    return max(kept, key=lambda t: _preference(named(points, t.point), prefer), default=None)


def _nearest(
    order: Sequence[Point], limits: Sequence[Limit], points: Sequence[Point], delta: float
) -> tuple[PointTest | None, int | None]:
    """The point that needs the fewest items more; else the one that misses the limits by least."""
    if not order:
        return None, None
    tests = [_test_point(point, limits, points, delta) for point in order]
    wants = []
    for test in tests:
        known = [t.needed for t in test.limits if t.needed is not None]
        if len(known) == len(test.limits) and test.p > delta:
            # Where the estimate says that these many should have done, it was bad luck.
            wants.append((max([*known, 1 + max(t.n for t in test.limits)]), test))
    if wants:
        needed, test = min(wants, key=lambda want: want[0])
        return test, needed
    # No point lacks only items. The first point of the order was tested and failed, so at least
    # that one has a limit that no number of items would certify: `broken` is not empty.
    broken = [test for test in tests if any(t.needed is None for t in test.limits)]
    by_name = {point.name: point for point in order}
    return min(broken, key=lambda t: violation(by_name[t.point], limits, points)), None


def _wanted(limit: Limit) -> str:
    return wanted(limit.objective, limit.bound, limit.relative_to)


def _misses(test: PointTest) -> str:
    parts = []
    for t in test.limits:
        if t.needed is not None:
            continue
        if t.n == 0 and math.isnan(t.value):
            parts.append(f"{t.limit.objective.name} was not measured")
        else:
            parts.append(f"{_wanted(t.limit)} is asked, {amount(t.limit.objective, t.value)} found")
    return ", ".join(parts)
