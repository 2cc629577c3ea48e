"""Qwen2.5-Coder-1.5B teaches SmolLM2-135M eight confusable intents of CLINC150, across tokenisers.

    sample   Qwen answers 200 training and 160 test questions, once, at temperature 1 (llama.cpp)
    score    Qwen reads 80 of its own answers: the 64 likeliest tokens at each place (torch)
    train    SmolLM2 learns from the answers alone, or from the probabilities as well; per seed
    report   loss on Qwen's held-out answers and accuracy on the gold intents, method against method

`--dev` measures on 100 training questions that nothing learned from, instead of the test questions:
there the weight of "aligned@0.3" was chosen (`--dev --seeds 0`).

Every stage keeps what it has done under runs/distil/across, and stops after --seconds to go on from
there the next time.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from cosilo.boundary.messages import Scored, Scores, decode, encode
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.decoding import score as score_replies
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.training import Schedule, TrainingProgress, train
from cosilo.models.white_box.tuning import prepared
from cosilo.objectives import intervals
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import ModelConfig, make_model, open_session
from cosilo.strategies.downward.distil_across import AlignedLesson, DistilAcross, lessons_from
from cosilo.strategies.downward.scoring import TOGETHER, Opinion, Question, read
from cosilo.types import Chat, Sampling, user

DATA = Path("../shared/data/clinc150")
INTENTS = {
    "balance": "balance",
    "bill_balance": "bill balance",
    "bill_due": "bill due",
    "min_payment": "minimum payment",
    "transactions": "transactions",
    "spending_history": "spending history",
    "transfer": "transfer",
    "pay_bill": "pay bill",
}
SYSTEM = f"What is the request about? Reply with one of: {', '.join(INTENTS.values())}."
EACH = {"train": 25, "test": 20}
DEV = 100  # unused training questions that a weight is chosen on
LEARNED = 10  # training questions of each intent that are learned from
ARMS, SEEDS = ("words", "aligned", "aligned@0.3"), (0, 1, 2)
LARGE, SMALL = "qwen2.5-coder-1.5b-instruct", "smollm2-135m-instruct"


def items(split: str) -> list[dict[str, str]]:
    """The first so many questions of each intent, in the file's order."""
    left = dict.fromkeys(INTENTS, EACH[split])
    found = []
    with (DATA / f"{split}.jsonl").open() as lines:
        for line in lines:
            row = json.loads(line)
            if left.get(row["label"], 0):
                left[row["label"]] -= 1
                found.append({"text": row["text"], "gold": INTENTS[row["label"]]})
    return found


def chat(item: dict[str, Any]) -> Chat:
    return user(item["text"], system=SYSTEM)


class Kept:
    """Lines of JSON that are on the disk as soon as they are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines()]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


async def sample(folder: Path, stop: float) -> bool:
    """Qwen's answers, one draw each."""
    model = make_model(
        ModelConfig(
            kind="llamacpp",
            options={"model": LARGE, "parallel": 1},
        )
    )
    for split in EACH:
        kept = Kept(folder / f"{split}.jsonl")
        for i, item in enumerate(items(split)):
            if i < len(kept.rows):
                continue
            if perf_counter() > stop:
                return False
            wanted = Sampling(max_tokens=12, temperature=1.0, seed=i)
            reply = await model.generate(chat(item), wanted)
            kept.add(item | {"said": reply.text.strip(), "ended": reply.finish_reason == "stop"})
    await model.close()
    return True


async def score(folder: Path, stop: float) -> bool:
    """Qwen's opinion of its training answers, eight to a message, as it crossed."""
    rows = training(folder)
    (folder / "scores").mkdir(exist_ok=True)
    question = Question(64, pieces=True)
    session = None
    for start in range(0, len(rows), TOGETHER):
        path = folder / "scores" / f"{start:03}.msgpack"
        if path.exists():
            continue
        if perf_counter() > stop:
            return False
        if session is None:
            model = make_model(ModelConfig(kind="torch", options={"model": LARGE}))
            session = open_session(
                DataOwner(ScriptedModel(access=Access.WEIGHTS)),
                LMOwner(model, exposes=Access.LOGITS.shows),
                DistilAcross(gold=True),
            )
        items = [Scored(chat(row), row["said"]) for row in rows[start : start + TOGETHER]]
        path.write_bytes(encode(await session.lm.send(question.about(items))))
        print(path.name, session.lm.totals, flush=True)
    return True


def training(folder: Path) -> list[dict[str, Any]]:
    """The answered training questions that are learned from, some of each intent."""
    left = dict.fromkeys(INTENTS.values(), LEARNED)
    kept = []
    for row in Kept(folder / "train.jsonl").rows:
        if row["said"] and left[row["gold"]]:
            left[row["gold"]] -= 1
            kept.append(row)
    return kept


def lessons(folder: Path, model: TorchModel, arm: str) -> list[AlignedLesson]:
    """The training answers as SmolLM2's tokens, with what `arm` is told of Qwen's opinion."""
    arm, _ = method(arm)
    rows = training(folder)
    items = [Scored(chat(row), row["said"]) for row in rows]
    found: list[Opinion | None] = [None] * len(items)
    if arm != "words":
        found = []
        for path in sorted((folder / "scores").glob("*.msgpack")):
            scores = decode(path.read_bytes())
            assert isinstance(scores, Scores)
            found += read(scores, Question(64, pieces=True), len(scores.lengths))
    if arm == "uld":
        found = [
            replace(o, top=replace(o.top, ids=None, logprobs=-np.sort(-o.top.logprobs, axis=1)))
            for o in found
            if o is not None
        ]
    return lessons_from(model, items, found)


