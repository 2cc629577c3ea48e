"""Trains the tiny model in a folder, one line per step: the process that test_torch_training kills."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import tiny_lm
from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.training import Schedule, train

SCHEDULE = Schedule(
    steps=12, batch=4, learning_rate=1e-2, validate_every=3, patience=0, checkpoint_seconds=0
)


def examples(count: int = 10) -> list[Tokens]:
    """Replies that repeat the last prompt token: there is something to learn."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        prompt = rng.integers(3, 20, rng.integers(2, 6))
        reply = np.repeat(prompt[-1], rng.integers(1, 4))
        ids = np.concatenate([prompt, reply]).astype(np.int32)
        found.append(Tokens(ids, len(prompt), (b"",) * len(reply)))
    return found


def validate(module: Any) -> float:
    return float(reply_loss(module, examples()[8:]).detach())


def module() -> Any:
    """With dropout, so that random numbers count too."""
    model = tiny_lm.module(32)
    model.config.attention_dropout = 0.1
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    return model


if __name__ == "__main__":
    train(
        module(),
        examples()[:8],
        reply_loss,
        SCHEDULE,
        validate=validate,
        folder=Path(sys.argv[1]),
        report=lambda progress: print(progress.step, flush=True),
    )
