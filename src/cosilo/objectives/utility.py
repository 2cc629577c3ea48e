"""Utility: how good the answers are by the task's own grade."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np

from cosilo.objectives.base import Floats, Item, Objective, Run, objectives
from cosilo.objectives.mean import Mean


@objectives.register("utility")
class Utility(Mean):
    """The mean grade; its base rate is the best single answer to everything (exactly matched)."""

    objective: ClassVar[Objective] = Objective("utility", "utility", "max", "share")

    def values(self, run: Run) -> Floats | None:
        return grades(run.items)

    def baseline(self, run: Run) -> float | None:
        return best_constant(run.items)


def grades(items: tuple[Item, ...]) -> Floats:
    return np.array([item.grade for item in items], dtype=np.float64)


def best_constant(items: tuple[Item, ...]) -> float | None:
    """The share of items that accept the most widely accepted target; None without targets."""
    accepted = Counter(target for item in items for target in set(item.example.targets))
    return max(accepted.values()) / len(items) if accepted else None
