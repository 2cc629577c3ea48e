"""Ten gold examples a class, and texts that the LM wrote from the class names alone (77 intents).

    python benchmarks/distil/banking77_texts.py write [--seconds 330]   # the LM; until it says done
    python benchmarks/distil/banking77_texts.py measure [--dev]         # no LM

Three draws of the gold examples from the train file; the LM's texts (Qwen2.5-Coder-1.5B) are the same
for all, since nothing of the owner's is in their prompts. `--dev` chooses the weight of a text beside a
gold example on 2,000 other train items; `measure` then reads the test file with that choice.
Differences are paired over the test items, the mean over the draws of an item's difference; intervals
are bootstraps over the items.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import numpy as np

from cosilo.boundary.messages import Message
from cosilo.errors import OfflineError
from cosilo.models.base import Access
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.gguf.llamacpp import llamacpp
from cosilo.models.kept.replay import ReplayStore
from cosilo.objectives import intervals
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session
from cosilo.strategies.downward.zerogen import ZeroGen
from cosilo.tasks.base import Example, Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import Demonstration, last_user

GOLD, EACH, DRAWS, DEV = 10, 5, range(3), 2_000
WEIGHTS = (0.1, 0.3, 1.0)


def load(folder: Path) -> Task:
    return load_task(
        parse_task(
            {
                "kind": "classification",
                "train": str(folder / "train.jsonl"),
                "test": str(folder / "test.jsonl"),
                "split": {"train": 1.0},
                "columns": {"id": "id"},
            }
        ),
        Path(),
    )


def drawn(task: Task, draw: int) -> tuple[list[Demonstration], list[Example]]:
    """Ten gold examples of every class, and the other training items, in a random order."""
    train = task.splits["train"]
    order = np.random.default_rng(draw).permutation(len(train))
    gold, left = [], dict.fromkeys(task.labels, GOLD)
    others = []
    for i in order:
        if left[train[i].target]:
            left[train[i].target] -= 1
            gold.append(train[i].demonstration())
        else:
            others.append(train[i])
    return gold, others


def opened(task: Task, gold: Sequence[Demonstration], lm: Recorded, how: ZeroGen) -> Session:
    owner = DataOwner(ClassifierModel(ENCODER, features="embedding"), private=tuple(gold))
    return open_session(owner, Exposed(lm), how, sampling=task.sampling)


class InTime(LMOwner):
    """Starts no call after `until`."""

    until = 0.0

    async def handle(self, message: Message) -> Message:
        if monotonic() > self.until:
            raise OfflineError("not done: run it again")
        return await super().handle(message)


def recorded(out: Path, *, until: float | None = None) -> Recorded:
    """The LM over what is recorded in `out`; new calls are made before `until` alone."""
    model = llamacpp("qwen2.5-coder-1.5b-instruct", parallel=4)
    party = InTime(model, exposes=Access.WEIGHTS.shows)
    InTime.until = until or 0.0
    return Recorded(party, ReplayStore(out / "replay.sqlite"), of=model, offline=until is None)


def write(task: Task, out: Path, seconds: float) -> None:
    lm = recorded(out, until=monotonic() + seconds)
    how = ZeroGen(each=EACH, agree=False)
    gold, _ = drawn(task, 0)
    _, session = asyncio.run(how.prepare(opened(task, gold, lm, how)))
    print("done", dict(session.cards[0].facts), dict(session.cards[0].tables["dropped"]))


def scored(
    task: Task,
    gold: Sequence[Demonstration],
    items: Sequence[Example],
    lm: Recorded,
    how: ZeroGen | None,
) -> list[int]:
    """Per item whether the small model is right: from gold alone, or with the LM's texts."""
    model = ClassifierModel(ENCODER, features="embedding")
    lessons: Sequence[Demonstration] = gold
    if how is not None:
        lessons, session = asyncio.run(how.lessons(opened(task, gold, lm, how), model))
        print(dict(session.cards[0].facts), dict(session.cards[0].tables["dropped"]), flush=True)
    model = model.fit(lessons)
    found = model.probabilities([last_user(e.chat) for e in items]).argmax(axis=1)
    return [int(model.labels[i] == e.target) for i, e in zip(found, items, strict=True)]


def measure(task: Task, out: Path, *, dev: bool) -> None:
    lm = recorded(out)
    file = out / ("dev.json" if dev else "test.json")
    kept: dict[str, list[int]] = json.loads(file.read_text()) if file.exists() else {}
    # Dropping texts that the small model takes for another label leaves 18 of 77 labels without any.
    hows = {f"weight {w}": ZeroGen(each=EACH, gold=True, weight=w, agree=False) for w in WEIGHTS}
    if not dev:
        best = chosen(json.loads((out / "dev.json").read_text()))
        print(f"chosen on the train file: {best}")
        hows = {best: hows[best]}
    for draw in DRAWS:
        gold, others = drawn(task, draw)
        items = others[:DEV] if dev else list(task.splits["test"])
        for name, how in {"gold": None, **hows}.items():
            if f"{draw} {name}" not in kept:
                kept[f"{draw} {name}"] = scored(task, gold, items, lm, how)
                file.write_text(json.dumps(kept))
                print(draw, name, round(float(np.mean(kept[f"{draw} {name}"])), 4), flush=True)
    show(kept, ["gold", *hows])


def chosen(kept: dict[str, list[int]]) -> str:
    names = {key.partition(" ")[2] for key in kept} - {"gold"}
    return max(sorted(names), key=lambda n: np.mean([kept[f"{d} {n}"] for d in DRAWS]))


def show(kept: dict[str, list[int]], names: Sequence[str]) -> None:
    gold = np.mean([kept[f"{d} gold"] for d in DRAWS], axis=0)
    print(f"n = {len(gold)}, {len(DRAWS)} draws of {GOLD} gold examples a class")
    for name in names:
        rows = [kept[f"{d} {name}"] for d in DRAWS]
        each = np.mean(rows, axis=0)
        low, high = intervals.difference(each, gold, (-1.0, 1.0))
        own = " ".join(f"{100 * np.mean(r):.2f}" for r in rows)
        print(
            f"{name:20} {100 * each.mean():6.2f} ({own})   less gold "
            f"{100 * (each - gold).mean():+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["write", "measure"])
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument("--out", type=Path, default=Path("runs/distil_banking77"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ENCODER = Encoder("minilm-int8")
    the_task = load(arguments.data)
    if arguments.what == "write":
        write(the_task, arguments.out, arguments.seconds)
    else:
        measure(the_task, arguments.out, dev=arguments.dev)
