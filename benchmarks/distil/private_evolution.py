"""Private evolution on real texts: what the small model learns at ε = 4 and ε = ∞, and what it tells.

    python benchmarks/distil/private_evolution.py write [--seconds 330]   # the LM, until done
    python benchmarks/distil/private_evolution.py measure                 # no LM: utility, attacks, ε

600 private requests to a voice assistant (`clinc150`, 100 of each of six domains), six labels, MiniLM
with a linear head as the small model, Qwen2.5-Coder-1.5B as the LM. Four runs of three rounds: ε = 4
with three draws of the noise, and ε = ∞. The LM's texts are shared between runs by the replay store, so
what differs between draws is the noise (and what the LM then writes). The noise of each run is of a
generator whose seed was taken from the operating system once and is kept in the run's folder: a run
that is resumed must not draw again, and this folder is nobody's secret.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import secrets
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

import cosilo.session  # noqa: F401 — registers strategies and models
from cosilo.boundary.accountant import Noise
from cosilo.boundary.ledger import MemoryLedger
from cosilo.errors import ModelError
from cosilo.models.base import TextModel, models
from cosilo.models.classifier import ClassifierModel
from cosilo.models.encoder import Encoder
from cosilo.models.replay import ReplayModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.downward import private_evolution as evolution
from cosilo.types import Chat, Demonstration, Generation, Sampling, user

LABELS = ("auto_and_commute", "banking", "credit_cards", "home", "travel", "utility")
INSTRUCTIONS = (
    "Classify what a user says to a voice assistant. Reply with exactly one of the labels and nothing "
    "else.\n\nLabels:\n" + "\n".join(f"- {label}" for label in LABELS)
)
PER_LABEL = 100  # private records of each label; as many again are never shown to anybody
LM_ITEMS = 150
OPTIONS = {"about": "what a user says to a voice assistant", "each": 16, "rounds": 3, "lines": 8}
RUNS = {"eps4-0": 4.0, "inf": math.inf, "eps4-1": 4.0, "eps4-2": 4.0}
FOLDER = Path("runs/private_evolution")
DATA = Path("../shared/data/clinc150")


class StopError(ModelError):
    """The time of this turn is over."""


class Timed:
    """`inner`, until the deadline."""

    def __init__(self, inner: TextModel, deadline: float) -> None:
        self.inner, self.deadline = inner, deadline
        self.name, self.access = inner.name, inner.access

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        if time.monotonic() > self.deadline:
            raise StopError("the time of this turn is over")
        return await self.inner.generate(chat, sampling)

    async def close(self) -> None:
        await self.inner.close()


def rows(split: str, data: Path) -> dict[str, list[Demonstration]]:
    """label → its items, in an order that their texts' hashes give."""
    found: dict[str, list[Demonstration]] = {label: [] for label in LABELS}
    lines = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
    for row in sorted(lines, key=lambda row: sha256(row["text"].encode()).digest()):
        if row["domain"] in found:
            chat = user(row["text"], system=INSTRUCTIONS)
            mine = found[row["domain"]]
            mine.append(Demonstration(f"{split}-{row['domain']}-{len(mine)}", chat, row["domain"]))
    return found


def split(data: Path) -> tuple[list[Demonstration], list[Demonstration], list[Demonstration]]:
    """Private records, as many of the same kind that nobody saw, and the test items."""
    train, test = rows("train", data), rows("test", data)
    private = [e for label in LABELS for e in train[label][:PER_LABEL]]
    others = [e for label in LABELS for e in train[label][PER_LABEL : 2 * PER_LABEL]]
    return private, others, [e for label in LABELS for e in test[label]]


def noise_of(folder: Path, name: str) -> Noise:
    """The noise of run `name`, the same each time it is resumed."""
    kept = folder / f"{name}.noise"
    if not kept.exists():
        kept.write_text(secrets.token_hex(16))
    rng = np.random.default_rng(int(kept.read_text(), 16))
    return lambda size, sigma: rng.normal(0.0, sigma, size)


def opened(
    name: str, lm: TextModel, private: list[Demonstration], ledger: MemoryLedger | None = None
) -> tuple[object, Session]:
    """The strategy of run `name` and its session."""
    encoder = ClassifierModel(Encoder())
    options = {**OPTIONS, "epsilon": RUNS.get(name, 4.0)}
    if name == "zero":
        options["rounds"] = 0
    strategy = strategies.create("private_evolution", **options)
    owner = DataOwner(encoder, private=tuple(private), embedder=encoder)
    sampling = Sampling(max_tokens=24, choices=LABELS)
    return strategy, open_session(owner, LMOwner(lm), strategy, sampling=sampling, ledger=ledger)


async def grown(
    name: str,
    lm: TextModel,
    private: list[Demonstration],
    folder: Path,
    ledger: MemoryLedger | None = None,
) -> Session:
    """Run `name`, prepared."""
    strategy, session = opened(name, lm, private, ledger)
    plain = evolution.ranked
    try:
        evolution.ranked = partial(plain, noise=noise_of(folder, name))  # type: ignore[assignment]
        _, session = await strategy.prepare(session)  # type: ignore[attr-defined]
    finally:
        evolution.ranked = plain
    return session


def lm_sample(test: list[Demonstration]) -> list[Demonstration]:
    """The test items that the LM alone is asked about: the first of each label, in turn."""
    by = {label: [e for e in test if e.target == label] for label in LABELS}
    return [by[LABELS[i % len(LABELS)]][i // len(LABELS)] for i in range(LM_ITEMS)]


async def write(arguments: argparse.Namespace) -> int:
    private, _, test = split(arguments.data)
    deadline = time.monotonic() + arguments.seconds
    engine = models.create("llamacpp", model=arguments.model, threads=1, parallel=4, n_ctx=1024)
    lm = ReplayModel(Timed(engine, deadline), arguments.folder / "replay.sqlite")
    started = time.process_time()
    try:
        for name in ("zero", *RUNS):
            await grown(name, lm, private, arguments.folder)
            print(f"{name}: written ({lm.misses} new calls, {lm.hits} known)", flush=True)
        for item in lm_sample(test):
            await lm.generate(item.chat, Sampling(max_tokens=24, choices=LABELS))
        print("done")
        return 0
    except StopError:
        print(f"stopped: {lm.misses} new calls; run it again", flush=True)
        return 3
    finally:
        with (arguments.folder / "lm_cpu_seconds.txt").open("a") as file:
            file.write(f"{time.process_time() - started:.1f} {lm.misses}\n")
        await lm.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["write", "measure"])
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(write(arguments))


if __name__ == "__main__":
    sys.exit(main())
