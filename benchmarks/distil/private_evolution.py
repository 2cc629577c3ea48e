"""Private evolution on real texts: what the small model learns at ε = 4 and at ε = ∞, and what is told.

    python benchmarks/distil/private_evolution.py write [--model …] [--seconds 330]  # until "done"
    python benchmarks/distil/private_evolution.py measure [--model …]  # no LM: utility, attacks, ε

600 private requests to a voice assistant (`clinc150`, 100 of each of six domains), six labels, MiniLM
with a linear head as the small model; the LM is SmolLM2-135M or Qwen2.5-Coder-1.5B, in llama.cpp or in
torch. Four runs: ε = 4 with three draws of the noise, and ε = ∞; `zero` is what the LM writes unguided.
Runs share the LM's texts through the replay store, so what differs between draws is the noise, and what
the LM then writes. Each run has a key of its own for its noise, so that a run that is resumed says the
same again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

import cosilo.session  # noqa: F401 — registers strategies and models
from cosilo.attacks.base import Attack, Target, View
from cosilo.attacks.membership import NearestText, Votes
from cosilo.attacks.published import Calibrated, Confidence, Loss
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import ModelError, OfflineError
from cosilo.models.base import Access, Array, TextModel, models
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.kept.replay import ReplayStore
from cosilo.objectives import intervals
from cosilo.objectives.base import Floats
from cosilo.objectives.membership import auc, tpr
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.downward import private_evolution as evolution
from cosilo.types import Chat, Demonstration, Generation, Sampling, last_user, user

LABELS = ("auto_and_commute", "banking", "credit_cards", "home", "travel", "utility")
INSTRUCTIONS = (
    "Classify what a user says to a voice assistant. Reply with exactly one of the labels and nothing "
    "else.\n\nLabels:\n" + "\n".join(f"- {label}" for label in LABELS)
)
SAMPLING = Sampling(max_tokens=24, choices=LABELS)
PER_LABEL = 100  # private records of each label; as many again are never shown to anybody
LM_ITEMS = 150
EACH_TEST = 200  # test items of each label
OPTIONS: dict[str, object] = {
    "about": "what a user says to a voice assistant",
    "lines": 4,
    "max_tokens": 80,
}
MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct")
BACKENDS: dict[str, dict[str, int]] = {
    "llamacpp": {"threads": 1, "parallel": 4, "n_ctx": 1024},
    "torch": {"parallel": 256},  # takes a GPU where there is one
}
RUNS = {"eps4-0": 4.0, "inf": math.inf, "eps4-1": 4.0, "eps4-2": 4.0}
FOLDER = Path("runs/private_evolution")
DATA = Path("../shared/data/clinc150")


class StopError(ModelError):
    """The time of this turn is over."""


class InTime(LMOwner):
    """Starts no call after `until`."""

    until = math.inf

    async def handle(self, message: Message) -> Message:
        if time.monotonic() > self.until:
            raise StopError("the time of this turn is over")
        return await super().handle(message)


def recorded(model: TextModel, folder: Path, *, offline: bool = False) -> Recorded:
    """`model` over what is recorded in `folder`."""
    party = InTime(model, exposes=Access.WEIGHTS.shows)
    return Recorded(party, ReplayStore(folder / "replay.sqlite"), of=model, offline=offline)


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
    return private, others, [e for label in LABELS for e in test[label][:EACH_TEST]]


def opened(
    name: str,
    lm: Recorded,
    private: list[Demonstration],
    folder: Path,
    ledger: MemoryLedger | None = None,
) -> tuple[Strategy, Session]:
    """The strategy of run `name` and its session."""
    encoder = ClassifierModel(Encoder(), features="embedding")
    key = folder.absolute() / f"{name}.key"
    sizes = json.loads((folder / "sizes.json").read_text())
    options = {**OPTIONS, **sizes, "epsilon": RUNS.get(name, 4.0), "key_file": key}
    if name == "zero":
        options["rounds"] = 0
    strategy = strategies.create("private_evolution", **options)
    owner = DataOwner(encoder, private=tuple(private), embedder=encoder)
    return strategy, open_session(owner, Exposed(lm), strategy, sampling=SAMPLING, ledger=ledger)


async def grown(
    name: str,
    lm: Recorded,
    private: list[Demonstration],
    folder: Path,
    ledger: MemoryLedger | None = None,
) -> Session:
    """Run `name`, prepared."""
    strategy, session = opened(name, lm, private, folder, ledger)
    _, session = await strategy.prepare(session)
    return session


def lm_sample(test: list[Demonstration]) -> list[Demonstration]:
    """The test items that the LM alone is asked about: the first of each label, in turn."""
    by = {label: [e for e in test if e.target == label] for label in LABELS}
    return [by[LABELS[i % len(LABELS)]][i // len(LABELS)] for i in range(LM_ITEMS)]


async def write(arguments: argparse.Namespace) -> int:
    private, _, test = split(arguments.data)
    engine = models.create(arguments.backend, model=arguments.model, **BACKENDS[arguments.backend])
    InTime.until = time.monotonic() + arguments.seconds
    lm = recorded(engine, arguments.folder)
    started = time.process_time()
    try:
        for name in ("zero", *RUNS):
            await grown(name, lm, private, arguments.folder)
            print(f"{name}: written ({lm.misses} new calls, {lm.hits} known)", flush=True)
        for item in lm_sample(test):
            await lm.handle(Ask(chat=item.chat, sampling=SAMPLING))
        print("done")
        return 0
    except StopError:
        print(f"stopped: {lm.misses} new calls; run it again", flush=True)
        return 3
    finally:
        with (arguments.folder / "lm_cpu_seconds.txt").open("a") as file:
            file.write(f"{time.process_time() - started:.1f} {lm.misses}\n")
        await lm.close()
        await engine.close()
        lm.store.close()


# ── measuring: no LM from here on ────────────────────────────────────────────


class Remembered:
    """Trains heads on the public encoder, each set of examples once."""

    def __init__(self, encoder: ClassifierModel) -> None:
        self._encoder = encoder
        self._known: dict[tuple[str, ...], ClassifierModel] = {}

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> ClassifierModel:
        key = tuple(f"{e.id} {e.target}" for e in examples)
        if key not in self._known:
            self._known[key] = self._encoder.fit(examples, seed=seed)
        return self._known[key]


class Nobody:
    """Stands for the LM where every answer is on record."""

    name = "nobody"
    access = Access.TEXT

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        raise AssertionError("an answer is missing from the replay store")

    async def close(self) -> None: ...


@dataclass
class Grown:
    """What came of one run: the small model, what it was trained on, its card, its record, and the
    candidates' vectors of each round and label."""

    model: ClassifierModel
    facts: dict[str, object]
    ledger: MemoryLedger
    candidates: list[dict[str, Array]]


