"""Owners who send 2,048 numbers a round (FedKSeed) beside owners who send their weights, at equal CPU.

    python benchmarks/fedkseed.py [--vectors /tmp/poisoned_vectors.npz]

`federated_heads.py` says of what eight owners train a head. An owner's round of FedKSeed is so many
steps along shared directions, each on a batch of its own items (`federation.scalars`); the scalars are
averaged, and the head is moved by them alone. FedAvg has as many rounds and owners, and in each as many
steps of gradient descent as fit into the CPU seconds that the FedKSeed of the same seed took (one
thread, a step timed before). Bytes are those of the packed tensors, up and down together.

Loss is nats per test item, of a head that begins with ln 77 at every seed; a seed draws the division,
directions and batches. Rates were set on a part of the train split (`--tune`). Test items are read
once. It resumes: what a seed gave is kept in `--cells`.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from cosilo.boundary.wire.tensors import pack
from cosilo.federation import OwnerUpdate, rules
from cosilo.federation.scalars import Directions, moved, walked
from cosilo.federation.updates import Tensors
from federated_heads import OWNERS, Data, Head, divided, nats, nothing, parser, read, said, trained
from kept import Cells, Kept

SEEDS = (0, 1, 2)
ROUNDS, DIRECTIONS, WALK, BATCH = 10, 2048, 200, 64
WALK_RATE, EPSILON = 0.3, 1e-3
AVERAGE_RATE = 100.0


def by_scalars(data: Data, seed: int, rate: float = WALK_RATE) -> Head:
    owners, head = divided(data, seed), nothing(data)
    for number in range(ROUNDS):
        directions = Directions(seed * ROUNDS + number, DIRECTIONS)
        total = np.zeros(DIRECTIONS)
        for n, items in enumerate(owners):
            drawn = np.random.default_rng([seed, number, n])
            batches = drawn.choice(items, (WALK, BATCH))

            def loss(step: int, w: Tensors, batches: Any = batches) -> float:
                return nats(w, data.train[batches[step]], data.labels[batches[step]])

            _, scalars = walked(
                loss, head, directions,
                steps=WALK, rate=rate, epsilon=EPSILON, seed=int(drawn.integers(1 << 31)),
            )  # fmt: skip
            total += scalars / OWNERS
        head = dict(moved(head, total.astype(np.float32), directions, rate=rate))
    return head


def by_average(data: Data, seed: int, steps: int) -> Head:
    owners, head, average = divided(data, seed), nothing(data), rules.create("average")
    for _ in range(ROUNDS):
        updates = [
            OwnerUpdate(
                f"owner {n}",
                1.0,
                trained(head, data.train[i], data.labels[i], steps=steps, rate=AVERAGE_RATE),
            )
            for n, i in enumerate(owners)
        ]
        head = dict(average(updates, head).tensors)
    return head


def cell(data: Data, seed: int) -> dict[str, Any]:
    begun = process_time()
    found = {"FedKSeed": by_scalars(data, seed)}
    cpu = {"FedKSeed": process_time() - begun}
    begun = process_time()
    by_average(data, seed, 2)
    each = (process_time() - begun) / 2
    steps = max(1, round(cpu["FedKSeed"] / each))
    begun = process_time()
    found["FedAvg"] = by_average(data, seed, steps)
    cpu["FedAvg"] = process_time() - begun
    return {
        name: {
            "nats": nats(head, data.test, data.test_labels),
            "accuracy": float((said(head, data.test) == data.test_labels).mean()),
            "cpu": cpu[name], "steps": WALK if name == "FedKSeed" else steps,
        }
        for name, head in found.items()
    }  # fmt: skip


def main() -> None:
    given = parser(__doc__, Path("/tmp/fedkseed.json")).parse_args()
    data = read(given.data, given.vectors)
    if given.tune:
        for rate in (0.03, 0.1, 0.3, 1.0):
            begun, head = process_time(), by_scalars(data, 0, rate)
            held = nats(head, data.validation, data.validation_labels)
            print(rate, held, process_time() - begun, flush=True)
        return
    cells = Cells(given.cells)
    for seed in SEEDS:
        if str(seed) not in cells.done:
            cells.put(str(seed), cell(data, seed))
            print(seed, cells.done[str(seed)], flush=True)
    done = [cells.done[str(seed)] for seed in SEEDS]
    kept = Kept("fedkseed", settings={
        "owners": OWNERS, "rounds": ROUNDS, "directions": DIRECTIONS, "walk": WALK, "batch": BATCH,
        "walk_rate": WALK_RATE, "average_rate": AVERAGE_RATE, "seeds": list(SEEDS),
    })  # fmt: skip
    start = nats(nothing(data), data.test, data.test_labels)
    kept.put("all", "nats before", start, n=len(data.test))
    kept.put("all", "majority class", data.base_rate, n=len(data.test))
    sent = {"FedKSeed": {"scalars": np.zeros(DIRECTIONS, np.float32)}, "FedAvg": nothing(data)}
    for name, tensors in sent.items():
        here = [each[name] for each in done]
        for column in ("nats", "accuracy", "cpu"):
            kept.put_mean(name, column, [each[column] for each in here])
        falls = [start - each["nats"] for each in here]
        kept.put_mean(name, "fall", falls)
        spread = statistics.stdev(falls)
        kept.put(name, "spread", spread, n=len(falls))
        kept.put(name, "fall over spread", statistics.fmean(falls) / spread, n=len(falls))
        kept.put(name, "steps", statistics.fmean(each["steps"] for each in here))
        kept.put(name, "bytes", 2 * len(pack(tensors)))
    kept.write()


if __name__ == "__main__":
    main()
