"""SmolLM2 teaches its own half-depth student: how much of what dropping layers cost comes back.

    python benchmarks/healing.py                     layers, both arms, three seeds; resumes
    python benchmarks/healing.py --seconds 330       stops between runs once that time is over
    python benchmarks/healing.py --report            the table of what is there

Text: complaints that the CFPB publishes (../shared/data/cfpb_raw), 64 tokens a sequence; training and
choosing layers read its train split, the held-out loss its test split, once per finished run. The two
arms train on the same sequences in the same order, for as many steps:

    teacher   the layers that stay refitted to the whole model's states, then the divergence from its
              next-token distribution
    text      the text's own next token (healing without the teacher)
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from cosilo.errors import RunBusyError
from cosilo.models.base import Tokens
from cosilo.models.white_box import checkpoint as torch_checkpoint
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.compensation import compensate
from cosilo.models.white_box.depth import importance, plain, without
from cosilo.models.white_box.healing import freeze_ends, teacher_loss
from cosilo.models.white_box.lm import torch_lm
from cosilo.models.white_box.training import Schedule, TrainingProgress, train
from cosilo.models.white_box.tuning import mean_loss
from kept import Kept

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cfpb_raw"
ROWS = 400  # complaints of each split
LENGTH = 64
ARMS = ("teacher", "text")
SEEDS = (0, 1, 2)
HELD_OUT = 32  # sequences; 2,016 predicted tokens
CHOSEN_ON = 2  # sequences that the layers are measured on
REFITTED_ON = 40
STEPS, BATCH = 25, 1
RATES = {
    "teacher": 1e-4,
    "text": 1e-3,
}  # a student that was refitted has less to learn, and more to lose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/healing"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        work(arguments)
    report(arguments.folder)


def work(arguments: Any) -> None:
    end = perf_counter() + arguments.seconds
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    model = torch_lm("smollm2-135m-instruct", precision="float32")
    teacher = model.module.requires_grad_(False)
    train_text, held_out = (
        plain(model.tokens, texts(arguments.data / f"{split}.jsonl")[:ROWS], length=LENGTH)
        for split in ("train", "test")
    )
    held_out = sample(held_out, 9)[:HELD_OUT]
    pool = sample(train_text, 8)
    chosen_on, pool = pool[:CHOSEN_ON], pool[CHOSEN_ON:]

    with (folder / ".choosing").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another turn is choosing layers")
            return
        dropped = choose_layers(teacher, chosen_on, held_out, folder / "layers.json")

    for seed in SEEDS:
        for arm in ARMS:
            place = folder / f"{arm}-{seed}.json"
            if place.exists():
                continue
            if perf_counter() > end:
                return
            student = without(teacher, dropped).requires_grad_(True)
            freeze_ends(student)
            if arm == "teacher":
                fitted_on = pool[len(pool) - REFITTED_ON * (seed + 1) :][:REFITTED_ON]
                refit(student, teacher, dropped, fitted_on, held_out, folder / f"refit-{seed}.json")
            loss = teacher_loss(teacher) if arm == "teacher" else reply_loss
            seen = sample(pool, seed)[: STEPS * BATCH]
            rate = RATES[arm]
            schedule = Schedule(steps=STEPS, batch=BATCH, learning_rate=rate, seed=seed, patience=0)
            cpu = process_time()
            try:
                outcome = train(
                    student,
                    seen,
                    loss,
                    schedule,
                    folder=folder / f"{arm}-{seed}",
                    run=f"{arm} {dropped}",
                    report=tell,
                )
            except RunBusyError:  # another turn works on this one
                continue
            about = {
                "held_out": losses(student, held_out),
                "steps": STEPS,
                "rate": rate,
                "seconds": outcome.seconds,
                "cpu_seconds": process_time() - cpu,
                "trained_on": outcome.losses,
            }
            place.write_text(json.dumps(about))
            for file in (folder / f"{arm}-{seed}").iterdir():
                file.unlink()


def choose_layers(
    teacher: Any, chosen_on: Sequence[Tokens], held_out: Sequence[Tokens], place: Path
) -> list[int]:
    """Half the layers, and what the held-out text costs with and without them."""
    if not place.exists():
        cpu = process_time()
        found = importance(teacher, chosen_on, drop=15, at_once=5, report=say)
        about = asdict(found) | {"cpu_seconds": process_time() - cpu}
        about["teacher"] = losses(teacher, held_out)
        about["dropped"] = losses(without(teacher, found.order), held_out)
        place.write_text(json.dumps(about))
    return [int(i) for i in json.loads(place.read_text())["order"]]


def say(found: int, wanted: int) -> None:
    print(f"{found} of {wanted} layers", flush=True)


def refit(
    student: Any,
    teacher: Any,
    dropped: Sequence[int],
    sequences: Sequence[Tokens],
    held_out: Sequence[Tokens],
    place: Path,
) -> None:
    """The student with its matrices refitted on `sequences`, computed once."""
    kept = place.with_suffix(".safetensors")
    if kept.exists():
        found, _ = torch_checkpoint.read(kept)
        for name, parameter in student.named_parameters():
            parameter.data.copy_(found[name])
        return
    cpu = process_time()
    left = compensate(student, teacher, dropped, sequences)
    about = {"left": left, "cpu_seconds": process_time() - cpu, "steps": 0, "rate": 0.0}
    about["held_out"] = losses(student, held_out)
    torch_checkpoint.write(kept, dict(student.named_parameters()))
    place.write_text(json.dumps(about))


def losses(module: Any, sequences: Sequence[Tokens]) -> list[float]:
    """Nats per token of each sequence."""
    return [mean_loss(module, [s]) for s in sequences]


def texts(path: Path) -> list[str]:
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return [str(row["text"]) for row in rows]


def sample(sequences: Sequence[Tokens], seed: int) -> list[Tokens]:
    order = np.random.default_rng(seed).permutation(len(sequences))
    return [sequences[i] for i in order]


def tell(progress: TrainingProgress) -> None:
    if progress.step % 10 == 0:
        print(
            f"{progress.step}/{progress.steps} loss {progress.loss:.3f}, "
            f"{progress.seconds_left:.0f} s left",
            flush=True,
        )


def report(folder: Path) -> None:
    if not (folder / "layers.json").exists():
        print("nothing measured yet")
        return
    about = json.loads((folder / "layers.json").read_text())
    whole, dropped = np.array(about["teacher"]), np.array(about["dropped"])
    gap = dropped.mean() - whole.mean()
    print(f"layers dropped, in order: {about['order']}")
    print(f"held-out, {len(whole)} sequences of {LENGTH} tokens of complaints:")
    print(f"  whole model     {whole.mean():.3f} nats, perplexity {math.exp(whole.mean()):,.1f}")
    print(
        f"  half its layers {dropped.mean():.3f} nats, perplexity {math.exp(dropped.mean()):,.1f}"
    )
    kept = Kept("healing", settings={"precision": "float32", "tokens": LENGTH, "steps": STEPS})
    for name, of in (("whole", whole), ("dropped", dropped)):
        kept.put(name, "nats", of.mean(), n=len(whole))
        kept.put(name, "perplexity", math.exp(of.mean()), n=len(whole))
    kept.put("dropped", "gap", gap, n=len(whole))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(whole), (2000, len(whole)))
    per_arm: dict[str, list[Any]] = {}
    for arm in ("refit", *ARMS):
        for path in sorted(folder.glob(f"{arm}-*.json")):
            run = json.loads(path.read_text())
            healed = np.array(run["held_out"])
            recovered = (dropped - healed)[draws].mean(1) / (dropped - whole)[draws].mean(1)
            low, high = np.quantile(recovered, [0.025, 0.975])
            per_arm.setdefault(arm, []).append(healed)
            share = (dropped.mean() - healed.mean()) / gap
            kept.put(path.stem, "recovered", share, n=len(whole), low=low, high=high)
            print(
                f"  {path.stem:10s} {healed.mean():.3f} nats, perplexity {math.exp(healed.mean()):,.1f}"
                f", recovers {(dropped.mean() - healed.mean()) / gap:.1%} [{low:.1%}, {high:.1%}] "
                f"of {gap:.3f} nats; {run['steps']} steps at {run['rate']:g}, "
                f"{run['cpu_seconds']:.0f} CPU s"
            )
    for arm, runs in per_arm.items():
        share = [(dropped.mean() - healed.mean()) / gap for healed in runs]
        spread = f" ± {np.std(share, ddof=1):.1%}" if len(share) > 1 else ""
        print(f"  {arm}: {np.mean(share):.1%}{spread} over {len(share)} seeds")
        mean = float(np.mean(runs))
        kept.put(arm, "nats", mean, n=len(share))
        kept.put(arm, "perplexity", math.exp(mean), n=len(share))
        kept.put(arm, "recovered", np.mean(share), n=len(share))
        if len(share) > 1:
            kept.put(arm, "spread", np.std(share, ddof=1), n=len(share))
    if all(arm in per_arm for arm in ARMS):
        paired = min(len(per_arm[arm]) for arm in ARMS)
        more = np.mean(per_arm["text"][:paired], 0) - np.mean(per_arm["teacher"][:paired], 0)
        low, high = np.quantile(more[draws].mean(1), [0.025, 0.975])
        print(
            f"  the teacher is worth {more.mean():.3f} nats [{low:.3f}, {high:.3f}] at equal steps"
        )
        kept.put("teacher", "worth", more.mean(), n=len(whole), low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
