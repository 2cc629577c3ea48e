"""Text to SQL on four private databases: the raw question against the question behind pseudonyms.

    python benchmarks/data/text2sql_defog.py     # once: SQLite files out of the dumps, in runs/data
    python benchmarks/text2sql.py [--split test] [--limit N]

The LM (Qwen2.5-Coder-1.5B) sees the schema and the owner's notes, never a row. Each question is asked
twice, as it is and behind the pseudonym defence with the "literals" detector, which adds the columns
that hidden values stand in; the SQL that comes back runs locally and counts when its result matches
any gold alternative. Which literals still leave is counted by benchmarks/pseudonyms/literals.py.
Answers are recorded as they come, so a second run resumes, and a finished one asks nothing.
Intervals: Wilson; the difference is paired, by bootstrap.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import get_args

import numpy as np

from cosilo.defences.base import defences
from cosilo.models.base import Access, models
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.intervals import difference, wilson
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.tasks.base import Example, Split, Task
from cosilo.tasks.config import Columns, TaskConfig, load_task

AT_ONCE = 4
PRIVATE = ("broker", "car_dealership", "derm_treatment", "ewallet")


def task_of(shared: Path) -> Task:
    data = shared / "text2sql_defog"
    return load_task(
        TaskConfig(
            kind="sql",
            files={"train": (str(data / "train.jsonl"),), "test": (str(data / "test.jsonl"),)},
            columns=Columns(
                id="id", text="question", target="gold_sql", context="instructions", group="db"
            ),
            options={"databases": str(data / "db"), "clock": "2024-06-17 10:30:00"},
        ),
        Path.cwd(),
    )


async def ask_all(
    task: Task, examples: list[Example], lm: Exposed, data: Path, *, hidden: bool
) -> list[float]:
    """The grade of each question."""
    guards = []
    if hidden:
        guards = [
            defences.create(
                "pseudonym",
                detectors=["literals"],
                system="public",
                replies="sql",
                hints=True,
                databases=data / "text2sql_defog" / "db",
                key_file=data / "pseudonym.key",
            )
        ]
    large = strategies.create("large")
    owner = DataOwner(ScriptedModel())
    session = open_session(owner, lm, large, defences=guards, sampling=task.sampling)
    grades: dict[str, float] = {}
    left = iter(examples)

    async def work() -> None:
        for example in left:
            answer = await large.answer(session.bind(example.id), example.chat)
            grades[example.id] = task.grade(example, answer.text)
            what = "hidden" if hidden else "raw"
            print(f"\r{what:6s} {len(grades)}/{len(examples)}", end="", flush=True)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    print()
    return [grades[example.id] for example in examples]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--split", default="test", choices=get_args(Split))
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    task = task_of(arguments.shared)
    examples = [e for e in task.splits[arguments.split] if e.group in PRIVATE][: arguments.limit]
    examples.sort(key=lambda e: e.group)  # questions of one database share the cached schema
    inner = models.create("llamacpp", model="qwen2.5-coder-1.5b-instruct")
    store = ReplayStore(arguments.data / "text2sql_replay.sqlite")
    recorded = Recorded(LMOwner(inner, exposes=Access.WEIGHTS.shows), store, of=inner)
    try:
        raw = await ask_all(task, examples, Exposed(recorded), arguments.data, hidden=False)
        hidden = await ask_all(task, examples, Exposed(recorded), arguments.data, hidden=True)
    finally:
        await recorded.close()
        await inner.close()
        store.close()
    print(f"{arguments.split}: {len(examples)} questions, {recorded.misses} LM calls in this run")
    for name, grades in (("raw", raw), ("pseudonyms", hidden)):
        low, high = wilson(int(sum(grades)), len(grades))
        value = sum(grades) / len(grades)
        print(f"{name:11s} execution match {value:.3f} [{low:.3f}, {high:.3f}]")
    low, high = difference(np.array(hidden), np.array(raw))
    value = float(np.mean(hidden) - np.mean(raw))
    print(f"difference  {value:+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    asyncio.run(main())
