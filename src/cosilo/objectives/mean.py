"""An objective whose number is the mean of its items' values."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Measurement, Objective, Run


class Mean:
    """Subclasses say what the values are, and where they have one, the base rate and a note."""

    objective: ClassVar[Objective]

    def values(self, run: Run) -> Floats | None:
        raise NotImplementedError

    def baseline(self, run: Run) -> float | None:
        return None

    def note(self, run: Run) -> str:
        return ""

    def __call__(self, run: Run) -> Measurement | None:
        values = self.values(run)
        if values is not None and self.objective.partial:
            values = values[~np.isnan(values)]
        if values is None or len(values) == 0:
            return None
        low, high = intervals.mean(values, self.objective.bounds)
        return Measurement(
            self.objective,
            float(values.mean()),
            len(values),
            low,
            high,
            self.baseline(run),
            self.note(run),
        )
