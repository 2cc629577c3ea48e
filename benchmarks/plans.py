"""Runs a plan of benchmarks/plans/ with `cosilo bench` and keeps the numbers of its test split.

    python benchmarks/plans.py cfpb_llm
    python benchmarks/plans.py cfpb_llm --as cfpb_o1 --set model=o1 usd_per_m_in=15.0 usd_per_m_out=60.0

`--set` changes options of [models.large] (and `small.NAME=…` of [models.small]) in a copy of the plan.
Runs lie in runs/NAME and resume. What is kept: of each point, every objective with its n and interval,
and `random`, the utility of asking the LM about as many items drawn at random.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from cosilo.benchmark.results import Results, opened
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


def bench(plan: Path, run: Path) -> tuple[float, float]:
    """Wall and CPU seconds of the run, which is finished afterwards."""
    began, before = perf_counter(), os.times()
    code = "import sys; from cosilo.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "bench", str(plan), "--run", str(run), "--yes"]
    subprocess.run(command, check=True)
    after = os.times()
    spent = after.children_user + after.children_system
    return perf_counter() - began, spent - before.children_user - before.children_system


def keep(results: Results, kept: Kept) -> None:
    points = {p.name: p for p in results.points}
    for point in results.points:
        for name, m in point.test.items():
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
    plan = PLANS / f"{arguments.plan}.toml"
    if arguments.set:
        plan = variant(plan, name, arguments.set)
    wall, cpu = bench(plan, RUNS / name)
    kept = Kept(name)
    with opened(RUNS / name) as results:
        keep(results, kept)
        kept.put("run", "points", len(results.points))
    kept.put("run", "seconds", wall)
    kept.put("run", "CPU seconds", cpu)
    kept.write()


if __name__ == "__main__":
    main()
