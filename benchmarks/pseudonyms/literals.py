"""Which literals of questions about private databases still stand in the message sent.

    python benchmarks/pseudonyms/literals.py [--split train|test] [--show] [--shared ../shared/data]

For every question of `text2sql_defog` about a private database: the string and number literals of
its gold SQL that the question spells out, and those of them that the user turn still spells out
behind the pseudonym defence with the "literals" detector. Literals that stand in the schema or the
owner's notes are public, and counted apart. No model is called.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import Generation, last_user, user
from kept import Kept

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Question:
    id: str
    text: str
    public: str
    gold: tuple[str, ...]


def questions(data: Path, split: str) -> Iterator[Question]:
    schemas = {
        row["db"]: ";\n".join(row["ddl"])
        for row in map(json.loads, (data / "schemas.jsonl").read_text("utf-8").splitlines())
    }
    for row in map(json.loads, (data / f"{split}.jsonl").read_text("utf-8").splitlines()):
        if row["private"]:
            public = f"{schemas[row['db']]}\n{row['instructions']}"
            yield Question(row["id"], row["question"], public, tuple(row["gold_sql"]))


def literals(question: Question) -> set[str]:
    """Values that a gold query compares with and the question spells out, in any case."""
    found: set[str] = set()
    for sql in question.gold:
        texts = re.findall(r"'((?:[^']|'')*)'", sql)
        found.update(t.replace("''", "'").strip("%").strip() for t in texts)
        rest = re.sub(r"'(?:[^']|'')*'", " ", sql)
        found.update(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", rest))
        # '-30 days' holds the 30 of the question.
        found.update(n for t in texts for n in re.findall(r"^[+-]?\s*(\d+) \w+$", t))
    return {value for value in found if value and spells(question.text, value)}


def spells(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.I) is not None


async def sent(defence: Pseudonym, question: Question) -> str:
    """The user turn as the LM gets it."""
    seen: list[Ask] = []

    async def forward(message: Message) -> Message:
        assert isinstance(message, Ask)
        seen.append(message)
        return Completion(generation=Generation(""))

    ask = Ask(chat=user(question.text, system=question.public))
    await defence.guard(ask, forward, request=question.id)
    assert seen[0].chat[0].content == question.public
    return last_user(seen[0].chat)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="test", choices=["train", "test"])
    arguments.add_argument("--show", action="store_true", help="name the literals that left")
    arguments.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    options = arguments.parse_args()
    data = options.shared / "text2sql_defog"
    private = public = left = public_left = asked = changed = 0
    with tempfile.TemporaryDirectory() as folder:
        defence = Pseudonym(
            detectors=["literals"],
            system="public",
            replies="sql",
            hints=True,
            databases=data / "db",
            key_file=Path(folder, "key"),
        )
        for question in questions(data, options.split):
            message = asyncio.run(sent(defence, question))
            asked += 1
            changed += message != question.text
            for value in sorted(literals(question)):
                stands = spells(message, value)
                if spells(question.public, value):
                    public, public_left = public + 1, public_left + stands
                    continue
                private, left = private + 1, left + stands
                if stands and options.show:
                    print(f"{question.id}: {value!r} left")
    low, high = wilson(left, private)
    print(f"{options.split}: {asked} questions, {changed} of them sent with something hidden")
    print(
        f"literals of the gold SQL in the question: {private} private, {public} in the schema too"
    )
    print(f"in the message sent: {left} of {private} private [{low:.1%}, {high:.1%}]", end="")
    print(f", {public_left} of {public} public")
    kept = Kept(f"literals_{options.split}")
    kept.put("questions", "asked", asked)
    kept.put("questions", "changed", changed, n=asked)
    kept.put("private", "left", left, n=private)
    kept.put("private", "share left", left / private, n=private, low=low, high=high)
    kept.put("public", "left", public_left, n=public)
    kept.write()


if __name__ == "__main__":
    main()
