"""Passages found at home (`pubmedqa`): whether they are the right ones, and how much crosses.

    python benchmarks/retrieve.py

The contexts of 300 records of `pubmedqa` test lie, in a drawn order, 20 to a file, in a folder; each
record's question is asked once, with all options of `retrieve` as they are by default. The LM is a
script that says nothing of use: what is measured is what would have been in its prompt.

* found: a sentence of the record that the question was made for was in the prompt (aligned with it;
  four fifths of its letters), when the question is the first ever asked: nothing was sent before;
* found, last: the same with all questions asked of one point, so that what the share meter let through
  before is gone: a file gives up a tenth of its letters, whoever asks, and a question whose own words
  would be more of a file than that is refused;
* crossed: sentences of the files that stood in a prompt, after one question and after all.

By words alone (FTS5), and by words and meaning (MiniLM). By chance, as many passages drawn at random
would hold one of the record's as often as the base rate says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import PrivacyError
from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.intervals import wilson
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.documents.parting import pieces
from cosilo.strategies.inference.retrieve import Retrieve
from cosilo.types import Sampling, user
from documents import sentences_crossed
from kept import ROOT, Kept

SEED, QUESTIONS, IN_FILE = 12, 300, 20


@dataclass(frozen=True)
class Record:
    question: str
    text: str
    file: int


def records_of(shared: Path, count: int) -> list[Record]:
    """`count` records in a drawn order; so many in a row make up a file."""
    lines = (shared / "pubmedqa" / "test.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    random.Random(SEED).shuffle(found)
    return [
        Record(r["question"], " ".join(r["context"].split()), i // IN_FILE)
        for i, r in enumerate(found[:count])
    ]


def files_of(records: Sequence[Record]) -> list[str]:
    texts: dict[int, list[str]] = {}
    for record in records:
        texts.setdefault(record.file, []).append(record.text)
    return ["\n\n".join(texts[i]) for i in sorted(texts)]


async def asked(
    strategy: Retrieve, owner: DataOwner, records: Sequence[Record]
) -> list[tuple[Record, str]]:
    """What was in the prompt for each record's question, all asked of one point."""
    ledger = MemoryLedger()
    lm = LMOwner(ScriptedModel(lambda _: "No."))
    sampling = Sampling(max_tokens=3)
    session = open_session(owner, lm, strategy, sampling=sampling, ledger=ledger)
    for i, record in enumerate(records):
        with suppress(PrivacyError):  # the meter lets nothing more of a file through
            await strategy.answer(session.bind(str(i)), user(record.question))
    sent: dict[str, list[str]] = {}
    for entry in ledger.entries():
        if entry.direction == "up":
            sent.setdefault(entry.request, []).extend(p.text for p in entry.message.passages())
    return [(r, "\n".join(sent.get(str(i), ()))) for i, r in enumerate(records)]


def is_found(record: Record, prompt: str) -> bool:
    return sentences_crossed(record.text, prompt)[0] > 0


async def arm(
    name: str, embedder: Any, records: Sequence[Record], folder: Path, kept: Kept
) -> None:
    owner = DataOwner(ScriptedModel(lambda _: "No."), embedder=embedder)
    texts = files_of(records)

    def point() -> Retrieve:
        return Retrieve(documents=str(folder), index=str(folder.parent / f"{name}.sqlite"))

    first = point()
    session = open_session(owner, LMOwner(ScriptedModel(lambda _: "No.")), first)
    await first.prepare(session)
    alone, after_one = [], []
    for i, record in enumerate(records):
        (_, prompt), *_ = await asked(point(), owner, [record])
        alone.append(is_found(record, prompt))
        counts = np.array([sentences_crossed(text, prompt) for text in texts])
        after_one.append(counts[:, 0].sum() / counts[:, 1].sum())
        print(f"\r{name} {i + 1}/{len(records)}", end="", flush=True)
    print()
    together = await asked(point(), owner, records)
    last = [is_found(*one) for one in together]
    refused = [not prompt for _, prompt in together]
    every = "\n".join(prompt for _, prompt in together)
    counts = np.array([sentences_crossed(text, every) for text in texts])
    for column, values in (("found", alone), ("found, last", last), ("refused, last", refused)):
        low, high = wilson(sum(values), len(values))
        kept.put(name, column, float(np.mean(values)), n=len(values), low=low, high=high)
    kept.put(name, "crossed, one question", float(np.mean(after_one)), n=len(after_one))
    kept.put(name, "crossed, all", float(counts[:, 0].sum() / counts[:, 1].sum()), n=len(texts))
    kept.put(
        name, "crossed, most of a file", float((counts[:, 0] / counts[:, 1]).max()), n=len(texts)
    )
    several = [len(pieces(text, first.passage)) for text in texts]
    own = float(np.mean([len(pieces(r.text, first.passage)) for r in records]))
    kept.put("chance", "found", 1 - (1 - own / sum(several)) ** first.findings, n=len(records))
    kept.put("chance", "passages", sum(several), n=len(texts))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    given = parser.parse_args()
    records = records_of(given.shared, given.questions)
    kept = Kept("retrieve", seed=SEED, settings={"records in a file": IN_FILE})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "documents"
        folder.mkdir()
        for i, text in enumerate(files_of(records)):
            (folder / f"{i}.txt").write_text(text, "utf-8")
        await arm("words", None, records, folder, kept)
        await arm("words and meaning", models.create("classifier"), records, folder, kept)
    kept.write()


if __name__ == "__main__":
    asyncio.run(main())
