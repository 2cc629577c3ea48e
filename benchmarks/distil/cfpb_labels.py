"""A small model from recorded LMs' labels beside the same one from gold labels; and poisoned labels.

    python benchmarks/distil/cfpb_labels.py [--dev]

Each seed trains on another random 80 % of the train file; only "gold" sees a gold label of it. `--dev`
scores on the other 20 %; without it, on the test file. Differences are paired over the test items, the
mean over the seeds of an item's difference; intervals are bootstraps over the items. Poison: a party in
between replaces a share of GPT-4.5's labels by random others. Every number is kept as soon as it is
there, and not worked out twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosilo.attacks.tampering import Tampering
from cosilo.boundary.messages import Ask
from cosilo.boundary.transport import InProcess
from cosilo.models.classifier import ClassifierModel
from cosilo.models.encoder import Encoder
from cosilo.models.recorded import RecordedModel
from cosilo.objectives import intervals
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.downward.distil_labels import DistilLabels
from cosilo.tasks.base import Example, Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import Demonstration, last_user

TEACHERS = {
    "GPT-4.5": "gpt-4.5-preview",
    "Claude 3.7 Sonnet": "claude-3-7-sonnet",
    "Claude 3.5 Sonnet": "claude-3-5-sonnet",
    "o1": "o1",
}
SHARES = (0.05, 0.1, 0.2, 0.4)
SEEDS = range(3)


def load(folder: Path) -> Task:
    recorded = {name: f"preds.{column}" for name, column in TEACHERS.items()}
    return load_task(
        parse_task(
            {
                "kind": "classification",
                "train": str(folder / "train.jsonl"),
                "test": str(folder / "test.jsonl"),
                "split": {"train": 1.0},
                "columns": {"id": "id", "recorded": recorded},
            }
        ),
        Path(),
    )


async def learned(
    task: Task, teacher: str, pool: Sequence[Example], *, seed: int, agree: bool, poison: float
) -> tuple[list[Demonstration], set[str]]:
    """What the strategy trains on, and the ids of the items whose label was poisoned."""
    model = ClassifierModel(ENCODER)
    answers = ((e.chat, *e.recorded[teacher]) for e in pool)
    owner = DataOwner(model, pool=tuple(Demonstration(e.id, e.chat, "") for e in pool))
    party = Tampering(LMOwner(RecordedModel(answers, name=teacher)), poison, seed)
    strategy = DistilLabels(agree=agree, seed=seed)
    session = open_session(
        owner,
        party.party,
        strategy,
        sampling=task.sampling,
        transport=InProcess(party),  # type: ignore[arg-type]
    )
    lessons, _ = await strategy.lessons(session, model)
    hit = {e.id for e in pool if party.changes(Ask(chat=e.chat, sampling=task.sampling))}
    return list(lessons), hit


def right(lessons: Sequence[Demonstration], items: Sequence[Example], seed: int) -> list[int]:
    model = ClassifierModel(ENCODER).fit(lessons, seed=seed)
    found = model.probabilities([last_user(e.chat) for e in items]).argmax(axis=1)
    return [int(model.labels[i] == e.target) for i, e in zip(found, items, strict=True)]


def run(task: Task, kept: dict[str, object], save: Path, *, dev: bool) -> None:
    train = task.splits["train"]
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(train))
        cut = round(0.8 * len(train))
        pool = [train[i] for i in order[:cut]]
        items = [train[i] for i in order[cut:]] if dev else list(task.splits["test"])
        jobs = [("gold", "gold", False, 0.0)]
        jobs += [(f"{t}{' agree' * a}", t, a, 0.0) for t in TEACHERS for a in (False, True)]
        jobs += [
            (f"poison {share}{' agree' * a}", "GPT-4.5", a, share)
            for share in SHARES
            for a in (False, True)
        ]
        for name, teacher, agree, poison in jobs:
            key = f"{seed} {name}"
            if key in kept:
                continue
            truth = {e.id: e.target for e in pool}
            if teacher == "gold":
                lessons, hit = [e.demonstration() for e in pool], set()
            else:
                lessons, hit = asyncio.run(
                    learned(task, teacher, pool, seed=seed, agree=agree, poison=poison)
                )
            left = {d.id for d in lessons}
            clean = set(truth) - hit
            kept[key] = {
                "right": right(lessons, items, seed),
                "labels right": float(np.mean([truth[d.id] == d.target for d in lessons])),
                "poisoned": len(hit),
                "noticed": len(hit - left),
                "dropped of the others": [len(clean - left), len(clean)],
            }
            save.write_text(json.dumps(kept))
            print(key, round(float(np.mean(kept[key]["right"])), 4), flush=True)  # type: ignore[index]


def show(kept: dict[str, object], *, base: float) -> None:
    def rows(name: str) -> np.ndarray:
        return np.array([kept[f"{seed} {name}"]["right"] for seed in SEEDS], float)  # type: ignore[index]

    def facts(name: str, what: str) -> np.ndarray:
        return np.array([kept[f"{seed} {name}"][what] for seed in SEEDS])  # type: ignore[index]

    gold = rows("gold")
    print(f"n = {gold.shape[1]}, base rate {100 * base:.1f} %, {len(SEEDS)} seeds")
    print(f"{'gold':28}{100 * gold.mean():6.1f}   seeds {np.round(100 * gold.mean(axis=1), 1)}")
    names = dict.fromkeys(key.partition(" ")[2] for key in kept)
    for name in names:
        if name == "gold":
            continue
        each = rows(name)
        gap = each.mean(axis=0) - gold.mean(axis=0)
        low, high = intervals.difference(each.mean(axis=0), gold.mean(axis=0), (-1.0, 1.0))
        line = (
            f"{name:28}{100 * each.mean():6.1f}   seeds {np.round(100 * each.mean(axis=1), 1)}"
            f"   less gold {100 * gap.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            f"   labels right {100 * facts(name, 'labels right').mean():.1f}"
        )
        hit, noticed = facts(name, "poisoned").sum(), facts(name, "noticed").sum()
        others = facts(name, "dropped of the others").sum(axis=0)
        if hit:
            low, high = intervals.wilson(noticed, int(hit))
            line += f"   noticed {noticed} of {hit} [{100 * low:.0f}, {100 * high:.0f} %]"
        print(line + f"   others dropped {others[0]} of {others[1]}" * bool(others[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cfpb_llm"))
    parser.add_argument("--out", type=Path, default=Path("runs/distil_cfpb"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / ("dev.json" if arguments.dev else "test.json")
    found: dict[str, object] = json.loads(file.read_text()) if file.exists() else {}
    ENCODER = Encoder("minilm-int8", threads=1)
    the_task = load(arguments.data)
    run(the_task, found, file, dev=arguments.dev)
    counts = np.unique([e.target for e in the_task.splits["test"]], return_counts=True)[1]
    show(found, base=float(counts.max() / counts.sum()))
