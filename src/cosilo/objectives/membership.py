"""Membership: can anybody tell which records a strategy learned from?

Two numbers, since two parties may ask. `membership` is about what preparing sent to the LM's owner:
its members are the records in those messages, or, where only the LM's own texts went back to it, the
records that could choose them. `model_membership` is about the trained small model, for those who
publish it: its members are what it was given to learn from. Neither is part of `privacy`, which is
about values: that a text was among the records is another thing to know.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cosilo.attacks.base import attacks
from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Measurement, Objective, Run, objectives
from cosilo.objectives.reading import reading
from cosilo.objectives.scoring import learned_by, member_scores


def auc(inside: Floats, outside: Floats) -> tuple[float, float, float]:
    """The chance that a record scores higher than a stranger, ties counting half, and its interval.

    The bootstrap draws as many records as there are, and as many strangers. Where all of one side
    score above all of the other there is no spread to draw from, and the interval is that of a share of
    the smaller side.
    """
    wins = _wins(inside, outside)
    value, n, m = float(wins.mean()), *wins.shape
    if value in (0.0, 1.0):
        low, high = intervals.wilson(value * min(n, m), min(n, m))
        return value, low, high

    def statistic(weights: Floats) -> Floats:
        a, b = weights[:, :n], weights[:, n:]
        total = a.sum(axis=1) * b.sum(axis=1)
        found: Floats = ((a @ wins) * b).sum(axis=1) / np.maximum(total, 1e-12)
        return found

    low, high = intervals.bootstrap(statistic, n + m, apart=(n, m))
    return value, low, high


def tpr(inside: Floats, outside: Floats, *, fpr: float = 0.01) -> tuple[float, float, float]:
    """The share of records that score above all but `fpr` of the strangers, and its interval.

    The score that so few strangers reach is itself known by these strangers alone, and the interval
    says so: it begins at 0 for fewer than about 440 of them at 1 %.
    """
    threshold = np.sort(outside)[::-1][int(fpr * len(outside))]
    found = float((inside > threshold).mean())
    low, high = intervals.share_above(inside, outside, share=fpr)
    return found, min(low, found), max(high, found)


def _wins(inside: Floats, outside: Floats) -> Floats:
    """Shape (inside, outside): 1 where the first scores higher, ½ where they tie."""
    gaps = inside[:, None] - outside[None, :]
    found: Floats = (np.sign(gaps) + 1) / 2
    return found


class _Membership:
    objective: ClassVar[Objective]
    about: ClassVar[str]

    def applies(self, run: Run) -> bool:
        raise NotImplementedError

    def values(self, run: Run) -> Floats | None:
        return None  # an area compares items with one another: they have no values of their own

    def __call__(self, run: Run) -> Measurement | None:
        if not self.applies(run) or not learned_by(run):
            return None
        found = {
            name: scores
            for name, guesses in run.guesses.items()
            if attacks.create(name).about == self.about
            and (scores := member_scores(run, guesses, about=self.about)) is not None
        }
        if not found:
            return None
        name = max(found, key=lambda name: float(_wins(*found[name]).mean()))
        inside, outside = found[name]
        prior = member_scores(run, run.priors.get(name, ()), about=self.about)
        value, low, high = auc(inside, outside)
        rate, *ends = tpr(inside, outside)
        return Measurement(
            self.objective,
            value,
            len(inside) + len(outside),
            low,
            high,
            baseline=float(_wins(*prior).mean()) if prior else None,
            note=(
                f"strongest attack: {name}; true positives at 1 % false ones: {100 * rate:.1f} % "
                f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
            ),
        )


@objectives.register("membership")
class RecordMembership(_Membership):
    """How well the strongest attack tells the texts that preparing learned from, from others of their
    kind, by what preparing sent up: the area under its ROC curve. 0.5 is guessing."""

    objective: ClassVar[Objective] = Objective("membership", "privacy", "min", "AUC")
    about: ClassVar[str] = "members"

    def applies(self, run: Run) -> bool:
        return reading(run).prepared.messages > 0


@objectives.register("model_membership")
class ModelMembership(_Membership):
    """How well the strongest attack tells the texts that the trained small model learned from, from
    others of their kind, by the model itself: the area under its ROC curve. For owners who publish
    it.
    """

    objective: ClassVar[Objective] = Objective("model_membership", "privacy", "min", "AUC")
    about: ClassVar[str] = "published"

    def applies(self, run: Run) -> bool:
        return True
