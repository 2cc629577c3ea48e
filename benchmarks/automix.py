"""Whether a small model's check of its own answer tells better whom to ask than its confidence does.

    python benchmarks/automix.py [--items 150] [--file ROWS.jsonl] [--seconds S]

mmlu_pro_private (exam questions, test split, in an order drawn by seed 0, so that any first so many are
a sample): Qwen2.5-Coder-1.5B over llama.cpp answers at home; the LM is Gemini 1.5 Pro as recorded.
`cascade` sends the questions whose answer's probability is lowest, `automix` those whose own check ("is
this answer right?") says yes least, both as the strategies compute them, of one and the same answer. At
equal calls: the accuracy where half of the questions go to the LM, and the area under the recovered gap
over all shares of calls (0 the small model, 1 the LM, 0.5 at random). No threshold is set, so nothing
is tuned. Rows are noted as they come, so a second run resumes. Intervals: bootstrap over items, paired.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.tasks.config import Columns, TaskConfig, load_task
from kept import ROOT, Kept, note, noted
from routellm import apgr

DATA = ROOT.parent / "shared" / "data" / "mmlu_pro_private"
MODEL, LARGE = "qwen2.5-coder-1.5b-instruct", "models.gemini-1.5-pro-002.0"
WAYS = ("cascade", "automix")
RESAMPLES = 4000

Floats = NDArray[np.float64]


async def ask(items: int, file: Path, seconds: float) -> list[Any]:
    task = load_task(
        TaskConfig(
            kind="choice",
            files={"train": (str(DATA / "train.jsonl"),), "test": (str(DATA / "test.jsonl"),)},
            columns=Columns(id="id", text="question", recorded={"lm": LARGE}),
        ),
        Path.cwd(),
    )
    examples = sorted(task.splits["test"], key=lambda e: e.id)
    random.Random(0).shuffle(examples)
    done, end = {row["id"]: row for row in noted(file)}, perf_counter() + seconds
    model: Any = models.create("llamacpp", model=MODEL, parallel=1)
    ways: Any = {way: strategies.create(way, threshold=0.5) for way in WAYS}
    session = open_session(
        DataOwner(model), LMOwner(ScriptedModel()), ways["cascade"], sampling=task.sampling
    )
    try:
        for example in examples[:items]:
            if example.id in done or perf_counter() > end:
                continue
            draft = await model.generate(example.chat, task.sampling)
            row = {
                "id": example.id,
                "small": task.grade(example, draft.text),
                "large": task.grade(example, example.recorded["lm"][0]),
            }
            for way, strategy in ways.items():
                row[way] = await strategy._sure(session, example.chat, draft)
            done[example.id] = row
            note(file, row)
            print(row, flush=True)
    finally:
        await model.close()
    return [done[e.id] for e in examples[:items] if e.id in done]


def at_half(sure: Floats, small: Floats, large: Floats) -> float:
    """The accuracy where the less sure half goes to the LM."""
    order = np.argsort(sure, kind="stable")
    sent = order[: len(order) // 2]
    return float((small.sum() + (large - small)[sent].sum()) / len(small))


def area(sure: Floats, small: Floats, large: Floats) -> float:
    """Area under the recovered gap, the least sure being called first; not a number where there is no
    gap."""
    return apgr(-sure, large - small)


def keep(rows: list[Any]) -> None:
    n = len(rows)
    columns = {name: np.array([row[name] for row in rows]) for name in ("small", "large", *WAYS)}
    small, large = columns["small"], columns["large"]
    rng = np.random.default_rng(0)
    picks = rng.integers(0, n, (RESAMPLES, n))
    found = Kept("automix", seed=0, settings={"small": MODEL, "large": LARGE})

    def put(row: str, name: str, value: float, again: Floats) -> None:
        low, high = np.percentile(again, [2.5, 97.5])
        found.put(row, name, value, n=n, low=float(low), high=float(high))
        print(f"{row} {name}: {value:.3f} [{low:.3f}, {high:.3f}], n = {n}")

    for name in ("small", "large"):
        put(name, "accuracy", float(columns[name].mean()), columns[name][picks].mean(axis=1))
    for name, of in (("at half of the calls", at_half), ("area", area)):
        again = {
            way: np.array([of(columns[way][p], small[p], large[p]) for p in picks]) for way in WAYS
        }
        value = {way: of(columns[way], small, large) for way in WAYS}
        for way in WAYS:
            put(way, name, value[way], again[way])
        gap = value["automix"] - value["cascade"]
        put("automix less cascade", name, gap, again["automix"] - again["cascade"])
    half = (small + large) / 2
    put("at random", "at half of the calls", float(half.mean()), half[picks].mean(axis=1))
    found.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--file", type=Path, default=Path("runs/automix.jsonl"))
    given = parser.parse_args()
    keep(asyncio.run(ask(given.items, given.file, given.seconds)))


if __name__ == "__main__":
    main()
