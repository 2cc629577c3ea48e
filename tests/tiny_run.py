"""A whole run in a second: scripted models over ninety made-up items with a name in each."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.progress import RunSpent, Silent
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.benchmark.trial import Outcome

LABELS = ("cat", "dog", "cow")
PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0.3
[task]
kind = "classification"
file = "data.jsonl"
columns = {text = "text", target = "label", secrets = "secrets"}
[models.small]
kind = "scripted"
replies = {cat = "cat", dog = "cow", cow = "cow"}
[models.large]
kind = "scripted"
replies = {cat = "cat", dog = "dog", cow = "cow"}
[limits]
calls = 1.0
[[points]]
strategy = "small"
[[points]]
strategy = "large"
"""


class Counting(Silent):
    """How many answers were made, and what was said."""

    def __init__(self) -> None:
        self.items = 0
        self.notes: list[str] = []

    def advance(self, items: int, spent: RunSpent, left: float, here: float) -> None:
        self.items += items

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_data(folder: Path, plan: str = PLAN, count: int = 90) -> None:
    """The data file and the plan, in `folder`."""
    rng = random.Random(0)
    rows = [
        {"text": f"Ada{i} Keller saw a {label}", "label": label, "secrets": f"Ada{i} Keller"}
        for i, label in enumerate(rng.choices(LABELS, k=count))
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "p.toml").write_text(plan)


def bench(
    folder: Path, plan: str = PLAN, *, offline: bool = False
) -> tuple[list[Outcome], Counting]:
    """Run `plan` in the folder's `run`."""
    counting = Counting()
    store = Store(folder / "run", write=True)
    try:
        runner = Runner(
            parse_plan(plan, folder / "p.toml"), store, reports=counting, offline=offline
        )
        return asyncio.run(runner.run()), counting
    finally:
        store.close()