async def regrown(name: str, identity: str, private: list[Demonstration], folder: Path) -> Grown:
    """Run `name` again from the replay store."""
    nobody = Nobody()
    nobody.identity = identity  # type: ignore[attr-defined]
    lm = recorded(nobody, folder, offline=True)
    ledger = MemoryLedger()
    seen: list[Array] = []
    plain = evolution.vote

    def watched(voters: Array, candidates: Array) -> np.ndarray:
        seen.append(candidates)
        return plain(voters, candidates)

    evolution.vote = watched  # type: ignore[assignment]
    try:
        session = await grown(name, lm, private, folder, ledger)
    finally:
        evolution.vote = plain
        lm.store.close()
    by_round = [
        dict(zip(LABELS, seen[i : i + len(LABELS)], strict=True))
        for i in range(0, len(seen), len(LABELS))
    ]
    model = session.owner.model
    assert isinstance(model, ClassifierModel)
    return Grown(model, dict(session.cards[-1].facts), ledger, by_round)


def right(model: ClassifierModel, items: list[Demonstration]) -> Floats:
    """Per item, 1 where the most probable label is its own."""
    rows = model.probabilities([last_user(e.chat) for e in items])
    said = [model.labels[i] for i in rows.argmax(axis=1)]
    return np.array([float(a == e.target) for a, e in zip(said, items, strict=True)])


def share(values: Floats) -> str:
    low, high = intervals.wilson(float(values.sum()), len(values))
    return f"{100 * values.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def gap(first: Floats, second: Floats) -> str:
    low, high = intervals.difference(first, second, (-1.0, 1.0))
    return f"{100 * (first - second).mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def target(example: Demonstration) -> Target:
    return Target(example.id, "", "member", chat=example.chat, label=example.target)


