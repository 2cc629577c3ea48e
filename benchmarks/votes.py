"""Several recorded LMs whose votes' worth was learned: better than the best of them, or cheaper?

    python benchmarks/votes.py

Runs benchmarks/plans/cfpb_votes.toml and mmlu_votes.toml as `plans.py` does. The best LM is the one
that is right most often on the tune items. Beside each ensemble stands its accuracy less that LM's over
the same test items, and the accuracy of both where one item in ten is abstained from: the ensemble's
least sure ones (the threshold is the validation items' tenth); of the LM, whose recorded letters show
no confidence, as many at random, which leaves its accuracy as it is. The test splits are read once.
"""

from __future__ import annotations

import numpy as np

from cosilo.benchmark.measure import load_run
from cosilo.benchmark.results import Results, opened
from cosilo.objectives import intervals
from cosilo.objectives.base import Run
from kept import Kept
from plans import PLANS, RUNS, bench, keep

ABSTAINED = 0.1


def compare(results: Results, kept: Kept) -> None:
    def run(point: str, split: str = "test") -> Run:
        trial = results.trial(point)
        return load_run(results.plan, results.store, results.task, trial, split)  # type: ignore[arg-type]

    names = [p.name for p in results.points]
    cards = results.store.cards(results.trial("dawid_skene").id)
    right = next(c.tables["right on tune items"] for c in cards if c.by == "ensemble")
    alone = [name for name in names if name.startswith("large@")]
    tune = int(next(c.facts["tune items"] for c in cards if c.by == "ensemble"))
    right = {name: right[name.removeprefix("large@")] for name in alone}
    best = max(alone, key=lambda n: right[n])
    grades = {i.example.id: i.grade for i in run(best).items}
    kept.put("best on tune", best, float(right[best]), n=tune)
    for name in names:
        if name in alone:
            continue
        items = run(name).items
        own = np.array([i.grade for i in items])
        other = np.array([grades[i.example.id] for i in items])
        low, high = intervals.difference(own, other, (-1.0, 1.0))
        kept.put(name, "less best", float((own - other).mean()), n=len(own), low=low, high=high)
        print(f"{name}: {own.mean():.4f}, less {best} {(own - other).mean():+.4f}", low, high)
        sure = np.array([i.answer.confidence or 0.0 for i in items])
        before = [i.answer.confidence or 0.0 for i in run(name, "validation").items]
        kept_items = sure >= np.quantile(before, ABSTAINED)
        inside = own[kept_items]
        least, most = intervals.wilson(float(inside.sum()), len(inside))
        kept.put(name, "coverage", float(kept_items.mean()), n=len(own))
        kept.put(name, "accuracy there", float(inside.mean()), n=len(inside), low=least, high=most)
        low, high = _less_all(own, other, kept_items)
        gap = float(inside.mean() - other.mean())
        kept.put(name, "accuracy there less best", gap, n=len(own), low=low, high=high)
        print(f"   at {kept_items.mean():.3f}: {inside.mean():.4f}, less {gap:+.4f}", low, high)


def _less_all(
    own: np.ndarray, other: np.ndarray, inside: np.ndarray, resamples: int = 4000
) -> tuple[float, float]:
    """Interval of (mean of `own` inside) less (mean of all of `other`), a bootstrap over the items."""
    picks = np.random.default_rng(0).integers(0, len(own), (resamples, len(own)))
    found = [own[p][inside[p]].mean() - other[p].mean() for p in picks]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    for name in ("cfpb_votes", "mmlu_votes"):
        kept = Kept(name, fresh=not (RUNS / name).exists())
        bench(PLANS / f"{name}.toml", RUNS / name, kept)
        with opened(RUNS / name) as results:
            keep(results, kept)
            compare(results, kept)
        kept.write()


if __name__ == "__main__":
    main()
