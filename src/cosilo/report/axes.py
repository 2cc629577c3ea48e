"""The two objectives a front is drawn over, and round numbers along an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cosilo.objectives.base import Measurement
from cosilo.report.data import Report
from cosilo.selection import Point


def default_axes(report: Report) -> tuple[str, str] | None:
    """(x, y): what a reader wants to see first, utility over money; None without two objectives."""
    known = report.objectives
    ranked = sorted(known, key=lambda o: o.name not in report.front_objectives)
    y = next((o for o in ranked if o.family == "utility"), None)
    y = y or next(iter(ranked), None)
    others = [o for o in ranked if o != y]
    x = next((o for o in others if o.family == "efficiency"), None) or next(iter(others), None)
    return (x.name, y.name) if x is not None and y is not None else None


@dataclass(frozen=True)
class Axis:
    """From values to places along `length` units, with round numbers to mark."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float, length: float) -> float:
        return (value - self.low) / (self.high - self.low) * length


def axis(values: list[float], *, ticks: int = 5) -> Axis:
    """An axis over all finite `values`, with some room at both ends."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    spread = high - low or abs(high) or 1.0
    start, end = low - 0.06 * spread, high + 0.06 * spread
    if low >= 0 > start:  # a cost below nothing makes no sense; zero keeps a little air
        start = -0.03 * spread
    step = 10 ** math.floor(math.log10((end - start) / ticks))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if (end - start) / (step * m) <= ticks)
    first = math.ceil(start / step - 1e-9)
    if low >= 0:
        first = max(first, 0)
    marks = []
    while first * step <= end:
        marks.append(first * step)
        first += 1
    return Axis(start, end, tuple(marks))


def known_on(
    points: tuple[Point, ...], x: str, y: str
) -> list[tuple[Point, Measurement, Measurement]]:
    """The points that were measured on both objectives on the test split, finitely."""
    found = []
    for point in points:
        across, up = point.test.get(x), point.test.get(y)
        if across is None or up is None:
            continue
        if math.isfinite(across.value) and math.isfinite(up.value):
            found.append((point, across, up))
    return found


def staircase(
    found: list[tuple[Point, Measurement, Measurement]],
) -> list[tuple[Measurement, Measurement]]:
    """The points that no other beats on both axes, from left to right."""
    turned = [(_turned(x), _turned(y), x, y) for _, x, y in found]
    best = [
        (x, y)
        for a, b, x, y in turned
        if not any(c <= a and d <= b and (c < a or d < b) for c, d, _, _ in turned)
    ]
    return sorted(best, key=lambda pair: (pair[0].value, pair[1].value))


def _turned(measurement: Measurement) -> float:
    return measurement.value if measurement.objective.goal == "min" else -measurement.value
