"""What is read out of one owner's update, of sums of several, and of one under its masks; see
`secure_aggregation.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosilo.attacks.updates import pursue, recovered
from cosilo.federation.secure import coordinator, owner
from cosilo.federation.secure.fixed_point import FixedPoint
from cosilo.federation.updates import flat, shaped
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import with_adapter
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.depth import without
from cosilo.models.white_box.lm import TorchModel
from cosilo.objectives.intervals import wilson
from cosilo.objectives.membership import auc
from kept import Cells, Kept
from upward_attacks import BATCH, Bench
from upward_owner import difference, rows_of

OWNERS, STEPS = 8, 2
TEXTS = STEPS * BATCH
SIZES = (1, 2, 4, 6, 8)
Change = dict[str, NDArray[np.float32]]


class Sums:
    """Eight owners of one seed, and eight who take no part."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.seed = bench, seed
        at = 800 + seed * 2 * OWNERS * TEXTS
        self.texts = [bench.own[at + o * TEXTS : at + (o + 1) * TEXTS] for o in range(2 * OWNERS)]

    def made(self, optimiser: str, of: int) -> tuple[Change, list[Tokens]]:
        """An owner's update, and what it read."""
        before, kept = self.bench.owner(self.texts[of], optimiser, True, self.seed)
        adapter, read = kept[-1]
        return difference(adapter, before), read

    @cached_property
    def gradients(self) -> NDArray[np.float32]:
        """Which way training on each text would go, owner after owner, shape (texts, numbers)."""
        first, _ = self.bench.owner(self.texts[0], "sgd", True, self.seed)
        module = with_adapter(self.bench.module, first)
        own = {_plain(n): p.requires_grad_() for n, p in module.named_parameters() if "lora_" in n}
        if own.keys() != first.tensors.keys():
            raise SystemExit("the adapter's parameters have other names than its tensors")
        order = [own[name] for name in sorted(own)]
        found = []
        for row in (row for rows in self.texts for row in rows):
            with torch.enable_grad():
                loss = reply_loss(module, [self.bench.chat(row)])
            made = torch.autograd.grad(loss, order)
            found.append(np.concatenate([-g.numpy().ravel() for g in made]))
        return np.stack(found)

    def measured(
        self, optimiser: str, most: int, once: Callable[[str, Callable[[], Any]], None]
    ) -> None:
        """Have `once` do what was not done: of `most` groups of each size at most."""
        made = [self.made(optimiser, of) for of in range(OWNERS)]
        for size in SIZES:
            for at in range(0, OWNERS - size + 1, size)[:most]:
                group = range(at, at + size)
                once(
                    f"{optimiser} {size} {self.seed} {at}",
                    lambda g=group: self.read(
                        {n: np.sum([made[o][0][n] for o in g], axis=0, dtype=np.float32)
                         for n in made[0][0]},
                        [s for o in g for s in made[o][1]],
                        g,
                    ),
                )  # fmt: skip
        for of, change in enumerate(masked(made, self.seed)[:most]):
            once(
                f"{optimiser} masked {self.seed} {of}",
                lambda c=change, o=of: self.read(c, made[o][1], [o]),
            )

    def read(
        self, change: Change, sequences: Sequence[Tokens], group: Sequence[int]
    ) -> dict[str, Any]:
        """What `change`, made of what the owners of `group` read, says of it."""
        truth, known = self.bench.truth(sequences), self.bench.template
        told = pursue(
            rows_of(change), self.bench.inputs, count=len(truth), known=known,
            common=self.bench.common,
        )  # fmt: skip
        way = flat(change).astype(np.float32)
        each = cosines(self.gradients, way)
        whole = cosines(self.gradients.reshape(2 * OWNERS, TEXTS, -1).sum(axis=1), way)
        among = [of * TEXTS + text for of in group for text in range(TEXTS)]
        return {
            "tokens": len(truth),
            "found": recovered(told.tokens, truth)[0],
            "common": self.bench.known_by_heart(truth, known),
            "records in": [each[i] for i in among],
            "records out": each[OWNERS * TEXTS :],
            "owners in": [whole[of] for of in group],
            "owners out": whole[OWNERS:],
        }


def cosines(rows: NDArray[np.float32], way: NDArray[np.float32]) -> list[float]:
    """What `attacks.updates.likeness` is, of each row."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(way)
    return [float(x) for x in rows @ way / np.maximum(lengths, 1e-30)]


def _plain(name: str) -> str:
    """The name of an adapter's tensor, of a parameter's."""
    return name.removeprefix("base_model.model.").replace(".default.weight", "")


def masked(made: Sequence[tuple[Change, list[Tokens]]], seed: int) -> list[Change]:
    """Each owner's update as the coordinator receives it, read as if there were no masks."""
    encoding = FixedPoint(OWNERS, 8.0)
    names = [f"owner-{of}" for of in range(OWNERS)]
    words = [encoding.encoded(flat(change)) for change, _ in made]
    states = [owner.begun(f"sum {seed}", n, w) for n, w in zip(names, words, strict=True)]
    roster = coordinator.roster_of(
        f"sum {seed}", [owner.advertised(s) for s in states], threshold=6, size=len(words[0])
    )
    shapes = {n: x.shape for n, x in made[0][0].items()}
    found = []
    for state, own in zip(states, words, strict=True):
        joined, _ = owner.joined(state, roster)
        _, vector = owner.masked(joined, roster, names, own, encoding)
        numbers = encoding.decoded(np.frombuffer(vector, encoding.sent))
        found.append(dict(shaped(numbers.astype(np.float32), shapes)))
    return found


def attacks(seeds: Sequence[int], data: Path, path: Path, most: int, layers: int) -> None:
    torch.set_num_threads(1)
    bench, cells = Bench(data), Cells(path)
    if layers < bench.model.layers:
        lower = without(bench.model.module, range(layers, bench.model.layers))
        bench.model = TorchModel.holding(lower, bench.model.tokens, name=f"{layers} layers")

    def once(name: str, work: Callable[[], Any]) -> None:
        if name not in cells.done:
            cells.put(name, work())
            print(name, cells.done[name]["found"], flush=True)

    for seed in seeds:
        sums = Sums(bench, seed)
        for optimiser in ("sgd", "adamw"):
            sums.measured(optimiser, most, once)
            put(cells.done)


def put(done: dict[str, Any]) -> None:
    kept = Kept("secure_aggregation", fresh=False)
    for optimiser in ("sgd", "adamw"):
        for what in (*map(str, SIZES), "masked"):
            rows = [row for name, row in done.items() if name.startswith(f"{optimiser} {what} ")]
            if not rows:
                continue
            place = f"{optimiser}, {what if what == 'masked' else f'sum of {what}'}"
            tokens = sum(row["tokens"] for row in rows)
            for name in ("found", "common"):
                hits = sum(row[name] * row["tokens"] for row in rows)
                low, high = wilson(hits, tokens)
                kept.put(place, name, hits / tokens, n=tokens, low=low, high=high)
            for name in ("records", "owners"):
                inside = [x for row in rows for x in row[f"{name} in"]]
                outside = [x for row in rows for x in row[f"{name} out"]]
                value, low, high = auc(np.array(inside), np.array(outside))
                n = len(inside) + len(outside)
                kept.put(place, name, value, n=n, low=low, high=high)
    kept.write()
