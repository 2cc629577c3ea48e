"""Three recorded LMs of three makers, each alone and all together: is their majority better?

    python benchmarks/ensemble.py

Runs benchmarks/plans/cfpb_ensemble.toml as `plans.py` does, and adds what only all together tell: the
majority's accuracy less each one's over the same items, how often they agree, and what harm one of them
can do by lying in a tenth of its replies. The test split is read for these numbers; nothing was chosen
by it.
"""

from __future__ import annotations

import numpy as np

from cosilo.benchmark.measure import load_run
from cosilo.benchmark.results import Results, opened
from cosilo.objectives import intervals
from cosilo.objectives.base import Run
from kept import Kept
from plans import PLANS, RUNS, bench, keep

NAME, TOGETHER = "cfpb_ensemble", "ensemble"


def compare(results: Results, kept: Kept) -> None:
    def run(point: str) -> Run:
        return load_run(results.plan, results.store, results.task, results.trial(point), "test")

    whole = run(TOGETHER)
    grades = np.array([item.grade for item in whole.items])
    for point in (p.name for p in results.points if p.name != TOGETHER):
        alone = {item.example.id: item.grade for item in run(point).items}
        other = np.array([alone[item.example.id] for item in whole.items])
        low, high = intervals.difference(grades, other, (-1.0, 1.0))
        gap = float((grades - other).mean())
        kept.put(TOGETHER, f"less {point}", gap, n=len(grades), low=low, high=high)
    count_of = len(whole.sides)  # how sure an ensemble is says how many agreed
    agree = np.array([round((item.answer.confidence or 0.0) * count_of) for item in whole.items])
    for count in range(1, count_of + 1):
        here = grades[agree == count]
        share = intervals.wilson(float(len(here)), len(grades))
        kept.put(
            f"{count} agree",
            "share",
            len(here) / len(grades),
            n=len(grades),
            low=share[0],
            high=share[1],
        )
        if len(here):
            low, high = intervals.wilson(float(here.sum()), len(here))
            kept.put(
                f"{count} agree", "accuracy", float(here.mean()), n=len(here), low=low, high=high
            )


def one_lies(kept: Kept, liar: str) -> None:
    """The harm that `liar` can do alone, to itself and to the majority that it is one of."""
    name = f"{NAME}_{liar}_lies"
    text = (PLANS / f"{NAME}.toml").read_text("utf-8")
    folder = RUNS / "plans"  # as deep as the plan's own folder, so that its paths hold
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / f"{name}.toml"
    plan.write_text(f'{text}\n[attacks]\nnames = []\ntamper_by = ["{liar}"]\n', "utf-8")
    bench(plan, RUNS / name, kept)
    with opened(RUNS / name) as results:
        for point in results.points:
            if point.name in (TOGETHER, f"large@{liar}"):
                m = point.test["integrity"]
                row = f"{point.name}, {liar} lies"
                kept.put(row, "integrity", m.value, n=m.n, low=m.low, high=m.high)


def main() -> None:
    kept = Kept(NAME, fresh=not (RUNS / NAME).exists())
    bench(PLANS / f"{NAME}.toml", RUNS / NAME, kept)
    with opened(RUNS / NAME) as results:
        keep(results, kept)
        compare(results, kept)
    for liar in ("gpt", "claude", "gemini"):
        one_lies(kept, liar)
    kept.write()


if __name__ == "__main__":
    main()
