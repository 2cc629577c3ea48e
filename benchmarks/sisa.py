"""A small model trained in shards: what it costs to forget a record, and what it costs in accuracy.

    python benchmarks/sisa.py             # both, benchmarks/results/sisa.json
    python benchmarks/sisa.py head        # one of the two

Intents of customers' questions (banking77). `head`: a linear head on MiniLM's vectors, all 77 classes.
`adapter`: SmolLM2-135M with LoRA, three classes. Each seed draws its own training items and key.
A record is drawn and forgotten: the CPU seconds of training again beside those of training all, and
whether what comes of it is to the bit what comes of training that never saw it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosilo.models.base import TextModel, Trainable, models
from cosilo.models.sharded import Checkpoints, ShardedModel, Sharding, sharded
from cosilo.types import Demonstration, Sampling, user
from kept import Cells, Kept

SEEDS = (0, 1, 2)
HEAD_EACH, HEAD_TEST, HEAD_COUNTS, HEAD_FORGOTTEN = 15, 1000, (1, 2, 4, 8, 16), 2
ADAPTER_CLASSES, ADAPTER_EACH, ADAPTER_TEST = 3, 8, 30
ADAPTER_HOW = (Sharding(count=1), Sharding(count=4, slices=4))
ADAPTER_FORGOTTEN = 1
Item = Mapping[str, Any]


def items(folder: Path, split: str, seed: int) -> list[Item]:
    lines = (folder / f"{split}.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    random.Random(f"{split} {seed}").shuffle(found)
    return found


def drawn(
    folder: Path, seed: int, each: int, test: int, classes: int | None
) -> tuple[list[Demonstration], list[Demonstration], tuple[str, ...]]:
    """Training items of each class, test items, and the classes."""
    train = items(folder, "train", seed)
    names = sorted({item["label"] for item in train})
    if classes is not None:
        names = sorted(random.Random(seed).sample(names, classes))
    known = {name: 0 for name in names}
    taught = []
    for item in train:
        if known.get(item["label"], each) < each:
            known[item["label"]] += 1
            taught.append(_demonstration(item))
    asked = [_demonstration(i) for i in items(folder, "test", seed) if i["label"] in known]
    return taught, asked[:test], tuple(names)


def _demonstration(item: Item) -> Demonstration:
    return Demonstration(item["text"], user(item["text"]), item["label"])


def timed(model: Trainable, examples: Sequence[Demonstration], seed: int) -> tuple[Any, float]:
    before = time.process_time()
    return model.fit(examples, seed=seed), time.process_time() - before


def accuracy(model: TextModel, test: Sequence[Demonstration], labels: tuple[str, ...]) -> float:
    async def answers() -> list[str]:
        sampling = Sampling(choices=labels)
        asked = [model.generate(each.chat, sampling) for each in test]
        return [reply.text for reply in await asyncio.gather(*asked)]

    said = asyncio.run(answers())
    return sum(a == e.target for a, e in zip(said, test, strict=True)) / len(test)


def weights(folder: Path) -> str:
    """A hash of all that is kept in `folder`."""
    found = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.suffix in (".npz", ".safetensors")):
        found.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return found.hexdigest()


class Bench:
    def __init__(self, how: argparse.Namespace) -> None:
        self.how = how
        how.cells.mkdir(parents=True, exist_ok=True)
        self.cells = Cells(how.cells / "cells.json")

    def cell(
        self,
        name: str,
        base: TextModel,
        how: Sharding,
        seed: int,
        data: tuple[list[Demonstration], list[Demonstration], tuple[str, ...]],
        forgotten: int,
    ) -> None:
        """One training in shards, its accuracy, and records forgotten of it."""
        if name in self.cells.done:
            return
        train, test, labels = data
        key = hashlib.sha256(f"sisa {seed}".encode()).digest()
        work = self.how.cells / "work"
        shutil.rmtree(work, ignore_errors=True)

        def model(folder: str, before: str | None = None) -> ShardedModel:
            inherited = None if before is None else work / before
            checkpoints = Checkpoints(work / folder, "bench", inherited)
            return sharded(base, how, key=key, checkpoints=checkpoints)

        made, _ = timed(model("all"), train, seed)  # the first of a process also loads packages
        found: dict[str, Any] = {"accuracy": accuracy(made, test, labels)}
        if how.count > 1:
            voting = replace(how, answer="vote")
            vote = type(made)(base, voting, key=key, members=made.members)
            found["vote"] = accuracy(vote, test, labels)
        again, same = [], []
        for number, gone in enumerate(random.Random(seed).sample(train, forgotten)):
            rest = [e for e in train if e is not gone]
            again.append(timed(model(f"without-{number}", "all"), rest, seed)[1])
            if number == 0:
                found["never cpu"] = again[0]
                if how.count > 1:  # else all of it was trained again
                    found["never cpu"] = timed(model("never"), rest, seed)[1]
                    same.append(weights(work / "without-0") == weights(work / "never"))
        found |= {"again": again, "same": same}
        shutil.rmtree(work, ignore_errors=True)
        self.cells.put(name, found)
        print(f"{name}: {found}", flush=True)

    def head(self) -> None:
        base = models.create("classifier", features="embedding")
        for seed in SEEDS:
            data = drawn(self.how.data, seed, HEAD_EACH, HEAD_TEST, None)
            base.embed([e.id for some in data[:2] for e in some])  # not what is measured
            for count in HEAD_COUNTS:
                how = Sharding(count=count)
                self.cell(f"head {count} {seed}", base, how, seed, data, HEAD_FORGOTTEN)

    def adapter(self) -> None:
        base = models.create(
            "torch", model="smollm2-135m-instruct", precision="auto", threads=1,
            epochs=3.0, batch=4, learning_rate=2e-3,
        )  # fmt: skip
        base.module  # noqa: B018 — loaded before anything is timed
        for seed in SEEDS:
            data = drawn(self.how.data, seed, ADAPTER_EACH, ADAPTER_TEST, ADAPTER_CLASSES)
            for how in ADAPTER_HOW:
                name = f"adapter {how.count}x{how.slices} {seed}"
                self.cell(name, base, how, seed, data, ADAPTER_FORGOTTEN)

    def kept(self) -> None:
        settings = {
            "head": {"items of each class": HEAD_EACH, "test": HEAD_TEST},
            "adapter": {
                "classes": ADAPTER_CLASSES, "items of each class": ADAPTER_EACH,
                "test": ADAPTER_TEST, "epochs": 3, "batch": 4, "rank": 8, "learning rate": 2e-3,
            },
            "seeds": list(SEEDS),
        }  # fmt: skip
        kept = Kept("sisa", settings=settings, fresh=False)  # each half may be run by itself
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        for name, found in self.cells.done.items():
            row, _, seed = name.rpartition(" ")
            rows.setdefault(row, {})[seed] = found
        for row, named in rows.items():
            seeds, cells = list(named), list(named.values())
            one = "1x1" if row.startswith("adapter") else "1"
            for column in ("never cpu", "accuracy", "vote"):
                values = [c[column] for c in cells if column in c]
                if values:
                    most = math.inf if column == "never cpu" else 1.0
                    kept.put_mean(row, column, values, within=(0.0, most))
            mean = [sum(c["again"]) / len(c["again"]) for c in cells]
            kept.put_mean(row, "again", mean, within=(0.0, math.inf))
            every = [seconds for c in cells for seconds in c["again"]]
            kept.put(row, "least again", min(every), n=len(every))
            kept.put(row, "most again", max(every), n=len(every))
            # Beside training one model of all records from nothing.
            whole = [self.cells.done[f"{row.split()[0]} {one} {seed}"] for seed in seeds]
            ratios = [m / w["never cpu"] for m, w in zip(mean, whole, strict=True)]
            kept.put_mean(row, "share of one", ratios, within=(0.0, math.inf))
            same = [one for c in cells for one in c["same"]]
            if same:
                kept.put(row, "same", sum(same) / len(same), n=len(same))
        kept.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["head", "adapter"], metavar="head|adapter")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument(
        "--cells", type=Path, default=Path("runs/sisa"), help="what was done so far"
    )
    how = parser.parse_args()
    bench = Bench(how)
    for what in how.what:
        {"head": bench.head, "adapter": bench.adapter}[what]()
    bench.kept()


if __name__ == "__main__":
    main()
