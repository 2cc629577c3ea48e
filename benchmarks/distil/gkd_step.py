"""A GKD step (JSD, β = 0.5) beside TRL's `trl.experimental.gkd`: same models, data and optimiser.

SmolLM2 teaches its own half (every second layer). Three students start equal and take turns, a step
each:

    trl    GKDTrainer.training_step, then AdamW
    whole  this project's loop and loss over the teacher's whole distribution, no boundary between
    k=64   what `distil_logits` does: Score, pack, unpack, the 64 likeliest tokens and the rest mass

Run it with the interpreter of an environment that has TRL as well (see docs/results.md).
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl.experimental.gkd import GKDConfig, GKDTrainer

from cosilo.boundary.messages import Scored
from cosilo.models.base import Access, Tokens
from cosilo.models.white_box.batch import pad, predict
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.losses import Teacher, divergence
from cosilo.models.white_box.training import Schedule, _Loop, order
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import ModelConfig, make_model, open_session
from cosilo.strategies.downward.distil_logits import DistilLogits
from cosilo.types import user

DATA = Path("../shared/data/pubmedqa/train.jsonl")
WORDS = 40  # of each answer, so that a step takes seconds


def half(module: Any) -> Any:
    """A copy without every second layer."""
    student = copy.deepcopy(module)
    layers = layers_of(student)
    kept = [layer for i, layer in enumerate(layers) if i % 2 == 0]
    student.get_decoder().layers = torch.nn.ModuleList(kept)
    student.config.num_hidden_layers = len(kept)
    for i, layer in enumerate(kept):
        layer.self_attn.layer_idx = i
    return student.float().requires_grad_(True)


def trl_step(
    student: Any, teacher: TorchModel, items: Sequence[Tokens], schedule: Schedule, folder: str
) -> Callable[[], float]:
    """TRL's own step on the batches that the others get."""
    config = GKDConfig(
        output_dir=folder, per_device_train_batch_size=schedule.batch, lmbda=0.0, beta=0.5,
        temperature=1.0, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to=[],
        disable_dropout=True,
    )  # fmt: skip
    words = teacher.tokens.words
    words.pad_token = words.pad_token or words.eos_token
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    trainer = GKDTrainer(
        model=student,
        teacher_model=copy.deepcopy(teacher.module),
        args=config,
        processing_class=words,
        train_dataset=Dataset.from_list(rows),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model_accepts_loss_kwargs = True
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.0, weight_decay=0.0)
    step = 0

    def one() -> float:
        nonlocal step
        batch = pad([items[i] for i in order(len(items), schedule, step)])
        labels = torch.full_like(batch.ids, -100)
        labels[:, -batch.targets.shape[1] :][batch.counted] = batch.targets[batch.counted]
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": labels}
        student.train()
        loss = trainer.training_step(student, inputs, batch.counted.sum())
        torch.nn.utils.clip_grad_norm_(student.parameters(), schedule.clip)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        return float(loss)

    return one


def whole_loss(teacher: Any) -> Callable[[Any, Sequence[Tokens]], Any]:
    def loss(module: Any, items: Sequence[Tokens]) -> Any:
        batch = pad(items)
        with torch.no_grad():
            taught = predict(teacher, batch)[batch.counted].log_softmax(1)
        student = predict(module, batch)[batch.counted]
        return divergence(student, Teacher(None, taught, None), "jsd", beta=0.5).mean()

    return loss


def few_loss(teacher: TorchModel) -> Callable[[Any, Sequence[Scored]], Any]:
    strategy = DistilLogits(loss="jsd", beta=0.5, k=64, gold=True)
    lm = LMOwner(teacher, exposes=Access.LOGITS.shows)
    session = open_session(DataOwner(teacher), lm, strategy)

    def loss(module: Any, items: Sequence[Scored]) -> Any:
        lessons = asyncio.run(strategy._lessons(session, teacher, items))
        return strategy._loss(module, lessons)

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--path", type=Path, help="a Hugging Face folder in place of SmolLM2")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/distil/gkd_step.json"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    source = {"path": options.path} if options.path else {"model": "smollm2-135m-instruct"}
    teacher = make_model(ModelConfig(kind="torch", options=source | {"precision": "float32"}))
    assert isinstance(teacher, TorchModel)
    with DATA.open() as lines:
        rows = [json.loads(line) for line in lines][: options.steps * options.batch]
    texts = [Scored(user(r["question"]), " ".join(r["long_answer"].split()[:WORDS])) for r in rows]
    tokens = [teacher.tokenize(t.chat, t.reply) for t in texts]
    schedule = Schedule(steps=options.steps, batch=options.batch, learning_rate=1e-4, warmup=0.0)
    start = half(teacher.module)

    def loop(examples: Sequence[Any], loss: Any) -> Callable[[], float]:
        return _Loop(
            copy.deepcopy(start), examples, loss, schedule, None, None, "", "float32"
        ).one_step

    with tempfile.TemporaryDirectory() as folder:
        arms = {
            "trl": trl_step(copy.deepcopy(start), teacher, tokens, schedule, folder),
            "whole": loop(tokens, whole_loss(teacher.module)),
            "k=64": loop(texts, few_loss(teacher)),
        }
        losses: dict[str, list[float]] = {name: [] for name in arms}
        walls: dict[str, list[float]] = {name: [] for name in arms}
        cpus: dict[str, list[float]] = {name: [] for name in arms}
        for step in range(options.steps):
            names = list(arms)
            for name in names[step % 3 :] + names[: step % 3]:  # nobody is always first
                wall, cpu = perf_counter(), process_time()
                losses[name].append(arms[name]())
                walls[name].append(perf_counter() - wall)
                cpus[name].append(process_time() - cpu)
            print(
                step,
                {n: (round(losses[n][-1], 5), round(walls[n][-1], 2)) for n in arms},
                flush=True,
            )
            options.out.write_text(json.dumps({"losses": losses, "wall": walls, "cpu": cpus}))
    report(losses, walls, cpus)


def report(losses: Any, walls: Any, cpus: Any) -> None:
    """Ratios of a step to TRL's step on the same batch; the first step warms up and does not count."""
    from cosilo.objectives import intervals

    trl = np.array(losses["trl"])
    for name in ("whole", "k=64"):
        off = np.abs(np.array(losses[name]) - trl) / trl
        print(f"{name}: loss off TRL's by {off.mean():.2e} on average, {off.max():.2e} at most")
        for kind, times in (("wall", walls), ("CPU", cpus)):
            ours, theirs = np.array(times[name][1:]), np.array(times["trl"][1:])

            def ratio(weights: np.ndarray, a: Any = ours, b: Any = theirs) -> np.ndarray:
                return (weights @ a) / (weights @ b)

            low, high = intervals.bootstrap(ratio, len(ours))
            mean = ours.sum() / theirs.sum()
            print(f"  {kind} {mean:.3f} × TRL [{low:.3f}, {high:.3f}], n = {len(ours)} steps")


if __name__ == "__main__":
    main()
