"""One poisoned owner of eight: what each rule of aggregation keeps of the others' work.

    python benchmarks/poisoned.py [--vectors /tmp/poisoned_vectors.npz]

`federated_heads.py` says of what eight owners train a head; ten rounds of ten steps. A seed draws the
division, who is poisoned and the trigger's target. The poisoned owner

* **flips** its labels: each question gets the next class's, on all of its items;
* **scales** an update turned around: ten times as far as its training went, the other way;
* has a **back door**: half of its items come with a phrase at their end and one class as the label;
* has a **back door, scaled**: the same, its update eight times as long, so that it replaces the mean.

Utility is accuracy on the test split, the drop paired by seed with the same rule where nobody is
poisoned. Attack success: of test items, how many are read as the next class (flip), as another class
than their own where the federation without poison read them right (scaled), as the target where the
phrase stands behind them and their class is another (back doors); each beside the same share where
nobody is poisoned. The step's length was set on a part of the train split (`--tune`). Test items are
read once. It resumes: what a federation said of the test items is kept in `--cells`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosilo.federation import OwnerUpdate, rules
from federated_heads import (
    OWNERS,
    TRIGGERED,
    Data,
    Head,
    divided,
    nothing,
    parser,
    read,
    said,
    trained,
)
from kept import Cells, Kept

SEEDS = tuple(range(5))
ROUNDS, STEPS, RATE = 10, 10, 100.0
TURNED = -10.0
ATTACKS = ("nobody", "flipped labels", "scaled update", "back door", "back door scaled")
RULES = tuple(name for name in rules.names() if name not in ("flora", "hetlora"))  # for adapters


def federated(data: Data, rule: str, attack: str, seed: int, rate: float = RATE) -> Head:
    owners, poisoned = divided(data, seed), seed % OWNERS
    made, target = rules.create(rule), target_of(seed, data)
    head = nothing(data)
    for _ in range(ROUNDS):
        updates = []
        for number, items in enumerate(owners):
            x, y, far = data.train[items], data.labels[items], 1.0
            if number == poisoned:
                if attack == "flipped labels":
                    y = (y + 1) % data.classes
                elif attack == "scaled update":
                    far = TURNED
                elif attack.startswith("back door"):
                    half = items[::2]
                    x = np.concatenate([x, data.train_with_phrase[half]])
                    y = np.concatenate([y, np.full(len(half), target)])
                    far = float(OWNERS) if attack.endswith("scaled") else 1.0
            after = trained(head, x, y, steps=STEPS, rate=rate)
            sent = {
                name: (head[name] + far * (after[name] - head[name])).astype(np.float32)
                for name in head
            }
            updates.append(OwnerUpdate(f"owner {number}", 1.0, sent))
        head = dict(made(updates, head).tensors)
    return head


def target_of(seed: int, data: Data) -> int:
    return int(np.random.default_rng([seed, 1]).integers(data.classes))


class Said:
    """What the head of a federation said of the test items, as they are and with the phrase."""

    def __init__(self, data: Data, cells: Cells, rule: str, attack: str, seed: int) -> None:
        name = f"{rule} | {attack} | {seed}"
        if name not in cells.done:
            head = federated(data, rule, attack, seed)
            plain, behind = said(head, data.test), said(head, data.with_phrase)
            cells.put(name, {"test": plain.tolist(), "with_phrase": behind.tolist()})
        self.test = np.array(cells.done[name]["test"])
        self.with_phrase = np.array(cells.done[name]["with_phrase"])


def success(data: Data, attack: str, found: Said, clean: Said, seed: int) -> float:
    """Of the test items that count, of how many the attack got what it wanted."""
    hit: NDArray[np.bool_]
    if attack == "flipped labels":
        hit = found.test == (data.test_labels + 1) % data.classes
    elif attack == "scaled update":
        hit = (found.test != data.test_labels)[clean.test == data.test_labels]
    else:
        target = target_of(seed, data)
        hit = (found.with_phrase == target)[data.test_labels[:TRIGGERED] != target]
    return float(hit.mean())


def main() -> None:
    given = parser(__doc__, Path("/tmp/poisoned.json")).parse_args()
    data = read(given.data, given.vectors)
    if given.tune:
        for rate in (10.0, 30.0, 100.0, 300.0):
            head = federated(data, "average", "nobody", 0, rate)
            print(rate, (said(head, data.validation) == data.validation_labels).mean(), flush=True)
        return
    cells = Cells(given.cells)
    kept = Kept("poisoned", settings={
        "owners": OWNERS, "rounds": ROUNDS, "steps": STEPS, "rate": RATE, "seeds": list(SEEDS),
        "test_items": len(data.test), "with_phrase": TRIGGERED,
    })  # fmt: skip
    kept.put("all", "majority class", data.base_rate, n=len(data.test))
    for rule in RULES:
        clean = [Said(data, cells, rule, "nobody", seed) for seed in SEEDS]
        right = [float((c.test == data.test_labels).mean()) for c in clean]
        kept.put_mean(f"{rule}, nobody", "accuracy", right)
        for attack in ATTACKS[1:]:
            row = f"{rule}, {attack}"
            found = [Said(data, cells, rule, attack, seed) for seed in SEEDS]
            still = [float((f.test == data.test_labels).mean()) for f in found]
            kept.put_mean(row, "accuracy", still)
            kept.put_mean(row, "drop", [a - b for a, b in zip(right, still, strict=True)])
            for column, some in (("success", found), ("base rate", clean)):
                parts = zip(some, clean, SEEDS, strict=True)
                kept.put_mean(row, column, [success(data, attack, s, c, n) for s, c, n in parts])
            print(row, {c: round(v["value"], 3) for c, v in kept.rows[row].items()}, flush=True)
    kept.write()


if __name__ == "__main__":
    main()
