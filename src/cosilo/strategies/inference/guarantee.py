"""A threshold with a stated error: of what is kept at home, at most a share `wrong` is wrong.

    scores, safest first  ●●●●●●●●●●○●●●●○●●○●●○○●○○●○○○     ● right  ○ wrong
    start ───────────────────────┤
    kept, step by step    ───────┼──┼──┼──┤ the first that is not shown to hold: keep the one before

Learn-then-Test (Angelopoulos et al., arXiv 2110.01052) with thresholds in a fixed sequence: each is
tested exactly (binomial) at the full `delta`, from a start that other items chose towards keeping
more, and the first failure ends it; so the probability that the threshold taken keeps more than a share
`wrong` of wrong answers is at most `delta`, whatever the scores are worth. Poor scores keep less, they
do not break it. It speaks of questions like the calibration's, drawn as these were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.pvalues import ahead_p, binomial_p
from cosilo.registry import Loads
from cosilo.strategies.calibration import GradedReply
from cosilo.strategies.cards import Card

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LOADS = Loads(packages=("scipy",))
"""What finding a threshold loads."""

STEPS = 50
"""Thresholds from one end of the scores to the other: each a fiftieth of the items more."""

FEWEST = 0.1
"""The share of those other items that is kept at the start, at least: fewer tell too little."""

OTHERS = 0.3
"""The share of the calibration that chooses the start, where nothing was learned from other items."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What is to hold of the answers that are kept at home.

    Attributes:
        wrong: the share of them that may be wrong, above 0 and below 1.
        delta: the probability that the calibration was so lucky that it does not hold, within (0, 1).
        ahead: among so many next questions; in the long run when unset.
        right: the grade from which an answer counts as right, above 0 and at most 1.

    Raises:
        ValueError: one of them is out of its range.
    """

    wrong: float
    delta: float = 0.05
    ahead: int | None = None
    right: float = 1.0

    def __post_init__(self) -> None:
        for name in ("wrong", "delta"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} = {value!r} is not between 0 and 1")
        if self.ahead is not None and self.ahead < 1:
            raise ValueError(f"ahead = {self.ahead!r} is no number of questions")
        if not 0 < self.right <= 1:
            raise ValueError(f"right = {self.right!r} is not above 0 and at most 1")

    def losses(self, graded: Sequence[GradedReply]) -> Bools:
        """Which of them are wrong; a reply that was refused is, shape (len(graded),)."""
        return np.array([reply.grade < self.right for reply in graded], dtype=bool)

    def p(self, losses: int, kept: int, share: float) -> float:
        """The p-value of "it does not hold", from `losses` wrong of `kept`; `share` of all are kept."""
        if self.ahead is None:
            return binomial_p(losses, kept, self.wrong)
        return ahead_p(losses, kept, self.wrong, max(1, math.floor(share * self.ahead)))


@dataclass(frozen=True)
class SafeThreshold:
    """What was found: scores of at least `threshold` are kept.

    Attributes:
        threshold: infinite where nothing could be shown, so that nothing is kept.
        kept, losses: of the `n` calibration items.
        least: of the first step's p-value, which says how far off it was where nothing was shown.
    """

    threshold: float
    n: int
    kept: int
    losses: int
    least: float

    @property
    def share(self) -> float:
        return self.kept / self.n if self.n else 0.0


def safe_threshold(
    scores: Floats, losses: Bools, promise: Promise, *, steps: Sequence[float]
) -> SafeThreshold:
    """The threshold that keeps most, of those that are shown to hold `promise`.

    Args:
        scores: of the calibration items, higher for likelier right, shape (n,).
        losses: whether the small model's answer is wrong, one for each item.
        steps: thresholds in falling order, which other items chose (`steps_from`).
    """
    found = SafeThreshold(math.inf, len(scores), 0, 0, 1.0)
    for number, threshold in enumerate(steps):
        inside = scores >= threshold
        kept, lost = int(inside.sum()), int((inside & losses).sum())
        p = promise.p(lost, kept, kept / max(1, len(scores)))
        if number == 0:
            found = SafeThreshold(math.inf, len(scores), 0, 0, p)
        if p > promise.delta:
            break
        found = SafeThreshold(float(threshold), len(scores), kept, lost, found.least)
    return found


def steps_from(scores: Floats, losses: Bools, promise: Promise, n: int) -> list[float]:
    """The thresholds to test, the first being where a test on `n` other items is likeliest to succeed.

    Args:
        scores, losses: of items that the test does not read, the scores predicted for each without it.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, lost = scores[order], np.cumsum(losses[order])
    every = max(1, len(scores) // STEPS)
    ends = [k for k in range(every, len(scores) + 1, every) if _parts(ranked, k)]
    if not ends:
        return []

    def room(k: int) -> float:
        """How many standard errors of a share from `n` items the mean loss lies below the limit."""
        share = (float(lost[k - 1]) + 0.5) / (k + 1)
        return (promise.wrong - share) * math.sqrt(n * k / len(scores) / (share * (1 - share)))

    start = max((k for k in ends if k >= FEWEST * len(scores)), key=room, default=ends[-1])
    return [float(ranked[k - 1]) for k in ends if k >= start]


def divided(scores: Floats, losses: Bools, promise: Promise, *, seed: int) -> SafeThreshold:
    """`safe_threshold` where all items can be scored alike: some choose the steps, the others test."""
    order = np.random.default_rng(seed).permutation(len(scores))
    others, tested = np.split(order, [int(OTHERS * len(order))])
    steps = steps_from(scores[others], losses[others], promise, len(tested))
    return safe_threshold(scores[tested], losses[tested], promise, steps=steps)


def _parts(ranked: Floats, k: int) -> bool:
    """Whether a threshold can keep the first `k` and no more: equal scores cannot be parted."""
    return k == len(ranked) or bool(ranked[k] < ranked[k - 1])


def card(
    by: str,
    promise: Promise,
    found: SafeThreshold,
    *,
    of: str,
    kept: str = "kept at home",
    otherwise: str = "kept at home",
) -> Card:
    """What was promised and what it was shown with, for the report.

    Args:
        of: the name of the scores in that sentence, e.g. "confidence".
        kept: what was done with the answers it is about.
        otherwise: what is done with nothing where no threshold was shown to hold.
    """
    within = "in the long run" if promise.ahead is None else f"among the next {promise.ahead}"
    said = (
        f"with {100 * (1 - promise.delta):g} % confidence at most {100 * promise.wrong:g} % of the "
        f"answers {kept} are wrong, {within}"
    )
    if math.isinf(found.threshold):
        said = (
            f"nothing is {otherwise}: no threshold on the {of} was shown to hold "
            f"{100 * promise.wrong:g} % with {found.n} items (p = {found.least:.2g} at the best one)"
        )
    facts: dict[str, float | str] = {
        "promise": said,
        "items that it was shown with": found.n,
        f"{kept}, of them": found.kept,
        "wrong of those": found.losses,
    }
    return Card(by=by, title="guarantee", facts=facts)
