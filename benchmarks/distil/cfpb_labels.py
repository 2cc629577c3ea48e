"""A small model from recorded LMs' labels beside the same one from gold labels; and poisoned labels.

    python benchmarks/distil/cfpb_labels.py [--dev] [--only gold "GPT-4.5 balance" …]

Each seed trains on another random 80 % of the train file; only "gold" sees a gold label of it, and the
test file is scored. `--dev` is five-fold cross-validation on the train file instead. Differences are
paired over the test items, the mean over the seeds of an item's difference; intervals are bootstraps
over the items. Poison: a party in between replaces a share of GPT-4.5's labels by random others. Every
number is kept as soon as it is there, and not worked out twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.attacks.tampering import Tampering
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.encoder.head import Features
from cosilo.models.kept.recorded import RecordedModel
from cosilo.objectives import intervals
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.downward.distil_labels import DistilLabels
from cosilo.strategies.labelling import balanced
from cosilo.tasks.base import Example, Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import Demonstration, last_user
from kept import Kept

TEACHERS = {
    "GPT-4.5": "gpt-4.5-preview",
    "Claude 3.7 Sonnet": "claude-3-7-sonnet",
    "Claude 3.5 Sonnet": "claude-3-5-sonnet",
    "o1": "o1",
}
TOGETHER = "GPT-4.5 + both Claudes"
GROUP = ("GPT-4.5", "Claude 3.7 Sonnet", "Claude 3.5 Sonnet")
SHARES = (0.1, 0.2, 0.4)
SEEDS, FOLDS = range(3), range(5)
HOWS = ("", "balance", "agree")
FEATURES: Features = "embedding"  # n-grams would make it better, and every fit ten times longer


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
    task: Task, teacher: str, pool: Sequence[Example], *, seed: int, how: str, poison: float
) -> tuple[list[Demonstration], set[str]]:
    """What the strategy trains on, and the ids of the items whose label was poisoned."""
    model = ClassifierModel(ENCODER, features=FEATURES)
    answers = ((e.chat, *e.recorded[teacher]) for e in pool)
    owner = DataOwner(model, pool=tuple(Demonstration(e.id, e.chat, "") for e in pool))
    lm = LMOwner(RecordedModel(answers, name=teacher))
    party = Tampering(lm, poison, seed)
    strategy = DistilLabels(agree="agree" in how, balance="balance" in how, seed=seed)
    session = open_session(
        owner,
        lm,
        strategy,
        sampling=task.sampling,
        transport=InProcess(party),
    )
    lessons, _ = await strategy.lessons(session, model)
    hit = {e.id for e in pool if party.changes(Ask(chat=e.chat, sampling=task.sampling))}
    return list(lessons), hit


async def learned_together(
    task: Task, pool: Sequence[Example], *, seed: int, how: str
) -> list[Demonstration]:
    """The lessons of several LMs, each asked over a boundary of its own, a label's weight being the
    share of them that gave it."""
    shares: Counter[tuple[str, str]] = Counter()
    for teacher in GROUP:
        lessons, _ = await learned(task, teacher, pool, seed=seed, how="", poison=0.0)
        shares.update((d.id, d.target) for d in lessons)
    chats = {e.id: e.chat for e in pool}
    taught = [
        Demonstration(id, chats[id], label, count / len(GROUP))
        for (id, label), count in shares.items()
    ]
    return list(balanced(taught)) if how == "balance" else taught


def right(lessons: Sequence[Demonstration], items: Sequence[Example], seed: int) -> list[int]:
    model = ClassifierModel(ENCODER, features=FEATURES).fit(lessons, seed=seed)
    found = model.probabilities([last_user(e.chat) for e in items]).argmax(axis=1)
    return [int(model.labels[i] == e.target) for i, e in zip(found, items, strict=True)]


def run(
    task: Task, kept: dict[str, dict[str, Any]], save: Path, *, dev: bool, only: Sequence[str]
) -> None:
    train = task.splits["train"]
    for seed in FOLDS if dev else SEEDS:
        order = np.random.default_rng(0 if dev else seed).permutation(len(train))
        out = {int(i) for i in (order[seed::5] if dev else order[::5])}
        pool = [e for i, e in enumerate(train) if i not in out]
        items = [train[i] for i in sorted(out)] if dev else list(task.splits["test"])
        jobs = [("gold", "gold", "", 0.0)]
        jobs += [(f"{t} {h}".strip(), t, h, 0.0) for t in TEACHERS for h in HOWS]
        jobs += [(f"{TOGETHER} {h}".strip(), TOGETHER, h, 0.0) for h in ("", "balance")]
        jobs += [
            (f"poison {share} {h}".strip(), "GPT-4.5", h, share)
            for share in SHARES
            for h in ("", "agree")
        ]
        for name, teacher, how, poison in jobs:
            if only and name not in only:
                continue
            key = f"{seed} {name}"
            if key in kept:
                continue
            truth = {e.id: e.target for e in pool}
            if teacher == "gold":
                lessons, hit = [e.demonstration() for e in pool], set[str]()
            elif teacher == TOGETHER:
                lessons = asyncio.run(learned_together(task, pool, seed=seed, how=how))
                hit = set()
            else:
                lessons, hit = asyncio.run(
                    learned(task, teacher, pool, seed=seed, how=how, poison=poison)
                )
            left = {d.id for d in lessons}
            clean = set(truth) - hit
            kept[key] = {
                "right": right(lessons, items, seed),
                "labels right": float(
                    np.average(
                        [truth[d.id] == d.target for d in lessons],
                        weights=[d.weight for d in lessons],
                    )
                ),
                "poisoned": len(hit),
                "noticed": len(hit - left),
                "dropped of the others": [len(clean - left), len(clean)],
            }
            save.write_text(json.dumps(kept))
            print(key, round(float(np.mean(kept[key]["right"])), 4), flush=True)


def show(kept: dict[str, dict[str, Any]], *, base: float, dev: bool) -> None:
    seeds = FOLDS if dev else SEEDS

    def facts(name: str, what: str) -> list[Any]:
        return [kept[f"{seed} {name}"][what] for seed in seeds]

    def grades(name: str) -> np.ndarray:
        """Per item: its one fold's grade, or the mean over the seeds."""
        rows = facts(name, "right")
        return np.concatenate(rows).astype(float) if dev else np.mean(rows, axis=0)

    gold = grades("gold")
    file = Kept(f"cfpb_labels{'_dev' if dev else ''}", settings={"features": FEATURES})
    file.put("items", "base rate", base, n=len(gold))
    names = dict.fromkeys(key.partition(" ")[2] for key in kept)
    print(
        f"n = {len(gold)}, base rate {100 * base:.1f} %, {len(seeds)} {'folds' if dev else 'seeds'}"
    )
    for name in (n for n in names if all(f"{seed} {n}" in kept for seed in seeds)):
        each = grades(name)
        low, high = intervals.difference(each, gold, (-1.0, 1.0))
        n = len(gold)
        file.put(name, "accuracy", each.mean(), n=n)
        file.put(name, "less gold", (each - gold).mean(), n=n, low=low, high=high)
        file.put(name, "labels right", np.mean(facts(name, "labels right")))
        for seed, row in zip(seeds, facts(name, "right"), strict=True):
            file.put(name, f"seed {seed}", np.mean(row), n=len(row))
        own = " ".join(f"{100 * np.mean(r):.1f}" for r in facts(name, "right"))
        line = (
            f"{name:26} {100 * each.mean():5.1f} ({own})   less gold {100 * (each - gold).mean():+.1f}"
            f" [{100 * low:+.1f}, {100 * high:+.1f}]"
            f"   labels right {100 * np.mean(facts(name, 'labels right')):.1f}"
        )
        hit, noticed = sum(facts(name, "poisoned")), sum(facts(name, "noticed"))
        lost, others = np.sum(facts(name, "dropped of the others"), axis=0)
        if hit:
            low, high = intervals.wilson(noticed, hit)
            file.put(name, "noticed", noticed, n=hit)
            file.put(name, "share noticed", noticed / hit, n=hit, low=low, high=high)
            file.put(name, "others dropped", int(lost), n=int(others))
            line += f"   noticed {noticed} of {hit} [{100 * low:.0f}, {100 * high:.0f} %]"
        print(line + f"   others dropped {lost} of {others}" * bool(lost))
    file.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cfpb_llm"))
    parser.add_argument("--out", type=Path, default=Path("runs/distil_cfpb"))
    parser.add_argument("--only", nargs="*", default=[], help="names to work out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / ("dev.json" if arguments.dev else "test.json")
    found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    ENCODER = Encoder("minilm-int8", threads=1)
    the_task = load(arguments.data)
    run(the_task, found, file, dev=arguments.dev, only=arguments.only)
    counts = np.unique([e.target for e in the_task.splits["test"]], return_counts=True)[1]
    show(found, dev=arguments.dev, base=float(counts.max() / counts.sum()))
