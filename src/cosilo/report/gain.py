"""What preparing a point bought: utility over the small model as it was, and what each point cost."""

from __future__ import annotations

import numpy as np

from cosilo.objectives import intervals
from cosilo.objectives.base import Run
from cosilo.objectives.reading import reading
from cosilo.report.data import Gain


def gain(before: Run, after: Run) -> Gain | None:
    """`after`'s utility less `before`'s over the same items; None without a common item."""
    grades = {item.example.id: item.grade for item in before.items}
    pairs = [(i.grade, grades[i.example.id]) for i in after.items if i.example.id in grades]
    if not pairs:
        return None
    new, old = np.array(pairs, dtype=np.float64).T
    low, high = intervals.difference(new, old, (-1.0, 1.0))
    spent = reading(after).prepared
    return Gain(
        value=float((new - old).mean()),
        low=low,
        high=high,
        items=len(pairs),
        up=spent.bytes_up,
        down=spent.bytes_down,
        usd=spent.usd,
    )