async def attack(
    attack_: Attack, view: View, inside: list[Demonstration], outside: list[Demonstration]
) -> str:
    guesses = await attack_.guess(view, [target(e) for e in (*inside, *outside)])
    scores = {g.target: g.score for g in guesses}
    a = np.array([scores[e.id] for e in inside])
    b = np.array([scores[e.id] for e in outside])
    value, low, high = auc(a, b)
    rate, *ends = tpr(a, b)
    return (
        f"AUC {value:.3f} [{low:.3f}, {high:.3f}], TPR at 1 % FPR {100 * rate:.1f} % "
        f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
    )


async def measure(arguments: argparse.Namespace) -> int:
    private, others, test = split(arguments.data)
    third = [e for label in LABELS for e in rows("train", arguments.data)[label][200:300]]
    identity = recorded_identity(arguments.folder / "replay.sqlite")
    encoder = ClassifierModel(Encoder(), features="embedding")
    learner = Remembered(encoder)
    print(f"{len(private)} private records, {len(others)} strangers, {len(test)} test items\n")

    runs = {}
    for name in ("zero", *RUNS):
        try:
            runs[name] = await regrown(name, identity, private, arguments.folder)
        except OfflineError:
            print(f"{name}: not written yet")
    scored = {"gold": right(learner.fit(private), test)}
    scored |= {name: right(run.model, test) for name, run in runs.items()}
    print("utility")
    for name, values in scored.items():
        facts = runs[name].facts if name in runs else {}
        about = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
            for k, v in facts.items()
            if k in ("ε, all rounds", "δ", "σ", "texts trained on")
        )
        print(f"  {name:7} {share(values)}; against zero {gap(values, scored['zero'])}; {about}")
    four = np.mean([scored[n] for n in runs if n.startswith("eps4")], axis=0)
    print(
        f"  mean of the ε = 4 runs {100 * four.mean():.1f} %; against zero {gap(four, scored['zero'])}"
    )
    nobody = Nobody()
    nobody.identity = identity  # type: ignore[attr-defined]
    lm = recorded(nobody, arguments.folder, offline=True)
    asks = {e: Ask(chat=e.chat, sampling=SAMPLING) for e in lm_sample(test)}
    asked = {e: ask for e, ask in asks.items() if lm.holds(ask)}
    if asked:
        replies = [await lm.handle(ask) for ask in asked.values()]
        said = [r.generation.text for r in replies if isinstance(r, Completion)]
        alone = np.array([float(s == e.target) for s, e in zip(said, asked, strict=True)])
        print(f"  LM alone, {len(asked)} items {share(alone)}")
    lm.store.close()

    print("\nmembership, by what preparing sent")
    for name, run in runs.items():
        view = View(run.ledger.entries, embedder=encoder)
        for attack_ in (NearestText(), Votes()):
            said = await attack(attack_, view, private, others)
            print(f"  {name:7} {type(attack_).__name__:12} {said}", flush=True)

    print("\nmembership, by the trained model")
    models_ = {"gold": learner.fit(private), "untrained on any of them": learner.fit(third)}
    models_ |= {name: runs[name].model for name in ("zero", "eps4-0", "inf") if name in runs}
    for name, model in models_.items():
        view = View(lambda: iter(()), embedder=encoder, published=model)
        for attack_ in (Loss(), Confidence(), Calibrated(8, learner)):
            said = await attack(attack_, view, private, others)
            print(f"  {name:24} {type(attack_).__name__:12} {said}", flush=True)

    keep_candidates(runs, arguments.folder)
    return 0


def recorded_identity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as store:
        (found,) = store.execute("SELECT DISTINCT model FROM answers").fetchall()
    return str(found[0])


def keep_candidates(runs: dict[str, Grown], folder: Path) -> None:
    """The candidates' vectors of every vote, for `vote_attack.py`."""
    arrays = {
        f"{name}/{number}/{label}": vectors
        for name, run in runs.items()
        for number, round_ in enumerate(run.candidates)
        for label, vectors in round_.items()
    }
    np.savez_compressed(folder / "candidates.npz", **arrays)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["write", "measure"])
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--each", type=int, default=12, help="candidates of each label")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--backend", choices=list(BACKENDS), default="llamacpp")
    arguments = parser.parse_args()
    arguments.folder /= arguments.model
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.what == "write":
        sizes = {"each": arguments.each, "rounds": arguments.rounds}
        (arguments.folder / "sizes.json").write_text(json.dumps(sizes))
    work = write if arguments.what == "write" else measure
    return asyncio.run(work(arguments))


if __name__ == "__main__":
    sys.exit(main())
