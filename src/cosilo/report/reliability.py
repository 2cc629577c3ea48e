"""Can a confidence be believed? Bins of confidence against how often the answers were right.

Guo et al., "On Calibration of Modern Neural Networks" (2017): ten bins of equal width, and the
expected calibration error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosilo.objectives import intervals
from cosilo.report.data import Bin, Reliability


def reliability(
    confidences: Sequence[float], grades: Sequence[float], *, about: str, bins: int = 10
) -> Reliability | None:
    """The diagram of answers with these confidences and grades; None when there are none.

    Args:
        confidences, grades: 0 … 1, one of each per answer.
    """
    sure = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(grades, dtype=np.float64)
    if not len(sure):
        return None
    # Full confidence belongs to the last bin; there is no bin above it.
    place = np.minimum((sure * bins).astype(int), bins - 1)
    found = []
    for i in np.unique(place):
        here = right[place == i]
        low, high = intervals.mean(here, (0.0, 1.0))
        confidence, accuracy = float(sure[place == i].mean()), float(here.mean())
        edges = float(i) / bins, float(i + 1) / bins
        found.append(Bin(*edges, len(here), confidence, accuracy, max(low, 0.0), min(high, 1.0)))
    error = sum(b.n * abs(b.confidence - b.accuracy) for b in found) / len(sure)
    return Reliability(about, tuple(found), error, len(sure))
