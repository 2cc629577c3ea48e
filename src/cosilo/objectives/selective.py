"""What a point that chooses holds: how often it answers, and how often that is wrong.

The last two are shares of some of the items only, those that the point itself chose, so they say what
whoever reads such an answer may expect: of those the small model gave alone, of those given at all.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cosilo.objectives.base import Floats, Item, Objective, Run, objectives
from cosilo.objectives.mean import Mean
from cosilo.objectives.utility import grades


@objectives.register("answered")
class ShareAnswered(Mean):
    """The share of the items that are answered; the others are abstained from."""

    objective: ClassVar[Objective] = Objective("answered", "utility", "max", "share")

    def values(self, run: Run) -> Floats | None:
        if not any(item.answer.abstained for item in run.items):
            return None
        return np.array([not item.answer.abstained for item in run.items], dtype=np.float64)


@objectives.register("wrong_answered")
class WrongAnswered(Mean):
    """What the answers lack of a full grade, abstentions left out."""

    objective: ClassVar[Objective] = Objective(
        "wrong_answered", "utility", "min", "share of answers", partial=True
    )

    def values(self, run: Run) -> Floats | None:
        if not any(item.answer.abstained for item in run.items):
            return None
        return _lacking(run, [not item.answer.abstained for item in run.items])


@objectives.register("wrong_at_home")
class WrongAtHome(Mean):
    """What the answers that the small model gave alone lack of a full grade."""

    objective: ClassVar[Objective] = Objective(
        "wrong_at_home", "utility", "min", "share of answers kept", partial=True
    )

    def values(self, run: Run) -> Floats | None:
        return _lacking(run, [_kept(item) for item in run.items])


def _kept(item: Item) -> bool:
    return item.answer.by == "small" and not item.answer.abstained


def _lacking(run: Run, applies: list[bool]) -> Floats:
    return np.where(applies, 1.0 - grades(run.items), np.nan)
