"""Questions about four private databases: by verbs on a digest, beside SQL behind pseudonyms.

    python benchmarks/data/text2sql_defog.py     # once: SQLite files out of the dumps, in runs/data
    python benchmarks/tables.py [--split test] [--limit N]

The same LM (Qwen2.5-Coder-1.5B) in both arms, both behind the pseudonym defence with the "literals"
detector and its hints. "pseudonyms" sends the schema and the owner's notes as they are; "tables"
(`decompose_tables`) sends a digest, and placeholders for cell values in the question, the notes and
the schema's comments. A plan counts when its result, run at home, matches any gold alternative.

Which cell values crossed is counted in what the LM was sent by a search of its own: each text of three
characters and more in any cell, as whole words in any case, unless all of its words are words of
tables' or columns' names. Answers are recorded as they come, question by question in both arms, so a
second run resumes. Intervals: Wilson; the difference is paired, by bootstrap.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np

from cosilo.boundary.channel import Handler
from cosilo.boundary.messages import Ask, Message
from cosilo.defences.base import Defence, defences
from cosilo.errors import CosiloError, PrivacyError
from cosilo.models.base import Access, models
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.intervals import difference, wilson
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.tasks.base import Example, Split
from kept import Kept
from text2sql import PRIVATE, task_of

ARMS = ("pseudonyms", "tables")


class Sent(Defence):
    """Notes what leaves, behind all other defences."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        assert isinstance(message, Ask)
        self.texts[request] = "\n".join(turn.content for turn in message.chat)
        return await forward(message)


def cells(file: Path) -> tuple[set[str], set[str]]:
    """Texts of the cells, and words of the names of tables and columns."""
    texts: set[str] = set()
    names: set[str] = set()
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            names.add(table)
            rows = connection.execute(f'SELECT * FROM "{table}"')
            names.update(column[0] for column in rows.description)
            texts.update(cell for row in rows for cell in row if isinstance(cell, str))
    words = set()
    for name in names:
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
        words |= {word.lower() for word in (name, *name.split("_"), *parts)}
    words |= {word + "s" for word in words} | {word.removesuffix("s") for word in words}
    return {t for t in texts if len(t.strip()) >= 3 and re.search(r"\w", t)}, words


def crossed(text: str, file: Path) -> set[str]:
    texts, words = cells(file)
    low = text.lower()
    return {
        cell.lower()
        for cell in texts
        if cell.strip().lower() in low
        and re.search(rf"(?<!\w){re.escape(cell.strip().lower())}(?!\w)", low)
        and not all(word in words for word in re.findall(r"[a-z0-9]+", cell.lower()))
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--split", default="test", choices=get_args(Split))
    parser.add_argument("--limit", type=int, help="questions of each database")
    parser.add_argument("--keep", action="store_true", help="write the numbers to be kept")
    arguments = parser.parse_args()
    task = task_of(arguments.shared)
    folder = arguments.data / "text2sql_defog" / "db"
    examples: list[Example] = []
    for name in PRIVATE:
        examples += [e for e in task.splits[arguments.split] if e.group == name][: arguments.limit]
    inner = models.create("llamacpp", model="qwen2.5-coder-1.5b-instruct", parallel=2)
    store = ReplayStore(arguments.data / "tables_replay.sqlite")
    recorded = Recorded(LMOwner(inner, exposes=Access.WEIGHTS.shows), store, of=inner)
    arms: dict[str, tuple[Strategy, Session, Sent]] = {}
    for arm in ARMS:
        strategy = strategies.create("large")
        if arm == "tables":
            strategy = strategies.create("decompose_tables", database=str(folder), reply="query")
        hide = defences.create(
            "pseudonym",
            detectors=["literals"],
            system="public",
            replies="sql",
            hints=True,
            databases=folder,
            key_file=arguments.data / "pseudonym.key",
        )
        sent = Sent()
        session = open_session(
            DataOwner(ScriptedModel()),
            Exposed(recorded),
            strategy,
            defences=[hide, sent],
            sampling=task.sampling,
        )
        arms[arm] = (strategy, session, sent)
    grades: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
    refused: dict[str, dict[str, str]] = {arm: {} for arm in ARMS}

    async def ask(arm: str, example: Example) -> None:
        strategy, session, _ = arms[arm]
        grades[arm][example.id] = 0.0
        try:
            answer = await strategy.answer(session.bind(example.id), example.chat)
            grades[arm][example.id] = task.grade(example, answer.text)
        except PrivacyError as error:
            refused[arm][example.id] = f"not sent: {error}"
        except CosiloError as error:
            refused[arm][example.id] = f"no plan: {error}"

    try:
        for i, example in enumerate(examples):
            await asyncio.gather(*(ask(arm, example) for arm in ARMS))
            print(i + 1, example.id, *(grades[arm][example.id] for arm in ARMS), flush=True)
    finally:
        await recorded.close()
        await inner.close()
        store.close()
    kept = Kept(f"tables_{arguments.split}")
    n = len(examples)
    kept.put("questions", "asked", n)
    for arm in ARMS:
        sent = arms[arm][2]
        right = int(sum(grades[arm].values()))
        low, high = wilson(right, n)
        kept.put(arm, "execution match", right / n, n=n, low=low, high=high)
        by = {
            e.id: crossed(sent.texts.get(e.id, ""), folder / f"{e.group}.sqlite") for e in examples
        }
        values, questions = sum(map(len, by.values())), sum(map(bool, by.values()))
        low_q, high_q = wilson(questions, n)
        kept.put(arm, "cell values crossed", values, n=n)
        kept.put(arm, "questions with one", questions / n, n=n, low=low_q, high=high_q)
        kept.put(arm, "not sent", sum(r.startswith("not") for r in refused[arm].values()), n=n)
        kept.put(arm, "no plan", sum(r.startswith("no ") for r in refused[arm].values()), n=n)
        print(f"{arm}: {right}/{n} [{low:.3f}, {high:.3f}]; {values} cell values in {questions}")
        for reason in sorted(set(refused[arm].values())):
            print(f"    {sum(r == reason for r in refused[arm].values())} × {reason}")
        if arguments.split != "test":
            print("   ", sorted(set().union(*by.values())))
    pairs = [np.array([grades[arm][e.id] for e in examples]) for arm in reversed(ARMS)]
    low, high = difference(*pairs)
    gain = float(pairs[0].mean() - pairs[1].mean())
    kept.put("difference", "execution match", gain, n=n, low=low, high=high)
    print(f"difference {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
    if arguments.keep:
        kept.write()


if __name__ == "__main__":
    asyncio.run(main())
