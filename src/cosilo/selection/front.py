"""The Pareto front, its hypervolume, and the order of points under limits.

Arrays hold one row per point and one column per objective; smaller is better in every column
(`lower_is_better` turns measurements that way round).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ConfigError
from cosilo.objectives.base import Floats, Measurement
from cosilo.registry import unknown
from cosilo.selection.limits import Limit
from cosilo.selection.points import Point, named, objectives_of

Bools = NDArray[np.bool_]
Split = Literal["validation", "test"]


def pareto_mask(values: Floats) -> Bools:
    """Which rows no other row dominates: shape (n, d) → (n,).

    A row dominates another when it is nowhere larger and somewhere smaller; equal rows stay both.
    """
    keep = np.ones(len(values), dtype=np.bool_)
    for i, row in enumerate(values):
        dominated = (values <= row).all(axis=1) & (values < row).any(axis=1)
        keep[i] = not dominated.any()
    return keep


def ranks(values: Floats) -> NDArray[np.int_]:
    """The front each row is on: 0 for the Pareto front, 1 for the front without it, and so on."""
    found = np.full(len(values), -1)
    rank = 0
    while (left := np.flatnonzero(found < 0)).size:
        found[left[pareto_mask(values[left])]] = rank
        rank += 1
    return found


def hypervolume(values: Floats, reference: Floats) -> float:
    """The volume that the rows dominate, up to `reference`, exactly.

    Each point adds what the points after it do not cover (While, Bradstreet and Barone, "A Fast Way
    of Calculating Exact Hypervolumes", 2012). Rows not below the reference everywhere add nothing.

    Args:
        values: shape (n, d).
        reference: shape (d,); a volume means nothing without it, so it is always given.
    """
    inside = np.unique(values[(values < reference).all(axis=1)], axis=0)
    return _volume(inside[pareto_mask(inside)], reference)


def _volume(rows: Floats, reference: Floats) -> float:
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(reference[0] - rows[:, 0].min())
    # Worst first in one column: what a point shares with the later ones then lies on few levels.
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    total = 0.0
    for i, row in enumerate(rows):
        shared = np.unique(np.maximum(rows[i + 1 :], row), axis=0)
        own = float(np.prod(reference - row))
        total += own - _volume(shared[pareto_mask(shared)], reference)
    return total


def lower_is_better(
    points: Sequence[Point], objectives: Sequence[str], *, split: Split = "validation"
) -> Floats:
    """The points' measurements, negated where more is better: shape (points, objectives).

    A point that an objective was not measured on is worst there (infinite).

    Raises:
        ConfigError: no point has such an objective.
    """
    known = objectives_of(points)
    for name in objectives:
        if name not in known:
            raise ConfigError(unknown("objective", name, known))
    rows = [[_turned(_measured(p, split).get(name)) for name in objectives] for p in points]
    return np.array(rows, dtype=np.float64).reshape(len(points), len(objectives))


def _measured(point: Point, split: Split) -> Mapping[str, Measurement]:
    return point.validation if split == "validation" else point.test


def _turned(measurement: Measurement | None) -> float:
    if measurement is None:
        return math.inf
    return measurement.value if measurement.objective.goal == "min" else -measurement.value


def pareto_front(points: Sequence[Point], objectives: Sequence[str]) -> list[Point]:
    """The points that no other dominates on the validation split, in the given order.

    Raises:
        ConfigError: no point has such an objective.
    """
    mask = pareto_mask(lower_is_better(points, objectives))
    return [point for point, keep in zip(points, mask, strict=True) if keep]


def dominating(point: Point, points: Sequence[Point], objectives: Sequence[str]) -> list[Point]:
    """Those of `points` that are nowhere worse than `point` on the validation split and somewhere
    better, in the given order.

    Raises:
        ConfigError: no point has such an objective.
    """
    own, *others = lower_is_better([point, *points], objectives)
    pairs = zip(points, others, strict=True)
    return [other for other, row in pairs if (row <= own).all() and (row < own).any()]


def bound_for(limit: Limit, points: Sequence[Point]) -> float | None:
    """The number that `limit` comes down to on the validation split.

    None when the point it is relative to was not measured.

    Raises:
        ConfigError: it is relative to a point that does not exist.
    """
    if limit.relative_to is None:
        return limit.bound
    reference = named(points, limit.relative_to).validation.get(limit.objective.name)
    return None if reference is None else limit.bound * reference.value


def violation(point: Point, limits: Iterable[Limit], points: Sequence[Point]) -> float:
    """By how much `point` misses the limits on the validation split; 0 when it keeps all of them.

    The sum of the misses, each as a share of its bound (Deb et al., NSGA-II, 2002, with normalised
    constraints). What was not measured counts as an infinite miss: in doubt a limit is not kept.
    """
    total = 0.0
    for limit in limits:
        bound, found = bound_for(limit, points), point.validation.get(limit.objective.name)
        if bound is None or found is None:
            return math.inf
        miss = found.value - bound if limit.direction == "at most" else bound - found.value
        total += max(0.0, miss) / (abs(bound) or 1.0)
    return total


def feasible(points: Sequence[Point], limits: Sequence[Limit]) -> list[Point]:
    """The points that keep every limit on the validation split, in the given order."""
    return [point for point in points if violation(point, limits, points) == 0]


def constrained_order(
    points: Sequence[Point], limits: Sequence[Limit], objectives: Sequence[str]
) -> list[Point]:
    """Best first, by Deb's rules: a feasible point before an infeasible one, feasible ones by front
    (and on one front by their distance from the others), infeasible ones by their violation.

    Raises:
        ConfigError: no point has such an objective, or a limit is relative to no point.
    """
    values = lower_is_better(points, objectives)
    misses = [violation(point, limits, points) for point in points]
    rank = ranks(values)
    spread = np.zeros(len(points))
    for front in np.unique(rank):
        members = np.flatnonzero(rank == front)
        spread[members] = crowding(values[members])
    order = sorted(
        range(len(points)),
        key=lambda i: (misses[i], 0, 0.0) if misses[i] else (0.0, int(rank[i]), -spread[i]),
    )
    return [points[i] for i in order]


def crowding(values: Floats) -> Floats:
    """Each row's distance from its neighbours, infinite at the ends of a column: (n, d) → (n,).

    Deb et al., NSGA-II (2002); the columns are scaled to their own range.
    """
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        span = ordered[-1] - ordered[0] if len(ordered) else 0.0
        if not (np.isfinite(span) and span > 0):
            continue
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance
