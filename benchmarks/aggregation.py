"""What adding up owners' adapters loses: exactly stacked, averaged, or padded to the largest rank.

    python benchmarks/aggregation.py

Eight owners' adapters of one layer, drawn at random in three shapes of layers: owners that have most in
common, and owners that have nothing; of one rank (8) or of unequal ones (2 to 16). Five draws. The
error is ‖product − Σ pₖ Bₖ Aₖ‖ / ‖Σ pₖ Bₖ Aₖ‖, each product written out in full as doubles, the weights
pₖ drawn too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosilo.federation import OwnerUpdate, rules
from cosilo.federation.updates import A, B
from cosilo.objectives.intervals import mean as mean_interval
from kept import Kept

SHAPES = ((64, 64), (576, 576), (1536, 576))
RANKS = {"rank 8": (8,) * 8, "ranks 2 to 16": (2, 2, 4, 4, 8, 8, 16, 16)}
SEEDS = 5
ALIKE = {"alike": 0.2, "unlike": None}


def updates(
    shape: tuple[int, int], ranks: Sequence[int], own: float | None, seed: int
) -> list[OwnerUpdate]:
    """Adapters of one common draw and so much of each owner's own; all their own where None."""
    rng = np.random.default_rng(seed)
    out, into = shape
    a, b = rng.normal(size=(max(ranks), into)), rng.normal(size=(out, max(ranks)))
    found = []
    for number, rank in enumerate(ranks):
        more_a, more_b = rng.normal(size=(rank, into)), rng.normal(size=(out, rank))
        if own is not None:
            more_a, more_b = a[:rank] + own * more_a, b[:, :rank] + own * more_b
        tensors = {"w" + A: more_a.astype(np.float32), "w" + B: more_b.astype(np.float32)}
        found.append(OwnerUpdate(f"{number}", float(rng.uniform(0.5, 2)), tensors))
    return found


def error(rule: str, given: Sequence[OwnerUpdate]) -> float:
    made = rules.create(rule)(given)
    total = sum(u.weight for u in given)
    exact = sum(
        u.weight / total * (u.tensors["w" + B].astype(np.float64) @ u.tensors["w" + A])
        for u in given
    )
    product = made.tensors["w" + B].astype(np.float64) @ made.tensors["w" + A]
    return float(np.linalg.norm(product - exact) / np.linalg.norm(exact))


def main() -> None:
    kept = Kept("aggregation", seed=0)
    worst = 0.0
    for shape in SHAPES:
        for ranks_name, ranks in RANKS.items():
            for alike, own in ALIKE.items():
                row = f"{shape[0]} × {shape[1]}, {ranks_name}, owners {alike}"
                given = [updates(shape, ranks, own, seed) for seed in range(SEEDS)]
                exact = [error("flora", each) for each in given]
                worst = max(worst, *exact)
                kept.put(row, "flora", max(exact), n=SEEDS)
                other = "average" if len(set(ranks)) == 1 else "hetlora"
                errors = np.array([error(other, each) for each in given])
                low, high = mean_interval(errors)
                kept.put(row, other, float(errors.mean()), n=SEEDS, low=low, high=high)
                print(row, max(exact), other, errors.mean())
    kept.put("all", "flora", worst, n=len(SHAPES) * len(RANKS) * len(ALIKE) * SEEDS)
    kept.write()


if __name__ == "__main__":
    main()
