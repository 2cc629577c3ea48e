"""How often the intervals of membership hold the true number: simulated records and strangers.

    python benchmarks/coverage.py [--trials 1000] [--seed 0]

Records' scores are drawn from N(shift, 1), strangers' from N(0, 1), and rounded down to steps where a
scenario has ties; so the true positives at 1 % false ones, and the area, are known. Prints one line per
scenario: how often the 95 % interval held the truth, with the exact interval of that share, and how
wide it was. Exits 1 when one of them is held surely less often than 92 times in a hundred.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cosilo.objectives.base import Floats
from cosilo.objectives.intervals import clopper_pearson
from cosilo.objectives.membership import auc, tpr
from kept import Kept

FPR, LEAST = 0.01, 0.92
_CDF = NormalDist().cdf


@dataclass(frozen=True)
class Scenario:
    """`step` 0: no ties."""

    measure: str
    records: int
    strangers: int
    shift: float
    step: float = 0.0

    @property
    def name(self) -> str:
        ties = f", steps of {self.step:g}" if self.step else ""
        return f"{self.measure}, {self.records} and {self.strangers}, shift {self.shift:g}{ties}"

    @property
    def truth(self) -> float:
        if self.measure == "AUC":
            assert not self.step
            return _CDF(self.shift / math.sqrt(2))
        threshold = NormalDist().inv_cdf(1 - FPR)
        if (
            self.step
        ):  # the scores above t are those of at least t + step; t is the least that will do
            threshold = self.step * math.ceil(threshold / self.step)
        return 1 - _CDF(threshold - self.shift)

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        found = rng.normal(self.shift, 1, self.records), rng.normal(0, 1, self.strangers)
        if not self.step:
            return found
        inside, outside = (np.floor(scores / self.step) * self.step for scores in found)
        return inside, outside


SCENARIOS = (
    *(Scenario("TPR", n, n, 1.0) for n in (20, 60, 100, 200, 500)),
    Scenario("TPR", 500, 500, 0.0),
    Scenario("TPR", 500, 500, 3.0),
    Scenario("TPR", 38, 500, 2.0),
    Scenario("TPR", 500, 60, 2.0),
    Scenario("TPR", 200, 200, 1.0, step=0.5),
    Scenario("TPR", 500, 500, 1.0, step=1.0),
    *(Scenario("AUC", n, n, 1.0) for n in (20, 60, 200)),
    Scenario("AUC", 38, 200, 2.0),
    Scenario("AUC", 200, 38, 0.0),
)


def covered(scenario: Scenario, *, trials: int, seed: int) -> tuple[int, float]:
    """(in how many trials the interval held the truth, its mean width)"""
    rng = np.random.default_rng(seed)
    measure = auc if scenario.measure == "AUC" else tpr
    held, width = 0, 0.0
    for _ in range(trials):
        _, low, high = measure(*scenario.draw(rng))
        held += low <= scenario.truth <= high
        width += (high - low) / trials
    return held, width


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    kept, failed = Kept("coverage", seed=given.seed), False
    for scenario in SCENARIOS:
        held, width = covered(scenario, trials=given.trials, seed=given.seed)
        low, high = clopper_pearson(held, given.trials)
        failed |= high < LEAST
        kept.put(scenario.name, "held", held / given.trials, n=given.trials, low=low, high=high)
        kept.put(scenario.name, "width", width, n=given.trials)
        print(
            f"{scenario.name:<42} true {scenario.truth:.3f}  held {held / given.trials:.3f} "
            f"[{low:.3f}, {high:.3f}]  width {width:.3f}"
        )
    kept.write()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
