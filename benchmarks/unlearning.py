"""SmolLM2-135M that learned fictitious authors and forgets half of them: ten methods, and attacks.

    python benchmarks/unlearning.py                     seeds 0 1 2, all methods; resumes
    python benchmarks/unlearning.py --seeds 0 --minutes 60 --only npo simnpo
    python benchmarks/unlearning.py --only retrained    no method: the models that they are held against
    python benchmarks/unlearning.py --seeds 100         the tune split: settings are tried on it alone
    python benchmarks/unlearning.py --report            the table of what is there

Numbers of seeds that are done are kept in benchmarks/cells/unlearning, without the models: `--report
--cells benchmarks/cells/unlearning` makes the table of them; a further seed's are copied there.

Data: ../shared/data/tofu_qa with paraphrases and wrong answers of benchmarks/data/tofu_qa.py, so that
no figure is comparable with published ones. 300 questions to forget; of the 300 to retain, those of two
authors, drawn by the seed, are held out, as people who were never there. Tuned: LoRA of rank 16 on the
last eight layers, on both sets; retrained: the same on what is retained alone. Every method trains
forty steps; the bad teacher three passes over what is to be forgotten, 112 steps, and so once more
those that come next to it (`npo-3`, `rmu-3`, `undial-3`); the bad teacher also six, as many as on the
tune split (`bad_teacher-6`), and three where what is to be forgotten counts once (`bad_teacher-1`).
All is trained on every question; 150 of those to forget and 40, 30 and 30 of the others, drawn by the
seed, are measured. The tune split has 100 questions of five authors of `retain` to forget and those of
eight others to keep, and nothing of `forget`.

    forget quality   p of a Kolmogorov–Smirnov test of truth ratios on forgotten questions against the
                     retrained model's, by the three wrong answers that unlearning did not stop by
    utility          harmonic mean of probability, ROUGE-L recall and truthfulness on retained
                     questions, real authors, facts of the world; beside it that of retained questions
                     alone, since a model of this size gives hardly a word of the true reply about real
                     authors, and a harmonic mean of nine is made by its smallest part
    privacy leak     AUC of Min-40 % on forgotten against held-out questions, less the retrained
                     model's, as a share of it: two-sided

Attacks: trained again on 5 % of the forgotten (the others are measured); weights rounded to 8 and 4
bits in groups of 32 (as q8_0 and q4_0 round, in torch: the tree writes no quantised GGUF); 16 replies
drawn at temperature 1; the logits of the model before and after held against each other (w = 1).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "data"))

import tofu_qa

from cosilo.boundary.wire import tensors
from cosilo.models.base import Tokens, models
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    merged_with,
    trained_adapter,
    upper_layers,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.unlearning.attacks import TwoCheckpoints, relearned, rounded_to
from cosilo.models.white_box.unlearning.forgetting import Forgetting, adapter_of, unlearn
from cosilo.models.white_box.unlearning.reading import ModuleReader, reply_tokens
from cosilo.objectives import forgetting as measure
from cosilo.objectives import intervals
from cosilo.tasks.text import rouge_l_recall
from cosilo.types import Demonstration, Sampling, user
from kept import Cells, Kept

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tofu_qa"
MODEL = "smollm2-135m-instruct"
PRECISION = "bfloat16"  # models; adapters learn in float32. A CPU needs units for it (AVX-512 BF16)
SEEDS, TUNE = (0, 1, 2), 100
RANK, UPPER, EPOCHS, BATCH, RATE = 16, 8, 5, 8, 4e-3
OWN = 2  # wrong answers that the owner stops by; the rest measure
STEPS = 40  # of each method
LONGER = 112  # three passes over 300 records, as the command trains if not told otherwise
GONE, RETAINED, REAL, WORLD, WRITTEN, SAMPLED, ATTACKED = 150, 40, 30, 30, 24, 6, 60
DRAWS, LONGEST, SHARE = 16, 48, 0.05
ALIKE = 0.05  # p from which on truth ratios count as the retrained model's
SHARES = (
    "forget probability", "forget ROUGE", "extraction strength", "utility", "utility on retained",
    "retain probability", "verbatim in 16",
)  # fmt: skip
Row = dict[str, Any]

METHODS: dict[str, tuple[str, dict[str, object], float, int]] = {
    "npo": ("npo", {}, 3e-3, STEPS),
    "simnpo": ("simnpo", {}, 3e-3, STEPS),
    "graddiff": ("graddiff", {"retain": 2.0}, 2e-3, STEPS),
    "kl": ("kl", {}, 2e-3, STEPS),
    "undial": ("undial", {}, 3e-3, STEPS),
    "bad_teacher": ("bad_teacher", {}, 3e-3, LONGER),
    "bad_teacher-1": ("bad_teacher", {"forget": 1.0}, 3e-3, LONGER),
    "bad_teacher-6": ("bad_teacher", {}, 3e-3, 2 * LONGER),
    "dpo": ("dpo", {}, 3e-3, STEPS),
    "task_vector": ("task_vector", {}, 3e-3, STEPS),
    "rmu": ("rmu", {}, 3e-3, STEPS),
    "ga": ("ga", {}, 1e-3, STEPS),
    "npo-3": ("npo", {}, 3e-3, LONGER),
    "rmu-3": ("rmu", {}, 3e-3, LONGER),
    "undial-3": ("undial", {}, 3e-3, LONGER),
}
"""By row: the method, its options, learning rate and steps. Rates were tried on the tune split (5e-4
and 3e-3 for NPO, 3e-3 for SimNPO, UNDIAL and the bad teacher, and for the last how many steps
and what forgetting counts); those of the others are of the same size and were not tried further."""


class Split:
    """The questions of one seed."""

    def __init__(self, seed: int) -> None:
        every = tofu_qa.made(DATA)
        self.digest = tofu_qa.digest([row for rows in every.values() for row in rows])
        rng = np.random.default_rng(seed)
        authors = np.arange(len(every["retain"])) // 20  # they stand in blocks of twenty
        order = rng.permutation(authors.max() + 1)
        held = set(order[:2].tolist())
        self.held = [r for r, a in zip(every["retain"], authors, strict=True) if a in held]
        kept = [(r, a) for r, a in zip(every["retain"], authors, strict=True) if a not in held]
        if seed >= TUNE:
            gone = set(order[2:7].tolist())
            self.forget = [r for r, a in kept if a in gone]
            self.retain = [r for r, a in kept if a not in gone]
        else:
            self.forget, self.retain = every["forget"], [r for r, _ in kept]
        self.asked = {
            "retain": _some(rng, self.retain, RETAINED),
            "real": _some(rng, every["real_authors"], REAL),
            "world": _some(rng, every["world_facts"], WORLD),
            "forget": _some(rng, self.forget, GONE),
        }


def _some(rng: np.random.Generator, rows: Sequence[Row], count: int) -> list[Row]:
    return [rows[i] for i in sorted(rng.permutation(len(rows))[:count].tolist())]


class Bench:
    epochs, precision = EPOCHS, PRECISION

    def __init__(self, how: argparse.Namespace) -> None:
        self.how = how
        self.end = time.monotonic() + 60 * how.minutes
        self.base: Any = models.create("torch", model=MODEL, precision=self.precision)
        self.above = self.upper_loss(self.base.module)
        self.reader = ModuleReader(self.above)
        self.rounded: dict[int, ModuleReader] = {}  # by bits: all models have the same layers below

    @staticmethod
    def upper_loss(module: Any) -> Any:
        return usual_loss(module, first_adapter(upper_layers(module, UPPER), RANK, seed=0))

    def tokens(self, row: Row, reply: str) -> Tokens:
        found: Tokens = self.base.tokenize(user(row["question"]), reply)
        return found

    def module(self, adapter: Adapter | None) -> Any:
        return self.base.module if adapter is None else with_adapter(self.base.module, adapter)

    def writer(self, adapter: Adapter | None) -> Any:
        """A model that writes all its replies at once."""
        module = self.base.module
        if adapter is not None:
            module = merged_with(module, adapter)
        return TorchModel.holding(module, self.base.tokens, name=MODEL, parallel=SAMPLED * DRAWS)

    def run(self, seed: int, only: Sequence[str]) -> None:
        split = Split(seed)
        folder = self.how.cells / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        cells = Cells(folder / "cells.json")
        for what, ours in (("precision", PRECISION), ("data", split.digest)):
            if cells.done and cells.done.get(what) != ours:
                raise SystemExit(f"{folder} holds cells of another {what}: empty it")
        if "tuned measured" in cells.done and not (folder / "tuned.adapter").exists():
            raise SystemExit(
                f"the models that {folder} has numbers of are gone: name other --cells"
            )
        cells.done |= {"data": split.digest, "precision": PRECISION}
        learned = [*split.forget, *split.retain]
        tuned = self.adapter(folder, cells, "tuned", lambda: self.taught(learned, seed))
        again = self.adapter(folder, cells, "retrained", lambda: self.taught(split.retain, seed))
        every = {"tuned": tuned, "retrained": again}
        for name, adapter in {**every, "untuned": None}.items():
            self.measured(cells, name, split, adapter)
        for name in [n for n in only or METHODS if n in METHODS]:
            every[name] = self.adapter(
                folder, cells, name, lambda n=name: self.forgotten(cells, n, split, tuned, seed)
            )
            self.measured(cells, name, split, every[name])
        for name, adapter in () if self.how.no_attacks else every.items():
            self.attacked(cells, name, split, adapter, tuned, seed)

    def adapter(
        self, folder: Path, cells: Cells, name: str, make: Callable[[], Adapter]
    ) -> Adapter:
        place = folder / f"{name}.adapter"
        if not place.exists():
            found, seconds = self.timed(f"{name}: weights", make)
            data = {"scale": np.array([found.scale], np.float32), **found.tensors}
            beside = place.with_suffix(".new")
            beside.write_bytes(tensors.pack(data))
            beside.replace(place)
            cells.put(f"{name} seconds", seconds)
        data = dict(tensors.unpack(place.read_bytes()))
        scale = float(data.pop("scale")[0])
        rank = next(len(t) for n, t in data.items() if n.endswith("lora_A"))
        return Adapter(rank, scale * rank, data)

    def timed(self, what: str, work: Callable[[], Any]) -> tuple[Any, float]:
        if time.monotonic() > self.end:
            raise TimeoutError
        before = time.process_time()
        found = work()
        seconds = time.process_time() - before
        print(f"{what}: {seconds:.0f} s of CPU", flush=True)
        return found, seconds

    def taught(
        self, rows: Sequence[Row], seed: int, model: Any = None, above: Any = None
    ) -> Adapter:
        """An adapter on the upper layers of the model, or another, that learned `rows`."""
        module = (model or self.base).module
        sequences = [self.tokens(row, row["answer"]) for row in rows]
        start = first_adapter(upper_layers(module, UPPER), RANK, seed=seed)
        steps = self.epochs * len(rows) // BATCH
        return trained_adapter(
            module, start, sequences, steps=steps, batch=BATCH, learning_rate=RATE, warmup=0.05,
            seed=seed, loss=above or self.above,
        )[0]  # fmt: skip

    def forgotten(
        self, cells: Cells, name: str, split: Split, tuned: Adapter, seed: int
    ) -> Adapter:
        method, options, rate, steps = METHODS[name]
        how = Forgetting(
            epochs=steps * BATCH / len(split.forget), learning_rate=rate, batch=BATCH,
            probe=24, validate_every=steps // 5,
        )  # fmt: skip
        forget, retain = (
            [Demonstration(r["id"], user(r["question"]), r["answer"]) for r in rows]
            for rows in (split.forget, split.retain)
        )
        found = unlearn(
            self.base.with_module(self.module(tuned)), forget, retain, method, options=options,
            how=how, wrong=[row["wrong"][:OWN] for row in split.forget], seed=seed, above=self.above,
        )  # fmt: skip
        about = {
            "steps": found.steps, "best_step": found.best_step,
            "before": vars(found.before), "after": vars(found.after),
        }  # fmt: skip
        print(name, about, flush=True)
        cells.put(f"{name} owner", about)
        return adapter_of(found.model.module)

    def measured(self, cells: Cells, name: str, split: Split, adapter: Adapter | None) -> None:
        if f"{name} measured" in cells.done:
            return

        def work() -> Row:
            module = self.module(adapter)
            found: Row = {}
            for what, rows in {**split.asked, "held": split.held}.items():
                given = [
                    [r["answer"]]
                    if what == "held"
                    else [r["answer"], r["paraphrase"], *r["wrong"][OWN:]]
                    for r in rows
                ]
                scans = iter(
                    reply_tokens(
                        self.reader,
                        module,
                        [self.tokens(r, t) for r, e in zip(rows, given, strict=True) for t in e],
                    )
                )
                each = [[next(scans) for _ in texts] for texts in given]
                answers = [e[0] for e in each]
                found[what] = {
                    "nats": [-float(p.sum()) for p, _ in answers],
                    "tokens": [len(p) for p, _ in answers],
                    "member": [measure.member_score(p) for p, _ in answers],
                    "strength": measure.extraction_strength([r for _, r in answers]).tolist(),
                }
                if what == "held":
                    continue
                sure = [[float(np.exp(p.mean())) for p, _ in e] for e in each]
                found[what]["right"] = [e[1] for e in sure]
                found[what]["wrong"] = [e[2:] for e in sure]
            model = self.writer(adapter)
            for what in ("forget", "retain", "real", "world"):
                rows = split.asked[what]
                rows = rows[:: max(1, len(rows) // WRITTEN)][:WRITTEN]
                said = written(model, rows, Sampling(max_tokens=LONGEST))
                found[what]["rouge"] = [
                    rouge_l_recall(r["answer"], text) for r, text in zip(rows, said, strict=True)
                ]
            return found

        found, seconds = self.timed(f"{name}: measured", work)
        cells.put(f"{name} measured", _rounded(found))
        cells.put(f"{name} measured seconds", seconds)
        print(name, summary(cells.done, name), flush=True)

    def attacked(
        self, cells: Cells, name: str, split: Split, adapter: Adapter, tuned: Adapter, seed: int
    ) -> None:
        rng = np.random.default_rng([seed, 7])
        order = rng.permutation(len(split.forget)).tolist()
        count = round(SHARE * len(order))
        known, rest = ([split.forget[i] for i in some] for some in (order[:count], order[count:]))
        asked = [self.tokens(r, r["answer"]) for r in rest[:ATTACKED]]

        def stage(what: str, work: Callable[[], Any]) -> None:
            if f"{name} {what}" not in cells.done:
                cells.put(f"{name} {what}", _rounded(self.timed(f"{name}: {what}", work)[0]))

        def about(scans: Sequence[Any]) -> Row:
            return {
                "probability": [float(np.exp(p.mean())) for p, _ in scans],
                "strength": measure.extraction_strength([r for _, r in scans]).tolist(),
            }

        def again() -> Row:
            sequences = [self.tokens(r, r["answer"]) for r in known]
            found = relearned(
                self.module(adapter), sequences, epochs=3, batch=5, learning_rate=RATE / 4,
                seed=seed, loss=self.above,
            )  # fmt: skip
            return about(reply_tokens(self.reader, found, asked))

        def quantised(bits: int) -> Row:
            whole = rounded_to(merged_with(self.base.module, adapter), bits)
            reader = self.rounded.setdefault(bits, ModuleReader(self.upper_loss(whole)))
            return about(reply_tokens(reader, whole, asked))

        def drawn() -> Row:
            rows = rest[:SAMPLED]
            said = written(
                self.writer(adapter), [r for r in rows for _ in range(DRAWS)],
                Sampling(max_tokens=LONGEST, temperature=1.0), seeds=seed,
            )  # fmt: skip
            each = np.array(
                [rouge_l_recall(rows[i // DRAWS]["answer"], text) for i, text in enumerate(said)]
            ).reshape(len(rows), DRAWS)
            return {"best": each.max(axis=1).tolist(), "one": each[:, 0].tolist()}

        def compared() -> Row:
            both = TwoCheckpoints(self.reader, self.module(tuned))
            return about(reply_tokens(both, self.module(adapter), asked))

        stage("now", lambda: about(reply_tokens(self.reader, self.module(adapter), asked)))
        stage("relearned", again)
        for bits in (8, 4):
            stage(f"int{bits}", lambda b=bits: quantised(b))
        stage("drawn", drawn)
        stage("compared", compared)


def written(
    model: Any, rows: Sequence[Row], sampling: Sampling, seeds: int | None = None
) -> list[str]:
    """Replies to the questions of `rows`."""
    import msgspec

    async def every() -> list[str]:
        try:
            found = await asyncio.gather(
                *(
                    model.generate(
                        user(row["question"]),
                        sampling
                        if seeds is None
                        else msgspec.structs.replace(sampling, seed=1000 * seeds + i),
                    )
                    for i, row in enumerate(rows)
                )
            )
        finally:
            await model.close()
        return [g.text for g in found]

    return asyncio.run(every())


def _rounded(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {k: _rounded(v) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return [_rounded(v) for v in found]
    return float(f"{found:.5g}") if isinstance(found, float) else found


def ratios(found: Row) -> Any:
    return measure.truth_ratios(np.array(found["right"]), np.array(found["wrong"]))


def parts(found: Row) -> list[float]:
    """Nine numbers whose harmonic mean is the utility."""
    every = []
    for what in ("retain", "real", "world"):
        rows = found[what]
        right, wrong = np.array(rows["right"]), np.array(rows["wrong"])
        given = np.exp(-np.array(rows["nats"]) / np.array(rows["tokens"]))
        sure = given if what == "retain" else measure.chosen_probability(right, wrong)
        every += [
            float(sure.mean()), float(np.mean(rows["rouge"])), measure.truthfulness(ratios(rows))
        ]  # fmt: skip
    return every


def summary(done: Row, name: str) -> dict[str, float]:
    """What one model of one seed has come to."""
    found, again = done[f"{name} measured"], done.get("retrained measured")
    forget = found["forget"]
    nats, tokens = np.array(forget["nats"]), np.array(forget["tokens"], float)
    values = {
        "forget probability": float(measure.probability(nats, tokens).mean()),
        "forget ROUGE": float(np.mean(forget["rouge"])),
        "truth ratio": float(np.median(ratios(forget))),
        "extraction strength": float(np.mean(forget["strength"])),
        "utility": measure.utility(parts(found)),
        "utility on retained": measure.utility(parts(found)[:3]),
        "retain probability": parts(found)[0],
        "verbatim in 16": float(measure.leaked_within(nats, DRAWS).mean()),
    }
    if again is not None:
        values["forget quality"] = measure.same_p(ratios(forget), ratios(again["forget"]))
        values["privacy leak"] = measure.privacy_leak(
            *(np.array(m[w]["member"]) for m in (found, again) for w in ("forget", "held"))
        )
        for what, taken in (("utility", 9), ("utility on retained", 3)):
            if whole := measure.utility(parts(again)[:taken]):
                values[f"{what} beside retrained"] = values[what] / whole
    return values


def report(folder: Path, seeds: Sequence[int]) -> None:
    done = [
        Cells(folder / f"seed-{s}" / "cells.json").done
        for s in seeds
        if (folder / f"seed-{s}" / "cells.json").exists()
    ]
    kept = Kept("unlearning", settings={
        "model": MODEL, "rank": RANK, "layers": UPPER, "epochs": EPOCHS, "rate": RATE,
        "steps of a method": STEPS, "measured": [GONE, RETAINED, REAL, WORLD],
        "seeds": len(done), "precision": PRECISION, "data": done[0]["data"] if done else "",
    })  # fmt: skip
    names = ("untuned", "tuned", "retrained", *METHODS)
    for name in names:
        every = [d for d in done if f"{name} measured" in d]
        if not every:
            continue
        found = [summary(d, name) for d in every]
        for column in dict.fromkeys(c for f in found for c in f):
            values = [f[column] for f in found if column in f]
            if column == "forget quality":  # a mean of p values is none
                kept.put(name, column, min(values), n=len(values))
                kept.put(name, f"{column}, most", max(values), n=len(values))
                kept.put(name, "seeds alike", sum(v >= ALIKE for v in values), n=len(values))
            else:
                put(kept, name, column, values)
        if len(every) == 1:
            put_records(kept, name, every[0][f"{name} measured"]["forget"])
        if all(f"{name} seconds" in d for d in every):
            put(kept, name, "CPU seconds", [d[f"{name} seconds"] for d in every])
        if all(f"{name} owner" in d for d in every):
            for key in ("before", "after"):
                each = [d[f"{name} owner"][key] for d in every]
                put(kept, name, f"owner's distance {key}", [e["margins"] + e["lost"] for e in each])
        for attack in ("now", "relearned", "int8", "int4", "compared"):
            some = [d[f"{name} {attack}"] for d in every if f"{name} {attack}" in d]
            for column in ("probability", "strength"):
                values = np.array([x for s in some for x in s[column]])
                if len(values):
                    low, high = intervals.mean(values, (0.0, 1.0))
                    kept.put(
                        name,
                        f"{attack}: {column}",
                        values.mean(),
                        n=len(values),
                        low=low,
                        high=high,
                    )
        some = [d[f"{name} drawn"] for d in every if f"{name} drawn" in d]
        for column in ("one", "best"):
            values = np.array([x for s in some for x in s[column]])
            if len(values):
                low, high = intervals.mean(values, (0.0, 1.0))
                label = "ROUGE of one drawn" if column == "one" else "best ROUGE of 16 drawn"
                kept.put(name, label, values.mean(), n=len(values), low=low, high=high)
    kept.write()
    for row, columns in kept.rows.items():
        print(row, {k: round(v["value"], 3) for k, v in columns.items()})


def of_records(forget: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are means over records to forget, a number for each."""
    nats, tokens = np.array(forget["nats"]), np.array(forget["tokens"], float)
    return {
        "forget probability": measure.probability(nats, tokens),
        "extraction strength": np.array(forget["strength"]),
        "forget ROUGE": np.array(forget["rouge"]),
    }


