"""SmolLM2 taught to write by a small model's judgement: are its texts better, does the small one gain?

    python benchmarks/crosslm.py                  three seeds; resumes
    python benchmarks/crosslm.py --seconds 100    stops between seeds once that time is over
    python benchmarks/crosslm.py --report         the table of what is there

Task: the eight intents of benchmarks/weak_to_strong.py (../shared/data/banking77), three gold examples
of each. LM: SmolLM2-135M-instruct, tuned by its owner (kind = "tunable", LoRA of rank 8 on its last ten
layers). Small model: MiniLM's vectors with a linear head, which judges, and learns. The strategy runs
as it is, over a boundary with a record.

    judged right   the share of the texts of a round that a head trained on all gold texts of train
                   gives to their label: a judge that neither side has
    accuracy       of the small model on 20 questions of each intent of the test split: trained on gold
                   alone, on the texts of round 0 too, on those of the tuned LM too (as many), on both
    opinions       the area under the curve of the attack on the record: 24 members, 80 strangers

No setting was chosen on the test split; there are no tune items in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from cosilo.attacks.base import Target, View, attacks
from cosilo.boundary.messages import Ask, Completion
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import models
from cosilo.models.fit.tunable import TunableLM, TuningTerms
from cosilo.models.white_box.lm import torch_lm
from cosilo.objectives.membership import auc
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling, last_user
from kept import Kept
from weak_to_strong import ASKED, GOLD, SEEDS, SPOKEN, chat, drawn, of_topics, questions

EACH, STRANGERS = 10, 10
OPTIONS = {"each": EACH, "steps": 30, "batch": 8, "learning_rate": 1e-3, "rank": 8, "least": 0.5}
ARMS = ("gold", "round 0", "round 1", "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/crosslm"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    end = perf_counter() + arguments.seconds
    for seed in () if arguments.report else SEEDS:
        place = arguments.folder / f"{seed}.json"
        if perf_counter() < end and not place.exists():
            cpu = process_time()
            place.write_text(json.dumps(asyncio.run(measured(seed))))
            print(seed, f"{process_time() - cpu:.0f} s of CPU", flush=True)
    report(arguments.folder)


async def measured(seed: int) -> dict[str, Any]:
    gold, _, held = drawn(seed)
    large = TunableLM(
        torch_lm("smollm2-135m-instruct", precision="float32"), TuningTerms(layers=10)
    )
    small: Any = models.create("classifier", features="embedding")
    records = [Demonstration(f"g{i}", chat(t), SPOKEN[label]) for i, (t, label) in enumerate(gold)]
    ledger = MemoryLedger()
    strategy = strategies.create("crosslm", **OPTIONS, seed=seed)
    owner = DataOwner(small, private=tuple(records))
    session = open_session(
        owner, LMOwner(large), strategy, sampling=Sampling(choices=SPOKEN), ledger=ledger
    )
    _, session = await strategy.prepare(session)
    texts = written(ledger)
    every = [(t, label) for label, rows in enumerate(of_topics("train")) for t in rows]
    fair = small.fit([Demonstration(f"{i}", chat(t), SPOKEN[x]) for i, (t, x) in enumerate(every)])
    judged = small.fit(records, seed=seed)
    asked = questions()
    found: dict[str, Any] = {"judged right": {}, "right": {}, "texts": {}}
    lessons: dict[str, list[Demonstration]] = {"gold": []}
    for name, rows in texts.items():
        said = fair.probabilities([t for t, _ in rows])
        found["judged right"][name] = [
            int(fair.labels[int(p.argmax())] == label)
            for p, (_, label) in zip(said, rows, strict=True)
        ]
        found["texts"][name] = rows[:8]
        own = judged.probabilities([t for t, _ in rows])
        scores = [
            float(p[judged.labels.index(label)]) for p, (_, label) in zip(own, rows, strict=True)
        ]
        lessons[name] = [
            Demonstration(f"{name}-{i}", chat(text), label, score)
            for i, ((text, label), score) in enumerate(zip(rows, scores, strict=True))
            if score >= OPTIONS["least"]
        ]
    lessons["both"] = lessons["round 0"] + lessons["round 1"]
    for arm in ARMS:
        head = small.fit([*records, *lessons[arm]], seed=seed)
        rows = head.probabilities([t for t, _ in asked])
        found["right"][arm] = [
            int(head.labels[int(p.argmax())] == SPOKEN[label])
            for p, (_, label) in zip(rows, asked, strict=True)
        ]
    strangers = [(t, label) for t, label in held][:: max(1, len(held) // (STRANGERS * len(SPOKEN)))]
    targets = [
        Target(f"{kind}-{i}", "", "member", chat=chat(t), label=SPOKEN[label])
        for kind, rows in (("in", gold), ("out", strangers))
        for i, (t, label) in enumerate(rows)
    ]
    guesses = await attacks.create("opinions").guess(
        View(lambda: iter(ledger.entries()), embedder=small), targets
    )
    found["inside"] = [g.score for g in guesses if g.target.startswith("in-")]
    found["outside"] = [g.score for g in guesses if g.target.startswith("out-")]
    found["bytes up"] = session.totals.bytes_up
    return found


def written(ledger: MemoryLedger) -> dict[str, list[tuple[str, str]]]:
    """Round → the texts that came back, whole, and the labels they were asked for."""
    asked: dict[str, str] = {}
    found: dict[str, list[tuple[str, str]]] = {"round 0": [], "round 1": []}
    for entry in ledger.entries():
        if isinstance(entry.message, Ask):
            asked[entry.request] = last_user(entry.message.chat).split("label '")[1].split("'")[0]
        elif isinstance(entry.message, Completion) and entry.request in asked:
            reply = entry.message.generation
            if reply.finish_reason != "length" and reply.text.strip():
                name = entry.request.split("/")[1]
                found[name].append((reply.text.strip(), asked[entry.request]))
    return found


def report(folder: Path) -> None:
    places = [folder / f"{seed}.json" for seed in SEEDS]
    if missing := [p.name for p in places if not p.exists()]:
        print(f"{len(missing)} of {len(places)} seeds are missing: {', '.join(missing)}")
        return
    found = [json.loads(p.read_text()) for p in places]
    kept = Kept("crosslm", settings={
        "gold": GOLD * len(SPOKEN), "asked": ASKED * len(SPOKEN), "seeds": SEEDS, **OPTIONS,
    })  # fmt: skip
    rng = np.random.default_rng(0)
    for what, arms in (("judged right", ("round 0", "round 1")), ("right", ARMS)):
        for arm in arms:
            each = np.concatenate([f[what][arm] for f in found]).astype(float)
            means = each[rng.integers(0, len(each), (4000, len(each)))].mean(1)
            low, high = np.quantile(means, [0.025, 0.975])
            kept.put(arm, what, each.mean(), n=len(each), low=low, high=high)
    for arm in ARMS[1:]:
        more = np.concatenate(
            [np.array(f["right"][arm], float) - np.array(f["right"]["gold"], float) for f in found]
        )
        means = more[rng.integers(0, len(more), (4000, len(more)))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        kept.put(arm, "more than gold alone", more.mean(), n=len(more), low=low, high=high)
    # Scores of one seed are not those of another, so each is ranked within its own.
    sides = [(np.array(f["inside"]), np.array(f["outside"])) for f in found]
    ranked = [(_ranks(i, o)[: len(i)], _ranks(i, o)[len(i) :]) for i, o in sides]
    value, low, high = auc(*(np.concatenate(side) for side in zip(*ranked, strict=True)))
    kept.put("opinions", "AUC", value, n=sum(len(i) + len(o) for i, o in sides), low=low, high=high)
    kept.put("all", "bytes up", float(np.mean([f["bytes up"] for f in found])), n=len(found))
    kept.write()


def _ranks(inside: Any, outside: Any) -> Any:
    whole = np.concatenate([inside, outside])
    return whole.argsort().argsort() / len(whole)


if __name__ == "__main__":
    main()