def method(arm: str) -> tuple[str, float]:
    """What an arm is told, and how much that counts beside the words: "aligned@0.3"."""
    name, _, weight = arm.partition("@")
    return name, 0.0 if name == "words" else float(weight or 1)


def learnt(folder: Path, arm: str, seed: int, steps: int, stop: float) -> TorchModel | None:
    """SmolLM2 trained by `arm`; None when the time is up, to go on from its checkpoint."""
    model = make_model(ModelConfig(kind="torch", options={"model": SMALL}))
    assert isinstance(model, TorchModel)
    strategy = DistilAcross(weight=method(arm)[1])
    module = prepared(model.module, method="lora", rank=8, seed=seed)
    schedule = Schedule(
        steps=steps, batch=4, learning_rate=1e-3, seed=seed, checkpoint_seconds=20, patience=0
    )

    def report(progress: TrainingProgress) -> None:
        print(arm, seed, progress, flush=True)
        if perf_counter() > stop:
            raise TimeoutError

    try:
        train(
            module,
            lessons(folder, model, arm),
            strategy._loss,
            schedule,
            folder=folder / f"train-{arm}-{seed}",
            run=arm,
            report=report,
        )
    except TimeoutError:
        return None
    return model.with_module(module)


def measured(folder: Path, model: TorchModel, name: str, stop: float, *, dev: bool = False) -> bool:
    """For each held-out question: the intent `model` finds likeliest, and the loss on Qwen's answer."""
    kept = Kept(folder / measurements(name, dev=dev))
    labels = list(INTENTS.values())
    ends = [model.tokens.reply(label)[0] for label in labels]
    for row in held_out(folder, dev=dev)[len(kept.rows) :]:
        if perf_counter() > stop:
            return False
        said = model.tokens.reply(row["said"])[0]
        with torch.inference_mode():
            *each, own = score_replies(model.module, model.tokens.prompt(chat(row)), [*ends, said])
        picked = labels[int(np.argmax(each))]
        kept.add(
            {"right": picked == row["gold"], "like": picked == row["said"], "nats": -own,
             "tokens": len(said), "bytes": len(row["said"].encode())}
        )  # fmt: skip
    return True


def measurements(name: str, *, dev: bool) -> str:
    return f"{'dev' if dev else 'measured'}-{name}.jsonl"


def held_out(folder: Path, *, dev: bool) -> list[dict[str, Any]]:
    if not dev:
        return Kept(folder / "test.jsonl").rows
    learned = {row["text"] for row in training(folder)}
    rows = [r for r in Kept(folder / "train.jsonl").rows if r["said"] and r["text"] not in learned]
    return rows[:DEV]


def report(folder: Path, seeds: Sequence[int], arms: Sequence[str], *, dev: bool) -> None:
    """Means over questions and seeds; intervals over questions, a question's seeds kept together."""
    qwen = [row["said"].casefold() == row["gold"] for row in held_out(folder, dev=dev)]
    print(f"Qwen: {np.mean(qwen):.3f} right, n = {len(qwen)}, eight intents (base rate 0.125)")
    found = {
        arm: {
            key: np.mean(
                [
                    [float(r[key]) for r in Kept(folder / measurements(f"{arm}-{s}", dev=dev)).rows]
                    for s in seeds
                ],
                axis=0,
            )
            for key in ("right", "like", "nats", "tokens")
        }
        for arm in arms
    }
    for arm, values in found.items():
        per_token = values["nats"].sum() / values["tokens"].sum()
        print(
            f"{arm}: {values['right'].mean():.3f} right, {values['like'].mean():.3f} as Qwen said,"
        )
        print(f"  {values['nats'].mean():.3f} nats an answer, {per_token:.3f} a token")
        for key in ("right", "nats"):
            gain = values[key] - found["words"][key]
            low, high = intervals.bootstrap(lambda w, g=gain: w @ g / len(g), len(gain))
            print(f"  {key} − words: {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}], n = {len(gain)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", nargs="?", default="go-on", help="or report")
    parser.add_argument("--folder", type=Path, default=Path("runs/distil/across"))
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--arms", nargs="*", default=ARMS)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--dev", action="store_true", help="on unused training questions")
    options = parser.parse_args()
    folder, stop = options.folder, perf_counter() + options.seconds
    folder.mkdir(parents=True, exist_ok=True)
    if options.stage == "report":
        report(folder, options.seeds, options.arms, dev=options.dev)
        return
    for stage in (sample, score):
        with alone(folder / f"{stage.__name__}.lock") as mine:
            if mine:
                asyncio.run(stage(folder, stop))
    done = [
        trained_and_measured(folder, arm, seed, options.steps, stop, dev=options.dev)
        for seed in options.seeds
        for arm in options.arms
    ]
    print("done" if all(done) else f"{sum(done)} of {len(done)} done: run it again")


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether no other process is at it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def trained_and_measured(
    folder: Path, arm: str, seed: int, steps: int, stop: float, *, dev: bool
) -> bool:
    """Whether all of it is done; what another process works on, or cannot be done yet, is left."""
    name = f"{arm}-{seed}"
    scored = len(list((folder / "scores").glob("*.msgpack"))) * TOGETHER
    if perf_counter() > stop or (arm != "words" and scored < len(training(folder))):
        return False
    everything = len(held_out(folder, dev=dev))
    with alone(folder / f"{name}.lock") as mine:
        if not mine:
            return False
        if len(Kept(folder / measurements(name, dev=dev)).rows) == everything:
            return True
        model = learnt(folder, arm, seed, steps, stop)
        if model is None or not measured(folder, model, name, stop, dev=dev):
            return False
        return len(Kept(folder / measurements(name, dev=dev)).rows) == everything


if __name__ == "__main__":
    main()
