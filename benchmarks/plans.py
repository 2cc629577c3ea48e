"""Runs a plan of benchmarks/plans/ with `cosilo bench` and keeps the numbers of its test split.

    python benchmarks/plans.py cfpb_llm
    python benchmarks/plans.py cfpb_llm --as cfpb_o1 --set model=o1 usd_per_m_in=15.0 usd_per_m_out=60.0

`--set` changes options of [models.large] (and `small.NAME=…` of [models.small]) in a copy of the plan.
Runs lie in runs/NAME and resume. What is kept: of each point, every objective with its n and interval,
and `random`, the utility of asking the LM about as many items drawn at random. Of a run that was done
in one go also what was foretold of it: money, calls, and the time left from the first minute on.
The plan called demo is the one that `cosilo demo` writes.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from cosilo.benchmark.demo import write_demo
from cosilo.benchmark.estimate import Estimate
from cosilo.benchmark.plan import load_plan
from cosilo.benchmark.progress import Lines, RunSpent
from cosilo.benchmark.results import Results, opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from kept import ROOT, Kept

PLANS, RUNS = ROOT / "benchmarks" / "plans", ROOT / "runs"


def variant(plan: Path, name: str, changes: list[str]) -> Path:
    """A copy of `plan` with other options of its models."""
    text = plan.read_text("utf-8")
    for change in changes:
        key, _, value = change.partition("=")
        table, _, key = key.rpartition(".")
        head = rf"(\[models\.{table or 'large'}\][^\[]*?^{key} = )"
        literal = value if re.fullmatch(r"[\d.]+|true|false", value) else f'"{value}"'
        text, count = re.subn(rf"{head}.*?$", rf"\g<1>{literal}", text, count=1, flags=re.M | re.S)
        if not count:
            raise SystemExit(f"{plan} has no {key!r} to set in [models.{table or 'large'}]")
    folder = RUNS / "plans"  # as deep as the plan's own folder, so that its paths hold
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text, "utf-8")
    return folder / f"{name}.toml"


class Told(Lines):
    """What a user is told, and how right it was: the time left, from the first minute on."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.began = perf_counter()
        self.foretold: list[tuple[float, float]] = []  # seconds since the beginning, seconds left
        self.spent = RunSpent(0, 0.0)

    def advance(self, items: int, spent: RunSpent, left: float, here: float) -> None:
        super().advance(items, spent, left, here)
        self.spent = spent
        self.foretold.append((perf_counter() - self.began, left))


def bench(plan: Path, run: Path, kept: Kept) -> None:
    """Finish the run; what was foretold of it and what it took is kept if it was done in one go."""
    told, expected = Told(), list[Estimate]()
    store = Store(run, write=True)
    fresh = not store.paid().messages
    before = process_time()
    try:
        runner = Runner(load_plan(plan), store, reports=told, confirm=expected.append)
        outcomes = asyncio.run(runner.run())
    finally:
        store.close()
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    wall = perf_counter() - told.began
    if not expected or not fresh:
        return
    kept.put("run", "seconds", wall)
    kept.put("run", "CPU seconds", process_time() - before)
    kept.put("run", "LM calls", told.spent.calls)
    kept.put("run", "LM calls, at most", expected[0].calls)
    kept.put("run", "USD", told.spent.usd)
    kept.put("run", "USD, about", expected[0].usd)
    kept.put("run", "USD, at most", expected[0].usd_most)
    # What a user sees at each second; at the very end a second more or less is no fault of a forecast.
    shown = [(t, seen_at(told.foretold, t)) for t in range(61, int(wall) - 5)]
    if shown:
        ratios = np.array([max(left, 1.0) / (wall - at) for at, left in shown])
        within = np.mean((ratios <= 1.5) & (ratios >= 1 / 1.5))
        kept.put("run", "foretold share", float(within), n=len(ratios))
        kept.put("run", "foretold least", float(ratios.min()), n=len(ratios))
        kept.put("run", "foretold most", float(ratios.max()), n=len(ratios))
        kept.put("run", "foretold median", float(np.median(ratios)), n=len(ratios))


def seen_at(foretold: list[tuple[float, float]], now: float) -> float:
    """The seconds left that stand on the screen: those said last."""
    return next((left for at, left in reversed(foretold) if at <= now), 0.0)


def keep(results: Results, kept: Kept) -> None:
    points = {p.name: p for p in results.points}
    for point in results.points:
        for name, m in point.test.items():
            if m.n:  # otherwise there was nothing to measure it on
                kept.put(point.name, name, m.value, n=m.n, low=m.low, high=m.high)
        if {"small", "large"} <= points.keys() and "calls" in point.test:
            ends = [points[e].test["utility"].value for e in ("small", "large")]
            share = min(1.0, point.test["calls"].value)
            kept.put(point.name, "random", float(np.interp(share, [0, 1], ends)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", help="its name in benchmarks/plans")
    parser.add_argument("--as", dest="name", help="what the results are called")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    name = arguments.name or arguments.plan
    if arguments.plan == "demo":
        plan = write_demo(RUNS / "plans" / "demo")
    else:
        plan = PLANS / f"{arguments.plan}.toml"
    if arguments.set:
        plan = variant(plan, name, arguments.set)
    kept = Kept(name, fresh=not (RUNS / name).exists())
    bench(plan, RUNS / name, kept)
    with opened(RUNS / name) as results:
        keep(results, kept)
    kept.write()


if __name__ == "__main__":
    main()
