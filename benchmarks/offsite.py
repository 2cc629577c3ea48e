"""SmolLM2 tuned through an emulator of itself: what its owner gets, what tuning at the LM itself would.

    python benchmarks/offsite.py                     three depths, three seeds; resumes
    python benchmarks/offsite.py --seconds 900       stops between two pieces once that time is over
    python benchmarks/offsite.py --report            the table of what is there

The LM's owner makes emulators at three depths from complaints that the CFPB publishes
(../shared/data/cfpb_raw, train). The data owner has two private tasks:

    notes    what a doctor notes of a short dialogue (../shared/data/mts_dialog): nats per token
    topics   which of eight topics a customer's question is about (../shared/data/banking77), asked
             without naming the topics, so that an untuned model guesses: nats, and accuracy

Train teaches, tune was looked at for the learning rates (one tried for each task), test is read at the
end, once for each model.

    as it was     the LM, never tuned            emulator     as sent, at the depth in the middle
    tuned         the emulator, its ends tuned   plugged in   what was tuned there, in the LM
    direct        the same layers, tuned in the LM itself, for as many steps
    two rounds    tuned, aligned to what was tuned, and tuned for as many steps again

What somebody gets who wants the LM and not the task is measured on complaints that nobody learned from
(cfpb_raw, test): the loss, and how often the likeliest next token is the LM's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from cosilo.boundary.wire.tensors import pack, unpack
from cosilo.boundary.wire.weights import pack_weights, unpack_weights
from cosilo.models.base import Tokens
from cosilo.models.white_box import checkpoint
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    merged_with,
    trained_adapter,
)
from cosilo.models.white_box.batch import pad, predict, reply_loss, together
from cosilo.models.white_box.decoding import score
from cosilo.models.white_box.depth import plain, without
from cosilo.models.white_box.emulator import (
    Emulator,
    EmulatorRecipe,
    aligned,
    as_sent,
    emulator_of,
    ends_of,
    renumbered,
    tensors_of,
    with_tensors,
)
from cosilo.models.white_box.healing import freeze_ends
from cosilo.models.white_box.lm import torch_lm
from cosilo.models.white_box.training import Schedule, train
from cosilo.models.white_box.tuning import mean_loss
from cosilo.types import Turn
from kept import Kept, json_lines

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TOPICS = (
    "card_arrival", "lost_or_stolen_card", "exchange_rate", "top_up_failed",
    "transfer_timing", "cash_withdrawal_charge", "verify_my_identity", "request_refund",
)  # fmt: skip
TOPIC = "Name the topic of the customer's question."
NOTE = "Write the doctor's note of this dialogue."
TASKS = ("notes", "topics")
TRAIN, TUNE, TEST = 30, 6, 15  # questions of each topic
Items = Mapping[str, Sequence[tuple[tuple[Turn, ...], str]]]
"""Split → chats and the replies wanted."""

DEPTHS = (8, 13, 20)  # of the 26 layers between the first two and the last two
MAIN = 13
SEEDS = (0, 1, 2)
RANK, STEPS = 8, 40
BATCH = {"notes": 4, "topics": 8}
RATE = {"notes": 1e-3, "topics": 2e-3}
LONGEST = 160  # tokens of a dialogue and its note
NOTES = {"train": 240, "tune": 40}
RECIPE = EmulatorRecipe(ends=2, steps=30, batch=2, length=64, learning_rate=1e-4, seed=7)
CODEC, ENDS_CODEC = "int8", "fp16"  # of the middle, and of the rest
STOLEN_ON, STOLEN_STEPS, STOLEN_RATE = 24, 25, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/offsite"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--task", choices=TASKS, help="this one alone, without surrogates")
    parser.add_argument("--tune", action="store_true", help="only what the rate does on tune")
    parser.add_argument("--surrogates", action="store_true", help="these alone")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        bench = Bench(arguments.folder, perf_counter() + arguments.seconds)
        try:
            tasks = (arguments.task,) if arguments.task else TASKS
            if arguments.surrogates:
                bench.surrogates()
            elif arguments.tune:
                bench.on_tune(tasks[0])
            else:
                bench.run(tasks, SEEDS[: arguments.seeds])
        except TimeoutError:
            print("time is over; call it again to go on")
    if not arguments.tune:
        report(arguments.folder)


class Bench:
    """The pieces of the measurement, each kept in a file of its own once it is done."""

    def __init__(self, folder: Path, end: float) -> None:
        self.folder, self.end = folder, end
        folder.mkdir(parents=True, exist_ok=True)
        self.lm = torch_lm("smollm2-135m-instruct", precision="float32")
        self.module = self.lm.module.requires_grad_(False)
        self.text = sample(
            plain(self.lm.tokens, complaints("train"), length=RECIPE.length),
            RECIPE.seed,
        )[:400]
        self.items = {"notes": self.notes(), "topics": questions()}
        self.recipes = {depth: replace(RECIPE, depth=depth) for depth in DEPTHS}

    def run(self, tasks: Sequence[str], seeds: Sequence[int]) -> None:
        for task in tasks:
            self.piece(f"{task} as it was", lambda t=task: self.graded(t, self.module))
            self.piece(
                f"{task} emulator",
                lambda t=task: self.graded(t, self.emulator(MAIN).module),
            )
            for seed in seeds:
                self.offsite(task, seed)
            for seed in seeds:
                self.direct(task, seed)
        if len(tasks) > 1:
            self.surrogates()
        for seed in seeds:
            self.two_rounds(tasks[0], seed)

    def offsite(self, task: str, seed: int) -> None:
        emulator = self.emulator(MAIN)
        adapter = self.tuned(task, emulator, seed)
        there = self.at_the_lm(emulator, adapter)
        for arm, module in (
            ("plugged in", merged_with(self.module, there)),
            ("tuned", merged_with(emulator.module, adapter)),
        ):
            self.piece(f"{task} {arm} {seed}", lambda m=module: self.graded(task, m))

    def direct(self, task: str, seed: int) -> None:
        found = self.adapter(f"{task} direct {seed}", lambda: self.trained(task, self.module, seed))
        direct = merged_with(self.module, found)
        self.piece(f"{task} direct {seed}", lambda: self.graded(task, direct))

    def two_rounds(self, task: str, seed: int) -> None:
        """The emulator aligned to what was tuned, and tuned again; beside one round of all steps."""
        recipe, emulator = self.recipes[MAIN], self.emulator(MAIN)
        first = self.tuned(task, emulator, seed)

        def again() -> Adapter:
            there = self.at_the_lm(emulator, first)
            new = aligned(
                emulator,
                self.module,
                there,
                recipe,
                self.text,
                coded=coded,
                coded_ends=coded_ends,
            )
            about = {"gap": new.gap, "bytes": sent_bytes(new, only_middle=True)}
            self.note(f"aligned {seed}", about)
            return self.trained(task, new.module, seed + 100, first)

        def longer() -> Adapter:
            return self.trained(task, emulator.module, seed + 100, first)

        for arm, work in (("two rounds", again), ("as many steps", longer)):
            found = self.adapter(f"{task} {arm} {seed}", work)
            plugged = merged_with(self.module, self.at_the_lm(emulator, found))
            self.piece(f"{task} {arm} {seed}", lambda m=plugged: self.graded(task, m))

    def surrogates(self) -> None:
        """What the emulators are worth to somebody who wants the LM."""
        held_out = sample(plain(self.lm.tokens, complaints("test"), length=RECIPE.length), 9)[
            :STOLEN_ON
        ]
        own = sample(plain(self.lm.tokens, complaints("train"), length=RECIPE.length), 10)
        wanted = likeliest(self.module, held_out)

        def alone(module: Any) -> dict[str, Any]:
            losses = [mean_loss(module, [s]) for s in held_out]
            same = [
                float((a == b).mean())
                for a, b in zip(likeliest(module, held_out), wanted, strict=True)
            ]
            return {"nats": losses, "agreement": same}

        self.piece("text: LM", lambda: alone(self.module))
        constant = np.bincount(np.concatenate(wanted)).argmax()
        same = [float((w == constant).mean()) for w in wanted]
        self.piece("text: one token", lambda: {"agreement": same})
        for depth in DEPTHS:
            self.piece(f"text: {depth}", lambda d=depth: alone(self.emulator(d).module))
            self.piece(f"text: {depth}, healed", lambda d=depth: alone(self.stolen(d, own)))

    def stolen(self, depth: int, text: Sequence[Tokens]) -> Any:
        """The emulator after so many steps on text of the thief's own."""
        module = self.emulator(depth).module.requires_grad_(True)
        freeze_ends(module)
        schedule = Schedule(steps=STOLEN_STEPS, batch=1, learning_rate=STOLEN_RATE, patience=0)
        train(module, text[:STOLEN_STEPS], reply_loss, schedule)
        return module.requires_grad_(False).eval()

    def on_tune(self, task: str) -> None:
        """What the learning rate does on the tune split, seed 0."""
        emulator = self.emulator(MAIN)
        adapter = self.tuned(task, emulator, 0)
        for what, module in (
            ("as it was", self.module),
            ("emulator", emulator.module),
            ("tuned", merged_with(emulator.module, adapter)),
            ("plugged in", merged_with(self.module, self.at_the_lm(emulator, adapter))),
        ):
            found = self.graded(task, module, "tune")
            shown = {k: round(float(np.mean(v)), 3) for k, v in found.items()}
            print(f"{task} on tune, {what}: {shown}", flush=True)

    # ── what a piece is made of ──────────────────────────────────────────────

    def emulator(self, depth: int) -> Emulator:
        place = self.folder / f"emulator-{depth}"
        weights, about = place.with_suffix(".safetensors"), place.with_suffix(".json")
        recipe = self.recipes[depth]
        if not about.exists():
            self.due()
            cpu = process_time()
            made = emulator_of(self.module, recipe, self.text, coded=coded, coded_ends=coded_ends)
            checkpoint.write(weights, dict(made.clean.named_parameters()))
            facts = {
                "kept": made.kept,
                "whole": made.whole,
                "alone": made.alone,
                "cpu_seconds": process_time() - cpu,
                "bytes": sent_bytes(made),
            }
            about.write_text(json.dumps(facts))
            print(f"emulator of {depth} layers: gap {made.gap:.3f}", flush=True)
        found = json.loads(about.read_text())
        kept = tuple(found["kept"])
        clean = without(self.module, [i for i in range(30) if i not in kept])
        tensors, _ = checkpoint.read(weights)
        with_tensors(clean, {n: t.numpy() for n, t in tensors.items()})
        made = Emulator(clean, clean, kept, recipe.ends, found["whole"], found["alone"])
        return as_sent(made, recipe, (), coded, coded_ends)

    def tuned(self, task: str, emulator: Emulator, seed: int) -> Adapter:
        return self.adapter(
            f"{task} tuned {seed}", lambda: self.trained(task, emulator.module, seed)
        )

    def trained(self, task: str, module: Any, seed: int, begun: Adapter | None = None) -> Adapter:
        made, _ = trained_adapter(
            module,
            begun or first_adapter(ends_of(module, RECIPE.ends), RANK, seed=seed),
            [self.lm.tokenize(chat, reply) for chat, reply in self.items[task]["train"]],
            steps=STEPS,
            batch=BATCH[task],
            learning_rate=RATE[task],
            warmup=0.1,
            seed=seed,
        )
        return made

    def adapter(self, name: str, work: Callable[[], Adapter]) -> Adapter:
        place = self.folder / f"adapter {name}.bin"
        if not place.exists():
            self.due()
            found = work()
            place.write_bytes(pack(found.tensors, "fp16"))
        # As it arrives.
        return Adapter(RANK, 2.0 * RANK, unpack(place.read_bytes()))

    def at_the_lm(self, emulator: Emulator, adapter: Adapter) -> Adapter:
        return renumbered(adapter, dict(enumerate(emulator.kept)))

    def graded(self, task: str, module: Any, split: str = "test") -> dict[str, Any]:
        """Nats per token of each item's reply; of topics also whether it is the likeliest."""
        if task == "notes":
            sequences = [self.lm.tokenize(chat, reply) for chat, reply in self.items[task][split]]
            return {"nats": [mean_loss(module, [s]) for s in sequences]}
        replies = {worded(t): self.lm.tokens.reply(worded(t))[0] for t in TOPICS}
        nats, right = [], []
        for chat, topic in self.items[task][split]:
            found = score(module, self.lm.tokens.prompt(chat), list(replies.values()))
            said = dict(zip(replies, found, strict=True))
            nats.append(-float(said[topic]) / len(replies[topic]))
            right.append(float(max(said, key=said.__getitem__) == topic))
        return {"nats": nats, "right": right}

    def notes(self) -> Items:
        """Short dialogues and their notes, in a seeded order; test from the set's own test files."""

        def short(*files: str) -> list[tuple[tuple[Turn, ...], str]]:
            found = []
            for file in files:
                for row in json_lines(DATA / "mts_dialog" / f"{file}.jsonl"):
                    chat = (Turn("system", NOTE), Turn("user", row["dialogue"]))
                    tokens = self.lm.tokenize(chat, row["summary"])
                    if len(tokens) <= LONGEST and len(tokens) - tokens.start >= 12:
                        found.append((chat, row["summary"]))
            return [found[i] for i in np.random.default_rng(0).permutation(len(found))]

        known, train = short("train"), NOTES["train"]
        return {
            "train": known[:train],
            "tune": known[train : train + NOTES["tune"]],
            "test": short("test", "test2"),
        }

    def piece(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        place = self.folder / f"{name}.json"
        if place.exists():
            return
        self.due()
        cpu = process_time()
        found = work()
        self.note(name, {**found, "cpu_seconds": process_time() - cpu})
        shown = {k: round(float(np.mean(v)), 3) for k, v in found.items()}
        print(f"{name}: {shown}", flush=True)

    def note(self, name: str, found: Mapping[str, Any]) -> None:
        place = self.folder / f"{name}.json"
        beside = place.with_suffix(".new")
        beside.write_text(json.dumps(found))
        beside.replace(place)

    def due(self) -> None:
        if perf_counter() > self.end:
            raise TimeoutError


def coded(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """What arrives of an emulator's middle."""
    return unpack_weights(pack_weights(tensors, CODEC))


def coded_ends(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    return unpack_weights(pack_weights(tensors, ENDS_CODEC))


def sent_bytes(made: Emulator, *, only_middle: bool = False) -> int:
    tensors = tensors_of(made.module)
    inner = {n: tensors[n] for n in made.middle}
    outer = {n: t for n, t in tensors.items() if n not in inner}
    size = len(pack_weights(inner, CODEC))
    return size if only_middle else size + len(pack_weights(outer, ENDS_CODEC))


def likeliest(module: Any, sequences: Sequence[Tokens]) -> list[Any]:
    """The token that a module holds for the likeliest at each place of each sequence."""
    import torch

    found: dict[int, Any] = {}
    with torch.no_grad():
        for group in together(sequences, 1024):
            batch = pad([sequences[i] for i in group])
            rows = predict(module, batch).argmax(-1)
            for i, row, counted in zip(group, rows, batch.counted, strict=True):
                found[i] = row[counted].numpy()
    return [found[i] for i in range(len(sequences))]


def questions() -> Items:
    """Of each topic so many questions, in a seeded order; test from the set's own test file."""
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[tuple[Turn, ...], str]]] = {
        "train": [],
        "tune": [],
        "test": [],
    }
    for file, parts in (
        ("train", (("train", TRAIN), ("tune", TUNE))),
        ("test", (("test", TEST),)),
    ):
        every = json_lines(DATA / "banking77" / f"{file}.jsonl")
        for topic in TOPICS:
            own = [row["text"] for row in every if row["label"] == topic]
            mixed = [own[i] for i in rng.permutation(len(own))]
            for split, count in parts:
                found[split] += [
                    ((Turn("system", TOPIC), Turn("user", text)), worded(topic))
                    for text in mixed[:count]
                ]
                mixed = mixed[count:]
    return found


def worded(topic: str) -> str:
    return topic.replace("_", " ")


def complaints(split: str) -> list[str]:
    return [str(row["text"]) for row in json_lines(DATA / "cfpb_raw" / f"{split}.jsonl")[:400]]


def sample(sequences: Sequence[Tokens], seed: int) -> list[Tokens]:
    order = np.random.default_rng(seed).permutation(len(sequences))
    return [sequences[i] for i in order]


# ── the table ────────────────────────────────────────────────────────────────

ARMS = ("tuned", "plugged in", "direct", "as many steps", "two rounds")


def report(folder: Path) -> None:
    settings = {
        "precision": "float32",
        "steps": STEPS,
        "rank": RANK,
        "layers kept": MAIN,
    }
    kept = Kept("offsite", settings={**settings, "codecs": [CODEC, ENDS_CODEC], "rates": RATE})
    emulators = {
        depth: json.loads(place.read_text())
        for depth in DEPTHS
        if (place := folder / f"emulator-{depth}.json").exists()
    }
    for depth, about in emulators.items():
        row = f"{depth} layers"
        kept.put(row, "gap", about["alone"] - about["whole"], n=16)
        kept.put(row, "MB", about["bytes"] / 1e6)
        kept.put(row, "CPU s", about["cpu_seconds"])
    for task in TASKS:
        compare(kept, task, arms_in(folder, task))
    for place in sorted(folder.glob("text: *.json")):
        about = json.loads(place.read_text())
        for what in ("nats", "agreement"):
            if what in about:
                values = np.array(about[what])
                low, high = interval(values)
                kept.put(place.stem, what, values.mean(), n=len(values), low=low, high=high)
    for place in sorted(folder.glob("aligned *.json")):
        about = json.loads(place.read_text())
        kept.put(place.stem, "gap", about["gap"], n=16)
        kept.put(place.stem, "MB", about["bytes"] / 1e6)
    up = sorted(folder.glob("adapter * tuned *.bin"))
    if up:
        kept.put("adapter", "MB", up[0].stat().st_size / 1e6)
    for row, columns in kept.rows.items():
        said = ", ".join(
            f"{column} {number['value']:.4g}"
            + (f" [{number['low']:.4g}, {number['high']:.4g}]" if "low" in number else "")
            for column, number in columns.items()
        )
        print(f"{row:28s} {said}")
    kept.write()


PAIRS = (
    ("plugged in", "as it was"),
    ("plugged in", "tuned"),
    ("tuned", "emulator"),
    ("direct", "plugged in"),
    ("two rounds", "as many steps"),
    ("two rounds", "plugged in"),
)


def compare(kept: Kept, task: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Each arm's mean over items and seeds, and the differences of pairs of them by item."""

    def means(arm: str, what: str) -> Any:
        return np.mean([run[what] for run in found[arm]], 0)

    measures = ("nats", "right") if task == "topics" else ("nats",)
    for arm, runs in found.items():
        for what in measures:
            values = means(arm, what)
            low, high = interval(values)
            row = f"{task}: {arm}"
            kept.put(row, what, values.mean(), n=len(values), low=low, high=high)
            if len(runs) > 1:
                spread = np.std([np.mean(run[what]) for run in runs], ddof=1)
                kept.put(row, f"{what}, spread", spread, n=len(runs))
    for one, other in PAIRS:
        if one in found and other in found:
            for what in measures:
                more = means(one, what) - means(other, what)
                low, high = interval(more)
                row = f"{task}: {one} − {other}"
                kept.put(row, what, more.mean(), n=len(more), low=low, high=high)


def arms_in(folder: Path, task: str) -> dict[str, list[dict[str, Any]]]:
    """The pieces about a task, by arm."""
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in ("as it was", "emulator"):
        if (place := folder / f"{task} {arm}.json").exists():
            found[arm] = [json.loads(place.read_text())]
    for arm in ARMS:
        if places := sorted(folder.glob(f"{task} {arm} [0-9].json")):
            found[arm] = [json.loads(place.read_text()) for place in places]
    return found


def interval(values: Any) -> tuple[float, float]:
    """Of the mean, over what was measured on (questions, sequences), by 2,000 resamples."""
    rng = np.random.default_rng(0)
    draws = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
