"""Is a confidence of 0.8 right in 80 % of cases? The arrays of a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Item


@dataclass(frozen=True)
class Reliability:
    """One entry per bin that holds items; bins are equally wide over [0, 1].

    Attributes:
        lower, upper: the bin's edges.
        count: items in it.
        confidence, grade: their means there; equal for a calibrated model.
        low, high: the grade's 95 % interval.
        error: the expected calibration error, the mean gap between the two weighed by count
            (Guo et al., "On Calibration of Modern Neural Networks", 2017), with its interval.
        n: items in all.
    """

    lower: Floats
    upper: Floats
    count: NDArray[np.int_]
    confidence: Floats
    grade: Floats
    low: Floats
    high: Floats
    error: float
    error_low: float
    error_high: float
    n: int


def reliability(
    items: Sequence[Item], bins: int = 10, *, by: Literal["small", "large", "both"] = "small"
) -> Reliability | None:
    """How the confidence of the answers given `by` that party compares with their grades.

    None when no answer has a confidence. A cascade's small model answers only where it is sure, so
    its bins are those above the threshold; the point "small" shows all of them.
    """
    chosen = [i for i in items if i.answer.by == by and i.answer.confidence is not None]
    if not chosen:
        return None
    confidence = np.array([i.answer.confidence for i in chosen], dtype=np.float64)
    grade = np.array([i.grade for i in chosen], dtype=np.float64)
    which = np.clip((confidence * bins).astype(np.int_), 0, bins - 1)
    filled = np.unique(which)
    ends = [intervals.mean(grade[which == b], (0.0, 1.0)) for b in filled]
    n = len(chosen)
    gaps = (confidence - grade)[:, None] * (which[:, None] == filled)  # (n, filled bins)

    def error(weights: Floats) -> Floats:
        total: Floats = np.abs(weights @ gaps).sum(axis=1) / n
        return total

    low, high = intervals.bootstrap(error, n, bounds=(0.0, 1.0))
    return Reliability(
        lower=filled / bins,
        upper=(filled + 1) / bins,
        count=np.array([(which == b).sum() for b in filled], dtype=np.int_),
        confidence=np.array([confidence[which == b].mean() for b in filled]),
        grade=np.array([grade[which == b].mean() for b in filled]),
        low=np.array([end[0] for end in ends]),
        high=np.array([end[1] for end in ends]),
        error=float(error(np.ones((1, n)))[0]),
        error_low=low,
        error_high=high,
        n=n,
    )
