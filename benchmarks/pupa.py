"""Asking without showing what is private: `rewrite` and `sketch` beside `pseudonym`, `large`, `small`.

    python benchmarks/pupa.py                      the test split, once
    python benchmarks/pupa.py --items 16 --writing question hide
    python benchmarks/pupa.py --split train --items 16 --only large small question

Real people's questions (PUPA, Siyan et al., arXiv 2410.17127) with the private units in them. The small
model is SmolLM2-135M, the large one Qwen2.5-Coder-1.5B, both in this process. Of each row is measured

    leak      the share of all gold units that stand in what left, whatever their case, spaces and signs
    cosine    of MiniLM's vectors of the answer and of the data's reply
    rouge     ROUGE-L F1 of the answer and the data's reply

and the last two relative to the same large model on the raw question: mean over mean, over the same
items. What is kept of an item are numbers; its texts stay under runs/, and no row is ever printed. The
replies of both models are kept there as well, so that a call that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import PrivacyError
from cosilo.matching import Pool, normalised
from cosilo.models import catalog
from cosilo.models.base import Access, TextModel, ThreadModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.gguf.llamacpp import LlamaCppModel
from cosilo.objectives import intervals
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import DefenceConfig, PointConfig, make_defences, open_point
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.inference.rewrite import Rewrite
from cosilo.tasks.text import rouge_l
from cosilo.types import Chat, Demonstration, Generation, Sampling, user
from kept import ROOT, Kept

DATA = ROOT.parent / "shared" / "data" / "pupa"
RUNS = ROOT / "runs" / "pupa"
SMALL, LARGE = "smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"
LONGEST_QUERY = 1000  # characters; two cores read a longer one for minutes
MAX_TOKENS = 64
SEED = 12
DETECTORS = ["presidio"]
SEARCHED = 12

REWRITES: Mapping[str, dict[str, Any]] = {  # the settings were chosen on train rows
    "question": {"way": "question"},
    "describe": {"way": "describe"},
    "similar": {"way": "similar", "cases": 2},
    "hide": {"way": "hide", "decoys": 3},
    "replace": {"way": "replace", "finish": "large"},
    "replace-cautious": {
        "way": "replace",
        "finish": "large",
        "lists": False,
        "cautious": True,
        "shared_by": 1,
    },
    "replace-vocabulary": {
        "way": "replace",
        "finish": "large",
        "lists": False,
        "cautious": True,
        "vocabulary": True,
        "shared_by": 1,
    },
    "question-large": {"way": "question", "finish": "large"},
}


SKETCHES: Mapping[str, dict[str, Any]] = {"sketch": {}, "skeleton": {"skeleton": True}}


@dataclass(frozen=True)
class Row:
    id: str
    query: str
    units: tuple[str, ...]
    target: str

    @property
    def chat(self) -> Chat:
        return user(self.query)


def rows(split: str) -> list[Row]:
    found = []
    for i, line in enumerate((DATA / f"{split}.jsonl").read_text("utf-8").splitlines()):
        row = json.loads(line)
        units = tuple(u for u in dict.fromkeys(row["pii_units"]) if normalised(u).text)
        found.append(Row(f"{split}-{i}", row["query"], units, row["target_response"]))
    return [r for r in found if len(r.query) <= LONGEST_QUERY]


def sampled(split: str, items: int) -> list[Row]:
    """The first so many of a seeded order, so that a larger sample holds a smaller one."""
    everything = rows(split)
    random.Random(SEED).shuffle(everything)
    return everything[:items]


class Remembered:
    """`model`, whose replies are kept in a file."""

    access = Access.TEXT

    def __init__(self, model: ThreadModel, path: Path) -> None:
        self.model = model
        self.name = model.name
        self._path = path
        self._known: dict[str, Generation] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                key, reply = json.loads(line)
                self._known[key] = msgspec.convert(reply, Generation)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        asked = msgspec.json.encode((chat, sampling))
        key = hashlib.sha256(asked).hexdigest()
        if key not in self._known:
            reply = await self.model.generate(chat, sampling)
            self._known[key] = msgspec.structs.replace(reply, tokens=())
            with self._path.open("a", encoding="utf-8") as file:
                kept = msgspec.to_builtins(self._known[key])
                file.write(json.dumps([key, kept]) + "\n")
        return self._known[key]

    @property
    def vocabulary_size(self) -> int:
        return self.model.vocabulary_size

    def spelt(self, ids: Sequence[int]) -> Sequence[bytes]:
        return self.model.spelt(ids)

    async def close(self) -> None:
        await self.model.close()


@dataclass(frozen=True)
class Outcome:
    """One item of one row: what it was answered, and what left.

    Attributes:
        asked: the messages that left.
        left: of the gold units, those in them.
    """

    text: str
    asked: int
    left: int
    units: int
    by: str
    refused: bool


def units_in(units: Sequence[str], texts: Sequence[str]) -> int:
    pool = Pool(units, normalised)
    return len({i for text in texts for i in pool.found(normalised(text))})


def points() -> dict[str, PointConfig]:
    def hide() -> DefenceConfig:
        options = {"detectors": DETECTORS, "key_file": str(RUNS / "pseudonym.key")}
        return DefenceConfig("pseudonym", "pseudonym", options)

    found = {name: PointConfig(name, name) for name in ("small", "large")}
    found["pseudonym"] = PointConfig("pseudonym", "large", defences=(hide(),))
    for name, options in REWRITES.items():
        options = {"otherwise": "small", "search": 0, **options}
        found[name] = PointConfig(name, "rewrite", options)
        found[f"{name}+pseudonym"] = PointConfig(name, "rewrite", options, (hide(),))
    for name, options in SKETCHES.items():
        found[name] = PointConfig(name, "sketch", {"otherwise": "small", **options})
    return found


def owner_of(small: TextModel, train: Sequence[Row], encoder: Encoder) -> DataOwner:
    """The owner, who looks for private values with the detectors of the defence."""
    examples = tuple(Demonstration(r.id, r.chat, r.target) for r in train)
    looks = PointConfig("", "large", defences=(DefenceConfig("p", "pseudonym", {
        "detectors": DETECTORS, "key_file": str(RUNS / "pseudonym.key")}),))  # fmt: skip

    def grade(example: Demonstration, answer: str) -> float:
        return max(0.0, cosine(encoder, answer, example.target))

    (defence,) = make_defences(looks)
    return defence.protect(DataOwner(small, calibration=examples, grade=grade))


def cosine(encoder: Encoder, answer: str, target: str) -> float:
    if not answer.strip():
        return 0.0
    a, b = encoder.embed([answer, target]).vectors
    return float(a @ b)


async def run(
    name: str, point: PointConfig, items: Sequence[Row], owner: DataOwner, large: TextModel
) -> list[Outcome]:
    """What became of each item; those that an earlier call has done are not done again."""
    path = RUNS / f"{name}.jsonl"
    done: dict[str, dict[str, Any]] = {}
    about = hashlib.sha256(repr((point, MAX_TOKENS, SEARCHED)).encode()).hexdigest()[:12]
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            found = json.loads(line)
            if found.pop("about") == about:
                done[found.pop("id")] = found
    ledger = MemoryLedger()
    todo = [row for row in items if row.id not in done]
    if todo:
        sampling = Sampling(max_tokens=MAX_TOKENS)
        strategy, session = open_point(
            point, owner, LMOwner(large), sampling=sampling, ledger=ledger
        )
        strategy, session = await strategy.prepare(session)
        for card in session.cards:
            (RUNS / f"{name}.card.json").write_text(json.dumps(asdict(card), indent=1))

        async def one(row: Row) -> None:
            refused, text, by = False, "", "small"
            try:
                answer = await strategy.answer(session.bind(row.id), row.chat)
                text, by = answer.text, answer.by
            except PrivacyError:
                refused = True
            sent = [e for e in ledger.entries() if e.request == row.id and e.direction == "up"]
            texts = [p.text for e in sent for p in e.message.passages()]
            found = Outcome(
                text, len(sent), units_in(row.units, texts), len(row.units), by, refused
            )
            done[row.id] = asdict(found)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": row.id, "about": about, **done[row.id]}) + "\n")

        await fan_out(one, todo, concurrency=4)
    return [Outcome(**done[row.id]) for row in items]


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """The interval of the one's mean over the other's, over the same items."""
    return intervals.bootstrap(lambda w: (w @ above) / (w @ below), len(above), bounds=(0.0, 10.0))


def put(
    kept: Kept,
    name: str,
    items: Sequence[Row],
    outcomes: Mapping[str, Sequence[Outcome]],
    encoder: Encoder,
) -> None:
    """The numbers of row `name`, beside `large` and `small` on the same items."""

    def grades(row: str, what: str) -> np.ndarray:
        pairs = zip(outcomes[row], items, strict=True)
        if what == "cosine":
            return np.array([cosine(encoder, o.text, item.target) for o, item in pairs])
        return np.array([rouge_l(item.target, o.text) for o, item in pairs])

    found, n = outcomes[name], len(items)
    left = np.array([o.left for o in found], dtype=float)
    units = np.array([o.units for o in found], dtype=float)
    low, high = ratio(left, units) if left.any() else intervals.wilson(0, int(units.sum()))
    kept.put(name, "leak", left.sum() / units.sum(), n=int(units.sum()), low=low, high=high)
    clean = int(sum(o.left == 0 for o in found))
    low, high = intervals.wilson(clean, n)
    kept.put(name, "nothing left", clean / n, n=n, low=low, high=high)
    asked = int(sum(o.asked > 0 for o in found))
    low, high = intervals.wilson(asked, n)
    kept.put(name, "asked", asked / n, n=n, low=low, high=high)
    kept.put(name, "messages", float(np.mean([o.asked for o in found])), n=n)
    for what in ("cosine", "rouge"):
        own, large, small = (grades(row, what) for row in (name, "large", "small"))
        low, high = intervals.mean(own, (-1.0, 1.0))
        kept.put(name, what, float(own.mean()), n=n, low=low, high=high)
        if name != "large":
            low, high = ratio(own, large)
            kept.put(name, f"{what} relative", own.mean() / large.mean(), n=n, low=low, high=high)
        if name != "small":
            low, high = intervals.difference(own, small, (-2.0, 2.0))
            gain = float((own - small).mean())
            kept.put(name, f"{what} − small", gain, n=n, low=low, high=high)


async def writing(
    name: str, items: Sequence[Row], owner: DataOwner, large: TextModel, kept: Kept
) -> None:
    """How well the small model writes for the other side in the way `name`; the LM is not asked."""
    strategy, session = open_point(points()[name], owner, LMOwner(large))
    assert isinstance(strategy, Rewrite)
    first, held, left, units = [], 0, 0, 0
    for row in items:
        private = await strategy.private(session, row.chat)
        share, sent = await strategy.attempt(session, row.chat, private)
        first.append(share)
        held += sent is None
        if sent is not None:
            left += units_in(row.units, sent.texts)
        units += len(row.units)
    n, called = len(items), f"{name}, as written"
    low, high = intervals.mean(np.array(first), (0.0, 1.0))
    kept.put(
        called, "found values in the first try", float(np.mean(first)), n=n, low=low, high=high
    )
    low, high = intervals.wilson(held, n)
    kept.put(called, "held back", held / n, n=n, low=low, high=high)
    low, high = intervals.wilson(left, units)
    kept.put(called, "gold units that may leave", left / units, n=units, low=low, high=high)


async def measure(arguments: argparse.Namespace) -> None:
    os.umask(0o077)
    RUNS.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(catalog.path("minilm-int8"))
    train = sampled("train", 130)
    items = sampled(arguments.split, arguments.items)
    models = {
        name: Remembered(
            LlamaCppModel(catalog.path(name), name=name, identity=name, parallel=4),
            RUNS / f"replies-{name}.jsonl",
        )
        for name in (SMALL, LARGE)
    }
    owner = owner_of(models[SMALL], train, encoder)
    name = "pupa" if arguments.split == "test" else f"pupa_{arguments.split}"
    kept = Kept(
        name,
        seed=SEED,
        settings={
            "small": SMALL,
            "large": LARGE,
            "max_tokens": MAX_TOKENS,
            "longest question, characters": LONGEST_QUERY,
            "detectors": DETECTORS,
        },
        fresh=False,
    )
    everything = points()
    outcomes: dict[str, list[Outcome]] = {}
    wanted = ["large", "small", *(n for n in arguments.only or ROWS if n not in ("large", "small"))]
    try:
        for row in arguments.writing or ():
            await writing(row, items, owner, models[LARGE], kept)
            print(f"{row}: written for {len(items)} items", file=sys.stderr)
        if arguments.writing:
            kept.write()
            return
        for row in wanted:
            lm = models[LARGE]
            outcomes[row] = await run(row, everything[row], items, owner, lm)
            print(f"{row}: {len(items)} items", file=sys.stderr)
            if len(outcomes) > 1:
                put(kept, row, items, outcomes, encoder)
        put(kept, "large", items, outcomes, encoder)
    finally:
        for model in models.values():
            await model.close()
    if arguments.split == "test":
        kept.write()
    else:
        for row in wanted:
            numbers = {c: round(v["value"], 3) for c, v in kept.rows[row].items()}
            print(row, json.dumps(numbers, ensure_ascii=False))


ROWS = [
    "pseudonym", "replace-cautious", "replace", "question", "question-large", "sketch", "describe",
    "hide", "similar", "skeleton", "question+pseudonym", "replace+pseudonym",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=["train", "test"], default="test")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument(
        "--writing",
        nargs="+",
        choices=["question", "describe", "similar", "hide", "replace"],
        help="only what the small model writes in these ways, which asks the LM nothing",
    )
    parser.add_argument("--only", nargs="+", choices=list(points()))
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
