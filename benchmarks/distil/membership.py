"""Who was trained on? The small model itself, if it were published: gold labels against an LM's labels.

    python benchmarks/distil/membership.py [--seeds 3] [--first 0]

Consumer complaints (`cfpb_llm`) in three parts by a seeded shuffle: records that the model is trained
on, strangers of the same kind, and others, on which a reference model is trained: the attacks' success
on that one is what the division alone gives away. The victims are MiniLM with a linear head, trained on
the gold labels or on those that GPT-4.5 gave to the same texts. The attacker knows the gold labels. For
synthetic data see `private_evolution.py measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from private_evolution import Remembered

from cosilo.attacks.base import Target, View
from cosilo.attacks.published import Calibrated, Confidence, Loss
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.objectives.membership import auc, tpr
from cosilo.types import Demonstration, user
from kept import Kept

DATA = Path("../shared/data/cfpb_llm")
LM = "gpt-4.5-preview"


def rows(data: Path) -> tuple[list[Demonstration], list[str]]:
    """The complaints with their gold labels, and what the LM said of each."""
    lines = [
        json.loads(line)
        for name in ("train.jsonl", "test.jsonl")
        for line in (data / name).read_text("utf-8").splitlines()
    ]
    gold = [Demonstration(str(i), user(row["text"]), row["label"]) for i, row in enumerate(lines)]
    return gold, [row["preds"][LM] for row in lines]


async def scored(
    attack: Loss | Confidence | Calibrated, view: View, examples: list[Demonstration]
) -> np.ndarray:
    asked = [Target(e.id, "", "member", chat=e.chat, label=e.target) for e in examples]
    return np.array([g.score for g in await attack.guess(view, asked)])


async def run(arguments: argparse.Namespace) -> None:
    gold, said = rows(arguments.data)
    encoder = ClassifierModel(Encoder(), features="embedding")
    learner = Remembered(encoder)
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    third = len(gold) // 3
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        order = np.random.default_rng(seed).permutation(len(gold))
        parts = [[int(i) for i in order[k * third : (k + 1) * third]] for k in range(3)]
        inside, outside, other = parts
        labelled = [Demonstration(gold[i].id, gold[i].chat, said[i]) for i in inside]
        victims = {
            "gold labels": encoder.fit([gold[i] for i in inside], seed=seed),
            "labels of GPT-4.5": encoder.fit(labelled, seed=seed),
            "trained on none of them": encoder.fit([gold[i] for i in other], seed=seed),
        }
        asked = [gold[i] for i in (*inside, *outside)]
        for name, victim in victims.items():
            view = View(lambda: iter(()), embedder=encoder, published=victim)
            for attack in (Loss(), Confidence(), Calibrated(8, learner)):
                scores = await scored(attack, view, asked)
                a, b = scores[:third], scores[third:]
                key = f"{name:24} {type(attack).__name__:10}"
                found.setdefault(key, []).append((*auc(a, b), tpr(a, b)[0]))
                print(f"seed {seed} {key} AUC {found[key][-1][0]:.3f}", file=sys.stderr, flush=True)
    print(f"{third} records, {third} strangers, {arguments.seeds} divisions")
    divisions = range(arguments.first, arguments.first + arguments.seeds)
    kept = Kept("membership", settings={"seeds": list(divisions), "shadow heads": 8})
    for key, each in found.items():
        values = np.array(each)
        victim, attack = key[:24].strip(), key[24:].strip()
        for seed, (value, low, high, _) in zip(divisions, each, strict=True):
            kept.put(victim, f"{attack} AUC, seed {seed}", value, n=2 * third, low=low, high=high)
        kept.put(victim, f"{attack} AUC", float(values[:, 0].mean()), n=2 * third)
        kept.put(victim, f"{attack} TPR", float(values[:, 3].mean()), n=2 * third)
        print(
            f"{key} AUC {values[:, 0].mean():.3f} (each: "
            + ", ".join(f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high, _ in each)
            + f"), TPR at 1 % FPR {100 * values[:, 3].mean():.1f} %"
        )
    kept.write()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--data", type=Path, default=DATA)
    asyncio.run(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
