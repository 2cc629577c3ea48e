"""A large model that cannot be changed forgets by what a smaller one adds to its logits: tofu_qa.

    python benchmarks/offset.py                 seed 0; resumes, about 25 minutes of CPU a seed
    python benchmarks/offset.py --seeds 0 1 2 --minutes 60
    python benchmarks/offset.py --seeds 100     the tune split: FURTHER is chosen on it alone
    python benchmarks/offset.py --report        the table of what is there

Data as of `benchmarks/unlearning.py`, less of it: one author of twenty questions to forget and one to
keep, drawn by the seed. The LM is SmolLM2-135M with an adapter that learned both; retrained, one that
learned what is kept alone. The small model is the same SmolLM2 without ten of its thirty layers (those
of `benchmarks/proxy.py`), refitted to text of cfpb_raw and not healed. One adapter on it learns both
sets and stands in for the LM; another is trained so that the stand-in, moved by it, forgets. The LM is
surer than it of what both learned, and is moved further. It is read as the strategy `offset` reads it:
the 24 likeliest tokens of each place, the others in proportion to the small model's. Replies for ROUGE
and bytes a token are written by the strategy itself, over a boundary with a ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.boundary.wire.logits import pack_few, top_k, unpack
from cosilo.models.base import Access, Tokens
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    with_adapter,
)
from cosilo.models.white_box.compensation import compensate
from cosilo.models.white_box.depth import plain, without
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.unlearning.forgetting import Forgetting
from cosilo.models.white_box.unlearning.offsets import logits_of, offset
from cosilo.models.white_box.unlearning.reading import ModuleReader, reply_tokens
from cosilo.objectives import forgetting as measure
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Session
from cosilo.strategies.inference.offset import Offset
from cosilo.strategies.mixing.numbers import completed, normalised
from cosilo.strategies.mixing.rules import Difference
from cosilo.tasks.text import rouge_l_recall
from cosilo.types import Demonstration, Sampling, user
from kept import Cells, Kept
from unlearning import (
    DATA,
    LONGEST,
    MODEL,
    OWN,
    TUNE,
    Bench,
    Row,
    Split,
    _rounded,
    arguments,
    parts,
    put,
    put_records,
    ratios,
    run,
    written,
)

TEXTS = DATA.parent / "cfpb_raw" / "train.jsonl"
DROPPED = (4, 5, 12, 13, 14, 17, 19, 20, 25, 26)
AUTHOR, ASKED, WRITTEN, TOP = 20, 10, 6, 24
EPOCHS, REFIT = 8, 40
HOW = Forgetting(epochs=16.0, learning_rate=4e-3, probe=20, validate_every=10)
METHOD = "undial"  # npo makes wrong replies as unlikely as the true one (on the tune split)
ALPHA = 1.5
TRAINED = f"offset by {ALPHA}"
TRIED, FURTHER = (1.0, 1.2, 1.4, 1.6), 1.4


class Fewer(Split):
    """One author to forget, one to keep, and a few of the others."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        rng = np.random.default_rng([seed, 11])
        self.forget = _author(rng, self.forget)
        self.retain = _author(rng, self.retain)
        self.asked = {
            "retain": self.retain,
            **{what: self.asked[what][:ASKED] for what in ("real", "world")},
        }


