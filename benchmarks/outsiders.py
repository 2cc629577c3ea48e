"""An owner that took no part in a federation: what the others' model does for it.

    python benchmarks/outsiders.py [--vectors /tmp/poisoned_vectors.npz]

`federated_heads.py` says of what eight owners train a head; ten rounds of ten steps, the plain
average, as in `private_federation.py`. Each owner in turn stays away, and the seven others federate.
What it has then is measured four ways: the head that it trained alone (as many steps as in all
rounds), the one that the others made without it, that one trained for ten steps more on its own items,
and the one of all eight, had it taken part. Accuracy on the test items with equal weights, and on its
own mix, where each class weighs as it does among its own training items. Three seeds draw the
division. Intervals are Student's over the 24 owners, of differences as of values; owners of one seed
are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosilo.federation import OwnerUpdate, rules
from federated_heads import (
    OWNERS,
    Data,
    Head,
    Labels,
    divided,
    nothing,
    parser,
    read,
    said,
    trained,
)
from kept import Cells, Kept

SEEDS = (0, 1, 2)
ROUNDS, STEPS, RATE = 10, 10, 100.0
WAYS = ("alone", "others", "others, tuned", "all")
MIXES = ("own mix", "all classes")


def federated(data: Data, owners: Sequence[Labels]) -> Head:
    average, head = rules.create("average"), nothing(data)
    for _ in range(ROUNDS):
        updates = [
            OwnerUpdate(
                f"owner {n}", 1.0,
                trained(head, data.train[items], data.labels[items], steps=STEPS, rate=RATE),
            )
            for n, items in enumerate(owners)
        ]  # fmt: skip
        head = dict(average(updates, head).tensors)
    return head


def accuracies(data: Data, head: Head, own: Labels) -> dict[str, float]:
    right = said(head, data.test) == data.test_labels
    counts = np.bincount(own, minlength=data.classes)
    there = np.bincount(data.test_labels, minlength=data.classes)
    weights = (counts / np.maximum(there, 1))[data.test_labels]
    return {"own mix": float(right @ weights / weights.sum()), "all classes": float(right.mean())}


def measured(data: Data, seed: int) -> list[dict[str, dict[str, float]]]:
    """Of each owner, by way and mix."""
    owners = divided(data, seed)
    whole, found = federated(data, owners), []
    for away, items in enumerate(owners):
        x, y = data.train[items], data.labels[items]
        others = federated(data, [o for n, o in enumerate(owners) if n != away])
        heads = {
            "alone": trained(nothing(data), x, y, steps=ROUNDS * STEPS, rate=RATE),
            "others": others,
            "others, tuned": trained(others, x, y, steps=STEPS, rate=RATE),
            "all": whole,
        }
        found.append({way: accuracies(data, head, y) for way, head in heads.items()})
    return found


def main() -> None:
    how = parser(__doc__ or "", Path("/tmp/outsiders_cells.json")).parse_args()
    data, cells = read(how.data, how.vectors), Cells(how.cells)
    for seed in SEEDS:
        if str(seed) not in cells.done:
            cells.put(str(seed), measured(data, seed))
    owners = [owner for seed in SEEDS for owner in cells.done[str(seed)]]
    kept = Kept("outsiders", settings={
        "owners": OWNERS, "rounds": ROUNDS, "steps": STEPS, "rate": RATE, "seeds": list(SEEDS),
    })  # fmt: skip
    for mix in MIXES:
        for way in WAYS:
            kept.put_mean(way, mix, [owner[way][mix] for owner in owners])
            if way != "alone":
                gains = [owner[way][mix] - owner["alone"][mix] for owner in owners]
                kept.put_mean(f"{way}, less alone", mix, gains)
                kept.put(f"{way}, less alone", f"{mix}, owners it is above 0 for",
                         sum(gain > 0 for gain in gains), n=len(gains))  # fmt: skip
        missed = [owner["all"][mix] - owner["others"][mix] for owner in owners]
        kept.put_mean("all, less others", mix, missed)
    for row, cells_ in kept.rows.items():
        print(row, {name: cell["value"] for name, cell in cells_.items()})
    kept.write()


if __name__ == "__main__":
    main()
