"""What chooses at home among five samples of an LM's SQL (`rerank`), beside one sample and a majority.

    python benchmarks/data/text2sql_defog.py     # once: SQLite files out of the dumps, in runs/data
    python benchmarks/rerank_sql.py [--minutes 30]

The private questions of text2sql_defog: the energy learns from those of train, those of test are read
once more (`text2sql.py` and `tables.py` read them before). The LM (Qwen2.5-Coder-1.5B) sees the schema
and the owner's notes, never a row, and is asked five times at temperature 1. All choices are made among
the same samples: the first, the majority of equal texts, the most frequent result when all five are run
at home, and the energy with three seeds of what is drawn while it learns; the best of the five stands
beside, as nothing that chooses can do more. Every reply is recorded as it comes, so that a run that was
stopped goes on there; one that is out of --minutes ends without numbers.
Intervals: Wilson; differences are paired, by bootstrap.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from cosilo.boundary.messages import Ask
from cosilo.models.base import Access, models
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.inference.agreement import distinct, most_agreed
from cosilo.strategies.inference.energy import Candidates, fit_energy
from cosilo.strategies.inference.rerank import encoded
from cosilo.tasks.base import Example, Split, Task
from cosilo.tasks.query import QueryError
from cosilo.tasks.sql import sql_in
from cosilo.types import Generation, last_user
from kept import Kept
from rerank import MiniLM, against, share
from text2sql import PRIVATE, task_of

LM = "qwen2.5-coder-1.5b-instruct"
SAMPLES, TEMPERATURE, ROUNDS, SEEDS, AT_ONCE = 5, 1.0, 3, (0, 1, 2), 5


@dataclass(frozen=True)
class Asked:
    """A question, what the LM said, and which of it is right."""

    example: Example
    said: list[Generation]
    right: list[bool]


async def ask(session: Session, task: Task, example: Example) -> Asked:
    said = []

    async def one(number: int) -> Generation:
        sampling = msgspec.structs.replace(task.sampling, temperature=TEMPERATURE, seed=number)
        request = session.bind(f"{example.id}/{number}")
        return (await request.lm.send(Ask(chat=example.chat, sampling=sampling))).generation

    # The first alone, so that the others find the schema read.
    said = [await one(0), *await asyncio.gather(*(one(n) for n in range(1, SAMPLES)))]
    right = [task.grade(example, reply.text) == 1.0 for reply in said]
    return Asked(example, said, right)


def candidates(asked: Asked, encoder: MiniLM) -> Candidates | None:
    """The different replies; None where all are empty."""
    forms = distinct(asked.said, ())
    if not forms:
        return None
    counts = np.array([len(places) for places in forms.values()], dtype=np.float64)
    return Candidates(
        encoded(encoder, last_user(asked.example.chat), list(forms), closed=False),
        counts / counts.sum(),
        np.array([asked.right[places[0]] for places in forms.values()]),
    )


def by_result(task: Task, asked: Asked) -> bool:
    """Whether the most frequent result of the five is right; a reply that fails has none."""

    def alike(reply: Generation) -> int:
        as_gold = dataclasses.replace(asked.example, targets=(sql_in(reply.text),))
        try:
            return sum(task.grade(as_gold, other.text) == 1.0 for other in asked.said)
        except QueryError:
            return 0

    return asked.right[int(np.argmax([alike(reply) for reply in asked.said]))]


def choose(task: Task, train: Sequence[Asked], test: Sequence[Asked]) -> None:
    encoder = MiniLM()
    made = (candidates(asked, encoder) for asked in train)
    learned_from = [c for c in made if c is not None]
    open_to = [candidates(asked, encoder) for asked in test]
    kept = Kept(
        "rerank_sql",
        settings={
            "LM": LM, "samples": SAMPLES, "temperature": TEMPERATURE, "encoder": "minilm-int8",
            "train": len(train), "test": len(test), "rounds": ROUNDS, "seeds": SEEDS,
        },
    )  # fmt: skip
    kept.put("train", "a right sample", float(np.mean([any(a.right) for a in train])), n=len(train))
    one = np.array([a.right[0] for a in test], np.float64)
    most = np.array([a.right[most_agreed(a.said)[0]] for a in test], np.float64)
    result = np.array([by_result(task, a) for a in test], np.float64)
    before = {"one sample": one, "majority of texts": most, "majority of results": result}
    for at, (name, right) in enumerate(before.items()):
        share(kept, name, right)
        against(kept, name, right, dict(list(before.items())[:at]))
    for seed in SEEDS:
        energy = fit_energy(learned_from, draws=SAMPLES, rounds=ROUNDS, seed=seed)
        likely = [None if c is None else energy.adapted(c.features, c.shares) for c in open_to]
        found = [
            c is not None and p is not None and bool(c.right[p.argmax()])
            for c, p in zip(open_to, likely, strict=True)
        ]
        share(kept, f"energy, seed {seed}", np.array(found, np.float64))
        against(kept, f"energy, seed {seed}", np.array(found, np.float64), before)
    share(kept, "the best of the five", np.array([any(a.right) for a in test], np.float64))
    kept.write()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    task = task_of(arguments.shared)
    inner = models.create("llamacpp", model=LM, parallel=AT_ONCE)
    store = ReplayStore(arguments.data / "rerank_sql_replay.sqlite")
    recorded = Recorded(LMOwner(inner, exposes=Access.WEIGHTS.shows), store, of=inner)
    session = open_session(
        DataOwner(ScriptedModel()), Exposed(recorded), strategies.create("large"),
        sampling=task.sampling,
    )  # fmt: skip
    asked: dict[Split, list[Asked]] = {"train": [], "test": []}
    try:
        for split, found in asked.items():
            examples = [e for e in task.splits[split] if e.group in PRIVATE]
            for example in sorted(examples, key=lambda e: e.group):  # one schema after another
                if time.monotonic() > end:
                    raise SystemExit(f"out of time after {len(found)} questions of {split}")
                found.append(await ask(session, task, example))
                print(split, len(found), len(examples), sum(found[-1].right), flush=True)
    finally:
        await recorded.close()
        await inner.close()
        store.close()
    choose(task, asked["train"], asked["test"])


if __name__ == "__main__":
    asyncio.run(main())
