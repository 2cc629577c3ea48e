"""Long documents at home (`pubmedqa` joined): what `decompose` keeps of the answers, and what crosses.

    python benchmarks/documents.py --lm smollm2-135m-instruct --read 100
    python benchmarks/documents.py --lm qwen2.5-coder-1.5b-instruct --items 40

A document is 20 or more records of `pubmedqa` test, joined in an order that is drawn with a seed, until
it has 4,000 tokens; one of them answers the question (yes, no or maybe). Records of 110 to 190 words
are taken, as reading a document is what takes long on two cores. The arms:

* alone: the LM without any document, which is what questions give away by themselves;
* record: the LM reads the one record that answers, which nobody could know beforehand;
* document: the LM reads all of it, for the first `--read` documents, as far as `--minutes` allow;
* decompose: `planner = "question"`, the encoder finds passages; all options as they are by default.

What crossed is read off the ledger and aligned with the document: a sentence crossed when four fifths
of its letters stand in stretches that were sent. Answers are recorded as they come, so that a second
run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kept
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.labels import named
from cosilo.models.base import Access, models
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.intervals import difference, mean
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.strategies.documents.parting import pieces
from cosilo.strategies.documents.share import aligned, letters
from cosilo.types import Chat, Sampling, Turn

LABELS = ("yes", "no", "maybe")
SEED = 12
RECORDS, TOKENS = 20, 4000
ROOT = Path(__file__).resolve().parents[1]
SYSTEM = "You answer questions about medical research with one word: yes, no or maybe."


@dataclass(frozen=True)
class Item:
    """A document with the one record in it that answers.

    Attributes:
        answering: the record's own text, as it stands in the document.
    """

    id: str
    question: str
    label: str
    document: str
    answering: str

    def chat(self, document: str) -> Chat:
        text = f"<document>\n{document}\n</document>\n\n" if document else ""
        ask = f"{text}Question: {self.question}\nAnswer yes, no or maybe."
        return (Turn("system", SYSTEM), Turn("user", ask))


def items_of(shared: Path, count: int) -> list[Item]:
    """`count` documents, the same for the same count or a larger one."""
    lines = (shared / "pubmedqa" / "test.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    short = [r for r in records if 110 <= len(r["context"].split()) <= 190]
    random.Random(SEED).shuffle(short)
    found = []
    for i, record in enumerate(short[:count]):
        draw = random.Random(f"{SEED}-{i}")
        others = [r for r in short if r is not record]
        draw.shuffle(others)
        chosen = [record]
        # 1.35 tokens a word is what both models' tokenisers take at least for these texts.
        while len(chosen) < RECORDS or 1.35 * _words(chosen) < TOKENS:
            chosen.append(others.pop())
        draw.shuffle(chosen)
        document = "\n\n".join(_even(r["context"]) for r in chosen)
        found.append(
            Item(
                record["id"],
                record["question"],
                record["label"],
                document,
                _even(record["context"]),
            )
        )
    return found


def _words(records: Sequence[dict[str, str]]) -> int:
    return sum(len(r["context"].split()) for r in records)


def _even(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@dataclass
class Arm:
    """What came of one arm, by document."""

    right: list[float]
    tokens: list[int]
    crossed: list[float]
    found: list[float]


def sentences_crossed(document: str, sent: str) -> tuple[int, int]:
    """(how many sentences of `document` crossed with `sent`, how many it has)."""
    whole, places = letters(document), aligned(letters(document), letters(sent))[0]
    at = crossed = count = 0
    for sentence in pieces(document, 1 << 30):
        for one in re.split(r"(?<=[.!?])\s+", sentence):
            size = len(letters(one))
            if size:
                count += 1
                crossed += float(places[at : at + size].mean()) >= 0.8
                at += size
    assert at == len(whole)
    return crossed, count


async def run_arm(
    name: str, items: Sequence[Item], lm: Exposed, owner: DataOwner, *, minutes: float
) -> Arm:
    options: dict[str, Any] = {"planner": "question"} if name == "decompose" else {}
    strategy = strategies.create("decompose" if name == "decompose" else "large", **options)
    ledger = MemoryLedger()
    session = open_session(owner, lm, strategy, sampling=Sampling(max_tokens=3), ledger=ledger)
    arm, end = Arm([], [], [], []), time.monotonic() + 60 * minutes
    for item in items:
        if time.monotonic() > end:
            break
        seen = {"alone": "", "record": item.answering}.get(name, item.document)
        bound = session.bind(item.id)
        answer = await strategy.answer(bound, item.chat(seen))
        arm.right.append(float(named(answer.text, LABELS) == item.label))
        arm.tokens.append(bound.totals.tokens_in + bound.totals.tokens_out)
        if name == "decompose":
            sent = "\n".join(
                p.text
                for entry in ledger.entries()
                if entry.direction == "up" and entry.request == item.id
                for p in entry.message.passages()
            )
            crossed, count = sentences_crossed(item.document, sent)
            arm.crossed.append(crossed / count)
            arm.found.append(float(sentences_crossed(item.answering, sent)[0] > 0))
        print(f"\r{name} {len(arm.right)}/{len(items)}", end="", flush=True)
    print()
    return arm


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--lm", default="smollm2-135m-instruct")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--read", type=int, default=0, help="documents that the LM reads whole")
    parser.add_argument("--minutes", type=float, default=30, help="for each arm")
    arguments = parser.parse_args()
    items = items_of(arguments.shared, arguments.items)
    inner = models.create("llamacpp", model=arguments.lm, n_ctx=8192, parallel=1)
    arguments.data.mkdir(parents=True, exist_ok=True)
    store = ReplayStore(arguments.data / "documents_replay.sqlite")
    recorded = Recorded(LMOwner(inner, exposes=Access.WEIGHTS.shows), store, of=inner)
    embedder: Any = models.create("classifier")
    owner = DataOwner(ScriptedModel(), embedder=embedder)
    arms: dict[str, Arm] = {}
    try:
        for name in ("alone", "decompose", "record", "document"):
            some = items[: arguments.read] if name == "document" else items
            lm, minutes = Exposed(recorded), arguments.minutes
            arms[name] = await run_arm(name, some, lm, owner, minutes=minutes)
    finally:
        await recorded.close()
        await inner.close()
        store.close()
    short = "smollm2" if arguments.lm.startswith("smol") else "qwen"
    found = kept.Kept(f"documents_{short}", seed=SEED, settings={"lm": arguments.lm})
    labels = [item.label for item in items]
    most = max(LABELS, key=labels.count)
    found.put("base", "utility", labels.count(most) / len(labels), n=len(labels))
    found.put("document", "records", RECORDS, n=len(items))
    for name, arm in arms.items():
        for column, values in vars(arm).items():
            if values:
                numbers = np.array(values, float)
                low, high = mean(numbers, None if column == "tokens" else (0.0, 1.0))
                found.put(name, column, float(numbers.mean()), n=len(values), low=low, high=high)
    for other in ("document", "record", "alone"):
        n = min(len(arms["decompose"].right), len(arms[other].right))
        if n < 2:
            continue
        first, second = (np.array(arms[a].right[:n]) for a in ("decompose", other))
        low, high = difference(first, second, (-1, 1))
        found.put(f"less {other}", "right", float((first - second).mean()), n=n, low=low, high=high)
        if other == "document":
            tokens = [float(np.mean(arms[a].tokens[:n])) for a in ("decompose", other)]
            found.put(f"less {other}", "share of tokens", tokens[0] / tokens[1], n=n)
    found.write()


if __name__ == "__main__":
    asyncio.run(main())
