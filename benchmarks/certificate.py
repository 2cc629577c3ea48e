"""How often a certificate is false: simulated data sets with points at, or just over, their limits.

    python benchmarks/certificate.py [--trials 2000] [--items 240] [--delta 0.05] [--seed 0]

Each trial draws a validation and a certificate split for every point of a scenario, certifies, and
looks whether any point that breaks a limit, or sits exactly on it, was certified. Prints one line
per scenario: that rate with its 95 % Clopper–Pearson interval, and how often a point that keeps the
limits was certified. Exits 1 when an interval lies wholly above delta.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cosilo.objectives.base import Floats, Measurement, Objective
from cosilo.objectives.intervals import clopper_pearson
from cosilo.selection import Limit, Point, certify
from kept import Kept

UTILITY = Objective("utility", "utility", "max", "share")
PRIVACY = Objective("privacy", "privacy", "min", "share")
LATENCY = Objective("latency_p95_ms", "efficiency", "min", "ms", bounds=None, quantile=0.95)
KINDS = {o.name: o for o in (UTILITY, PRIVACY, LATENCY)}

ACCURACY = 0.8  # of the point "large", which relative limits refer to

# The items' values of one split, by objective, given the large model's grades on the same items.
Draw = Callable[[np.random.Generator, Floats], dict[str, Floats]]


@dataclass(frozen=True)
class Candidate:
    """A point as nature has it. `keeps`: its true means are strictly inside every limit."""

    name: str
    draw: Draw
    keeps: bool = False


@dataclass(frozen=True)
class Scenario:
    name: str
    limits: tuple[Limit, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Outcome:
    """How many trials certified a point that should not be, and one that should."""

    trials: int
    false: int
    right: int


def leaks(p: float) -> Draw:
    """Items of which a share `p` leaks."""
    return lambda rng, large: {"privacy": (rng.random(len(large)) < p).astype(np.float64)}


def grades(mean: float) -> Draw:
    """Grades between 0 and 1 (a Beta distribution), as ROUGE-L gives them."""
    return lambda rng, large: {"utility": rng.beta(4 * mean, 4 * (1 - mean), len(large))}


def waits(over: float) -> Draw:
    """Latencies of which a share `over` lies above 800 ms."""

    def draw(rng: np.random.Generator, large: Floats) -> dict[str, Floats]:
        n = len(large)
        slow = rng.random(n) < over
        return {
            "latency_p95_ms": np.where(slow, 801 + rng.exponential(200, n), rng.uniform(50, 800, n))
        }

    return draw


def beside(mended: float, broken: float) -> Draw:
    """Right where the large model is, but for a share `broken`; and on a share `mended` besides."""

    def draw(rng: np.random.Generator, large: Floats) -> dict[str, Floats]:
        luck = rng.random(len(large))
        return {"utility": np.where(large == 1, luck >= broken, luck < mended).astype(np.float64)}

    return draw


def both(*draws: Draw) -> Draw:
    return lambda rng, large: {k: v for draw in draws for k, v in draw(rng, large).items()}


def scenarios() -> list[Scenario]:
    leak, good = Limit(PRIVACY, 0.05), Limit(UTILITY, 0.7)
    relative, tail = Limit(UTILITY, 0.95, "large"), Limit(LATENCY, 800.0)
    # A mean of 0.95 * ACCURACY: what is mended and 5 % of what was right are broken again.
    edge = 0.05 + 0.05 * (1 - ACCURACY) / ACCURACY

    def five(draw: Draw) -> tuple[Candidate, ...]:
        return tuple(Candidate(f"point {i}", draw) for i in range(5))

    fine = tuple(Candidate(f"fine {i}", beside(0.15, 0.03), keeps=True) for i in range(3))
    at = tuple(Candidate(f"edge {i}", beside(0.05, edge)) for i in range(3))
    mixed = tuple(Candidate(f"fine {i}", leaks(0.01), keeps=True) for i in range(4))
    return [
        Scenario("a share, exactly at the limit", (leak,), five(leaks(0.05))),
        Scenario("a share, just over the limit", (leak,), five(leaks(0.055))),
        Scenario(
            "four points inside, three at the limit",
            (leak,),
            mixed + tuple(Candidate(f"edge {i}", leaks(0.05)) for i in range(3)),
        ),
        Scenario("grades, exactly at the limit", (good,), five(grades(0.7))),
        Scenario(
            "one limit kept, the other just broken",
            (leak, good),
            five(both(leaks(0.01), grades(0.695))),
        ),
        Scenario("95 % quantile, exactly at the limit", (tail,), five(waits(0.05))),
        Scenario("relative to large, exactly at the limit", (relative,), at),
        Scenario("relative to large, three inside, three at the limit", (relative,), fine + at),
    ]


def simulate(
    scenario: Scenario, *, trials: int, items: int, delta: float = 0.05, seed: int = 0
) -> Outcome:
    rng = np.random.default_rng(seed)
    truth = {candidate.name: candidate.keeps for candidate in scenario.candidates}
    false = right = 0
    for _ in range(trials):
        points = draw_points(rng, scenario, items)
        certified = [
            name
            for name in certify(points, scenario.limits, delta=delta).certified
            if name in truth  # not the reference itself
        ]
        false += any(not truth[name] for name in certified)
        right += any(truth[name] for name in certified)
    return Outcome(trials, false, right)


def draw_points(rng: np.random.Generator, scenario: Scenario, items: int) -> list[Point]:
    splits = [(rng.random(items) < ACCURACY).astype(np.float64) for _ in range(2)]
    points = [
        _point(candidate.name, *(candidate.draw(rng, large) for large in splits))
        for candidate in scenario.candidates
    ]
    if any(limit.relative_to for limit in scenario.limits):
        points.append(_point("large", *({"utility": large} for large in splits)))
    return points


def _point(name: str, validation: dict[str, Floats], certificate: dict[str, Floats]) -> Point:
    measured = {k: _measured(KINDS[k], v) for k, v in validation.items()}
    return Point(name, name, "simulated", validation=measured, certificate=certificate)


def _measured(objective: Objective, values: Floats) -> Measurement:
    q, n = objective.quantile, len(values)
    value = float(values.mean() if q is None else np.quantile(values, q))
    half = 1.96 * float(values.std()) / np.sqrt(n)
    return Measurement(objective, value, n, value - half, value + half)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--items", type=int, default=240)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = False
    kept = Kept(
        "certificate", seed=given.seed, settings={"items": given.items, "delta": given.delta}
    )
    for scenario in scenarios():
        outcome = simulate(
            scenario, trials=given.trials, items=given.items, delta=given.delta, seed=given.seed
        )
        low, high = clopper_pearson(outcome.false, outcome.trials)
        failed |= low > given.delta
        n = outcome.trials
        kept.put(scenario.name, "false", outcome.false / n, n=n, low=low, high=high)
        ends = clopper_pearson(outcome.right, n)
        kept.put(scenario.name, "right", outcome.right / n, n=n, low=ends[0], high=ends[1])
        print(
            f"{scenario.name:<52} false {outcome.false / outcome.trials:.4f} "
            f"[{low:.4f}, {high:.4f}]  right {outcome.right / outcome.trials:.3f}"
        )
    print(f"delta {given.delta:g}, {given.trials:,} trials of {given.items} items each")
    kept.write()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