def _author(rng: np.random.Generator, rows: Sequence[Row]) -> list[Row]:
    start = AUTHOR * int(rng.integers(len(rows) // AUTHOR))
    return list(rows[start : start + AUTHOR])


class Pair(Bench):
    """The LM, and a small model that learns beside it."""

    epochs, precision = EPOCHS, "float32"

    def __init__(self, how: argparse.Namespace) -> None:
        super().__init__(how)
        self.small = self.smaller()
        self.small_above = self.upper_loss(self.small.module)

    def smaller(self) -> TorchModel:
        """The LM's base without some layers, refitted."""
        teacher = self.base.module.requires_grad_(False)
        student = without(teacher, DROPPED)
        texts = [json.loads(line)["text"] for line in TEXTS.open().readlines()[:80]]
        compensate(student, teacher, DROPPED, plain(self.base.tokens, texts, length=64)[:REFIT])
        student.requires_grad_(False).eval()
        return TorchModel.holding(student, self.base.tokens, name="small")

    def run(self, seed: int, only: Sequence[str] = ()) -> None:
        split = Fewer(seed)
        folder = self.how.cells / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        cells = Cells(folder / "cells.json")
        learned = [*split.forget, *split.retain]
        tuned = self.adapter(folder, cells, "tuned", lambda: self.taught(learned, seed))
        again = self.adapter(folder, cells, "retrained", lambda: self.taught(split.retain, seed))
        stand_in = self.adapter(
            folder,
            cells,
            "stand-in",
            lambda: self.taught(learned, seed, self.small, self.small_above),
        )
        self.compared(cells, "tuned", split, tuned, None, 0.0)
        self.compared(cells, "retrained", split, again, None, 0.0)
        moving = self.adapter(
            folder, cells, TRAINED, lambda: self.moved(cells, split, stand_in, seed)
        )
        if seed < TUNE:
            self.compared(cells, arm(FURTHER), split, tuned, moving, ALPHA * FURTHER)
            return
        for further in TRIED:
            found = self.read(split, tuned, moving, ALPHA * further)
            sure = {what: np.exp(-np.array(found[what]["nats"]) / found[what]["tokens"]).mean()
                    for what in ("forget", "retain")}  # fmt: skip
            print(arm(further), {what: round(float(p), 4) for what, p in sure.items()}, flush=True)

    def moved(self, cells: Cells, split: Split, stand_in: Adapter, seed: int) -> Adapter:
        """The adapter that has the stand-in, moved by it, forget."""
        forget, retain = (
            [Demonstration(r["id"], user(r["question"]), r["answer"]) for r in rows]
            for rows in (split.forget, split.retain)
        )
        known = self.small.with_module(with_adapter(self.small.module, stand_in))
        found = offset(
            self.small, forget, retain, logits_of(known, self.small_above), METHOD, alpha=ALPHA,
            how=HOW, wrong=[row["wrong"][:OWN] for row in split.forget], seed=seed,
            above=self.small_above,
        )  # fmt: skip
        about = {
            "steps": found.steps, "best_step": found.best_step,
            "before": vars(found.before), "after": vars(found.after),
        }  # fmt: skip
        print(about, flush=True)
        cells.put("offset owner", about)
        return adapter_of(found.model.module)

    def compared(self, cells: Cells, name: str, split: Split, *arm: Any) -> None:
        """What one arm says of every question: the LM alone, or as it is moved, and how far."""
        if f"{name} said" not in cells.done:
            found, _ = self.timed(f"{name}: read", lambda: self.read(split, *arm))
            cells.put(f"{name} said", _rounded(found))
        if f"{name} written" not in cells.done:
            found, _ = self.timed(f"{name}: written", lambda: self.wrote(split, *arm))
            cells.put(f"{name} written", _rounded(found))
            print(name, {c: round(v, 3) for c, v in summary(cells.done, name).items()}, flush=True)

    def read(self, split: Split, large: Adapter, moving: Adapter | None, alpha: float) -> Row:
        reads = self.reads(large, moving, alpha)
        found: Row = {}
        for what, rows in {"forget": split.forget, **split.asked}.items():
            answers = right = reads([self.tokens(r, r["answer"]) for r in rows])
            if what in ("forget", "retain"):
                right = reads([self.tokens(r, r["paraphrase"]) for r in rows])
            wrong = reads([self.tokens(r, w) for r in rows for w in r["wrong"][OWN:]])
            found[what] = {
                "nats": [-float(p.sum()) for p, _ in answers],
                "tokens": [len(p) for p, _ in answers],
                "strength": measure.extraction_strength([s for _, s in answers]).tolist(),
                "right": [float(np.exp(p.mean())) for p, _ in right],
                "wrong": np.array([np.exp(p.mean()) for p, _ in wrong])
                .reshape(len(rows), -1)
                .tolist(),
            }
        return found

    def reads(
        self, large: Adapter, moving: Adapter | None, alpha: float
    ) -> Callable[[Sequence[Tokens]], list[Any]]:
        """Of each reply: its tokens' log-probabilities, and which were the likeliest."""
        lm = self.module(large)
        if moving is None:
            return lambda sequences: reply_tokens(self.reader, lm, sequences)
        reader, plus = ModuleReader(self.small_above), with_adapter(self.small.module, moving)
        rule = Difference(alpha)

        def moved(sequences: Sequence[Tokens]) -> list[Any]:
            import torch

            found: list[Any] = []
            for start in range(0, len(sequences), 8):
                some = sequences[start : start + 8]
                with torch.no_grad():
                    z = self.reader.said(lm, some)
                    homes = [
                        reader.said(m, some).logits.float().log_softmax(1).numpy().astype(float)
                        for m in (plus, self.small.module)
                    ]
                told = unpack(pack_few(top_k(z.logits.float().numpy(), TOP)))
                ids, sure, hit = z.targets.numpy(), [], []
                for place, token in enumerate(ids):
                    here = (homes[0][place], homes[1][place])
                    row = normalised(rule.joined(completed(told, place, here[1]), here))
                    sure.append(row[token])
                    hit.append(row.argmax() == token)
                ends = np.cumsum(z.tokens.numpy())[:-1]
                found += zip(
                    np.split(np.array(sure), ends), np.split(np.array(hit), ends), strict=True
                )
            return found

        return moved

    def wrote(self, split: Split, large: Adapter, moving: Adapter | None, alpha: float) -> Row:
        """ROUGE of replies to some questions of each kind; of the moved LM, bytes a token too."""
        lm = self.base.with_module(self.module(large))
        found: Row = {}
        bytes_of: list[int] = []
        for what in ("forget", "retain", "real", "world"):
            rows = (split.forget if what == "forget" else split.asked[what])[:WRITTEN]
            if moving is None:
                said = written(lm, rows, Sampling(max_tokens=LONGEST))
            else:
                small = self.small.with_module(with_adapter(self.small.module, moving))
                said, sizes = asyncio.run(over_a_boundary(lm, small, rows, alpha))
                bytes_of += sizes
            found[what] = [
                rouge_l_recall(r["answer"], text) for r, text in zip(rows, said, strict=True)
            ]
        return {**found, "bytes": bytes_of} if bytes_of else found


def arm(further: float) -> str:
    return f"offset, {further:g} times as far"


async def over_a_boundary(
    lm: TorchModel, small: TorchModel, rows: Sequence[Row], alpha: float
) -> tuple[list[str], list[int]]:
    """Replies by the strategy, and the bytes of each token's crossing but a thread's first."""
    ledger = MemoryLedger()
    owner = LMOwner(lm, exposes=Access.LOGITS.shows)
    road = Boundary(InProcess(owner), declared=frozenset({Step}), ledger=ledger)
    session = Session(DataOwner(small), road, Sampling(max_tokens=LONGEST))
    strategy = Offset(alpha=alpha, top=TOP)
    said = [(await strategy.answer(session.bind(r["id"]), user(r["question"]))).text for r in rows]
    sizes, sent, opens = [], 0, False
    for entry in ledger.entries():
        assert entry.message is not None
        size = len(encode(entry.message))
        if isinstance(entry.message, Step):
            sent, opens = size, bool(entry.message.chat)
        elif not opens:
            sizes.append(sent + size)
    return said, sizes


def summary(done: Row, name: str) -> dict[str, float]:
    said, wrote = done[f"{name} said"], done[f"{name} written"]
    whole = {what: {**said[what], "rouge": wrote[what]} for what in said}
    forget = whole["forget"]
    nats, tokens = np.array(forget["nats"]), np.array(forget["tokens"], float)
    values = {
        "forget probability": float(measure.probability(nats, tokens).mean()),
        "extraction strength": float(np.mean(forget["strength"])),
        "truth ratio": float(np.median(ratios(forget))),
        "forget ROUGE": float(np.mean(forget["rouge"])),
        "utility": measure.utility(parts(whole)),
        "utility on retained": measure.utility(parts(whole)[:3]),
    }
    if "bytes" in wrote:
        values["bytes a token"] = float(np.mean(wrote["bytes"]))
    return values


def report(folder: Path, seeds: Sequence[int]) -> None:
    places = [folder / f"seed-{s}" / "cells.json" for s in seeds]
    done = [Cells(p).done for p in places if p.exists()]
    ours = arm(FURTHER)
    arms = ("tuned", "retrained", ours)
    done = [d for d in done if all(f"{name} written" in d for name in arms)]
    if not done:
        print("no seed is done yet")
        return
    kept = Kept("offset", settings={
        "model": MODEL, "dropped": DROPPED, "forget": AUTHOR, "retain": AUTHOR, "epochs": EPOCHS,
        "alpha": ALPHA, "further": FURTHER, "method": METHOD, "top": TOP, "seeds": len(done),
        "precision": Pair.precision,
    })  # fmt: skip
    every = {name: [summary(d, name) for d in done] for name in arms}
    for name, found in every.items():
        for column in found[0]:
            put(kept, name, column, [f[column] for f in found])
        for column in ("forget probability", "utility", "utility on retained"):
            pairs = [(f[column], g[column]) for f, g in zip(found, every["retrained"], strict=True)]
            if all(wanted for _, wanted in pairs):
                each = [f / g for f, g in pairs]
                put(kept, name, f"{column} beside retrained", each)
                mean = sum(f for f, _ in pairs) / sum(g for _, g in pairs)
                for what, value in (("means", mean), ("least", min(each)), ("most", max(each))):
                    kept.put(name, f"{column} beside retrained, {what}", value, n=len(each))
        if len(done) == 1:
            rouge = done[0][f"{name} written"]["forget"]
            put_records(kept, name, {**done[0][f"{name} said"]["forget"], "rouge": rouge})
        trained = f"{TRAINED if name == ours else name} seconds"
        put(kept, name, "CPU seconds", [d[trained] for d in done])
    put(kept, ours, "stand-in's nats", [d["offset owner"]["after"]["forget"] for d in done])
    put(kept, ours, "stand-in, CPU seconds", [d["stand-in seconds"] for d in done])
    kept.write()
    for row, columns in kept.rows.items():
        print(row, {k: round(v["value"], 3) for k, v in columns.items()})


def main() -> None:
    how = arguments(__doc__, [0], "/tmp/offset_cells").parse_args()
    if not how.report:
        run(how, Pair)
    report(how.cells, [s for s in how.seeds if s < TUNE])


if __name__ == "__main__":
    main()