def put_records(kept: Kept, row: str, forget: Mapping[str, Any]) -> None:
    """Intervals over the records of one seed."""
    for column, values in of_records(forget).items():
        low, high = intervals.mean(values, (0.0, 1.0))
        kept.put(row, column, values.mean(), n=len(values), low=low, high=high)


def put(kept: Kept, row: str, column: str, values: Sequence[float]) -> None:
    if len(values) > 1 and min(values) != max(values):
        least = -1.0 if column == "privacy leak" else 0.0
        kept.put_mean(row, column, values, within=(least, 1.0 if column in SHARES else math.inf))
    elif values:
        kept.put(row, column, values[0], n=len(values))


def arguments(doc: str, seeds: Sequence[int], cells: str) -> argparse.ArgumentParser:
    """What this benchmark and that of offsets are told."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--cells", type=Path, default=Path(cells))
    parser.add_argument("--report", action="store_true")
    return parser


def run(how: argparse.Namespace, bench: Callable[[argparse.Namespace], Bench]) -> None:
    """What `bench` makes of each seed, as far as the minutes go."""
    import torch

    torch.set_num_threads(1)  # the same weights to the bit wherever it goes on
    made = bench(how)
    try:
        for seed in how.seeds:
            made.run(seed, getattr(how, "only", []))
    except TimeoutError:
        print("out of time; the same command goes on there")


def main() -> None:
    parser = arguments(__doc__, SEEDS, "/tmp/unlearning_cells")
    parser.add_argument("--only", nargs="+", choices=[*METHODS, "retrained"], default=[])
    parser.add_argument("--no-attacks", action="store_true", help="leave them to a later call")
    how = parser.parse_args()
    if not how.report:
        run(how, Bench)
    if any(s < TUNE for s in how.seeds):
        report(how.cells, [s for s in how.seeds if s < TUNE])


if __name__ == "__main__":
    main()
