"""A small model that sees a dialogue and a large one that does not write a note of it together.

    python benchmarks/fusion.py                 what each model says of each note; resumes
    python benchmarks/fusion.py --seconds 100   stops between groups once that time is over
    python benchmarks/fusion.py --report        the table of what is there

Data: short dialogues of ../shared/data/mts_dialog; gates learn from its validation file, the notes
that are scored are of its test file. The LM is SmolLM2-135M-instruct and sees the instruction alone;
the small model is the same without ten of its thirty layers, healed (see benchmarks/proxy.py), and
sees the dialogue. A note is scored in nats a token, each token behind the right beginning, with the
LM's 32 likeliest tokens as they cross.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cosilo.boundary.wire.logits import pack_few, top_k, unpack
from cosilo.models.base import Tokens
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.strategies.mixing.gate import (
    HIDDEN,
    Gate,
    GateLesson,
    learned,
    quantile,
    seen_at_home,
    seen_of_both,
)
from cosilo.strategies.mixing.numbers import completed, normalised
from cosilo.strategies.mixing.rules import Difference, Weighed
from cosilo.types import Demonstration, Turn, user
from kept import Kept
from proxy import smaller, spread

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mts_dialog"
SYSTEM = "Write a section of the clinical note of a doctor's dialogue with a patient, in short."
TUNED, LEARNED, SCORED = 16, 12, 40  # notes; of the first so many a gate learns from
LONGEST = 500  # characters of a dialogue
TOKENS = 32  # of a note
TOP = 32
SEEDS = (0, 1, 2)  # of the gates: which of the tune items, and where they begin
CALLS = 0.3
GROUP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/proxy"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    (arguments.folder / "notes").mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        asyncio.run(work(arguments.folder, perf_counter() + arguments.seconds))
    report(arguments.folder)


def items(name: str, count: int) -> list[Demonstration]:
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").open()]
    short = [r for r in rows if len(r["dialogue"]) <= LONGEST and len(r["summary"].split()) >= 4]
    return [
        Demonstration(r["id"], user(r["dialogue"], system=SYSTEM), r["summary"]) for r in short
    ][:count]


async def work(folder: Path, end: float) -> None:
    large = torch_lm("smollm2-135m-instruct", precision="float32")
    small = smaller(large, folder)
    for model in (large, small):
        model.module.bfloat16()
    every = [("val", i) for i in items("val", TUNED)] + [("test", i) for i in items("test", SCORED)]
    for start in range(0, len(every), GROUP):
        place = folder / "notes" / f"{start}.json"
        if not place.exists() and perf_counter() < end:
            place.write_text(json.dumps(await said(large, small, every[start : start + GROUP])))


async def said(
    large: TorchModel, small: TorchModel, group: Sequence[tuple[str, Demonstration]]
) -> dict[str, Any]:
    """Of each of the group's notes, place by place: the log-probability that the right token has in
    each fixed arm, and in the LM as it crosses; and what the gates look at."""
    public = (Turn("user", SYSTEM),)
    logits: dict[str, list[Any]] = {}
    right: list[Any] = []
    for model, name in ((large, "lm"), (small, "sm")):
        for shown in ("all", "public"):
            tokens: list[Tokens] = []
            for _, item in group:
                whole = model.tokenize(item.chat if shown == "all" else public, item.target)
                cut = min(len(whole), whole.start + TOKENS)
                tokens.append(
                    Tokens(whole.ids[:cut], whole.start, whole.pieces[: cut - whole.start])
                )
            logits[f"{name}-{shown}"] = await model.logits(tokens)
            right = [t.ids[t.start :].tolist() for t in tokens]
    fixed: dict[str, Any] = {
        "half of each": Weighed(0.5), "delta, beta 0.5": Difference(0.5),
        "delta, beta 1": Difference(1.0),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for i, (split, item) in enumerate(group):
        note: dict[str, list[Any]] = {}
        for at, token in enumerate(right[i]):
            rows = {k: normalised(v[i][at].astype(np.float64)) for k, v in logits.items()}
            told = unpack(pack_few(top_k(logits["lm-public"][i][at][None], TOP)))
            homes = (rows["sm-all"], rows["sm-public"])
            for name, rule in fixed.items():
                mixed = normalised(rule.joined(completed(told, 0, homes[rule.prior]), homes))
                note.setdefault(name, []).append(mixed[token])
            crossed = completed(told, 0, homes[0])
            note.setdefault("crossed", []).append(crossed[token])
            for name, row in rows.items():
                note.setdefault(name, []).append(row[token])
            note.setdefault("both", []).append(seen_of_both(crossed, homes[0]).tolist())
            note.setdefault("home", []).append(seen_at_home(homes[0]).tolist())
        found[f"{split}|{item.id}"] = note
    return found


def report(folder: Path) -> None:
    notes: dict[str, dict[str, Any]] = {}
    for place in (folder / "notes").glob("*.json"):
        found = json.loads(place.read_text())
        notes |= {k: {n: np.array(v) for n, v in note.items()} for k, note in found.items()}
    scored = [notes[k] for k in sorted(notes) if k.startswith("test|")]
    tuned = [notes[k] for k in sorted(notes) if k.startswith("val|")]
    if len(scored) < SCORED or len(tuned) < TUNED:
        print(f"{len(scored)} of {SCORED} notes are scored, {len(tuned)} of {TUNED} learned from")
        return
    arms: dict[str, list[list[Any]]] = {}
    asked: dict[str, list[Any]] = {}
    names = {
        "sm-all": "small model alone", "lm-public": "LM without the context",
        "lm-all": "LM with the context", "half of each": "gate, half of each",
        "delta, beta 0.5": "delta, beta 0.5", "delta, beta 1": "delta, beta 1",
    }  # fmt: skip
    for which, arm in names.items():
        arms[arm] = [[-note[which] for note in scored]]
    for seed in SEEDS:
        picked = np.random.default_rng(seed).permutation(TUNED)[:LEARNED]
        chosen = [tuned[i] for i in picked]
        gate, head = taught(chosen, "both", HIDDEN, seed), taught(chosen, "home", 0, seed)
        limit = quantile(head, [note["home"] for note in chosen], CALLS)
        run = [np.logaddexp(np.log(w) + note["crossed"], np.log1p(-w) + note["sm-all"])
               for note in scored for w in [gate(note["both"])]]  # fmt: skip
        arms.setdefault("gate, learned", []).append([-each for each in run])
        for arm, threshold in ((f"defer, {CALLS:.0%} asked", limit), ("defer, threshold 0.5", 0.5)):
            asks = [head(note["home"]) > threshold for note in scored]
            each = [
                np.where(a, note["crossed"], note["sm-all"])
                for a, note in zip(asks, scored, strict=True)
            ]
            arms.setdefault(arm, []).append([-x for x in each])
            asked.setdefault(arm, []).append(np.concatenate(asks))
    kept = Kept("fusion", settings={
        "notes": SCORED, "learned from": LEARNED, "top": TOP, "tokens": TOKENS, "seeds": SEEDS,
    })  # fmt: skip
    alone = np.array([note.mean() for note in arms["small model alone"][0]])
    for arm, drawn in arms.items():
        each = np.mean([[note.mean() for note in run] for run in drawn], axis=0)
        low, high = spread(each)
        kept.put(arm, "nats a token", each.mean(), n=len(each), low=low, high=high)
        if arm != "small model alone":
            more = each - alone
            low, high = spread(more)
            kept.put(arm, "more than the small model", more.mean(), n=len(each), low=low, high=high)
        if arm in asked:
            every = np.concatenate(asked[arm])
            kept.put(arm, "share asked", float(every.mean()), n=len(every))
    kept.write()
    for name, columns in kept._rows.items():
        print(
            name,
            {
                k: [round(v.get(x, 0), 3) for x in ("value", "low", "high")]
                for k, v in columns.items()
            },
        )


def taught(chosen: Sequence[dict[str, Any]], which: str, hidden: int, seed: int) -> Gate:
    seen = np.concatenate([note[which] for note in chosen])
    large, small = (np.exp(np.concatenate([n[x] for n in chosen])) for x in ("crossed", "sm-all"))
    return learned(GateLesson(seen, large, small), hidden, seed=seed)


if __name__ == "__main__":
    main()
