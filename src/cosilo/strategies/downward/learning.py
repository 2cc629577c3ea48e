"""A language model's training at home: a copy learns in a thread, the best of it is kept.

model ─ copy, with an adapter ─▶ train(loss) ─▶ the weights best on lessons held out ─▶ model
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cosilo.errors import DataError
from cosilo.models.base import WeightModel
from cosilo.strategies.cards import Card

T = TypeVar("T")
Loss = Callable[[Any, Sequence[T]], Any]

_HELD_OUT = 0.1
_FEWEST = 10  # lessons below which none is held out


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a strategy trains; `rank` 0 trains all weights, else LoRA matrices of that rank."""

    by: str
    steps: int
    batch: int
    learning_rate: float
    rank: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if self.rank < 0:
            raise ValueError(f"rank = {self.rank!r} is negative")


async def learn(
    model: WeightModel, lessons: Sequence[T], loss: Loss[T], check: Loss[T], how: Learning
) -> tuple[WeightModel, Card]:
    """A trained copy of `model`, and what its training found.

    Args:
        loss: of one batch, in the training's own thread.
        check: the same on lessons held out, where it must cross no boundary; it decides which
            weights are kept.

    Raises:
        DataError: there is nothing to learn from.
        ModelError: the loss is not finite; it says at which step.
    """
    from cosilo.models.torch_lm import prepared
    from cosilo.models.torch_training import Schedule, train

    if not lessons:
        raise DataError(f"{how.by} has nothing to learn from: no reply could be scored")
    out, kept = divided(lessons, how.seed)
    schedule = Schedule(
        steps=how.steps,
        batch=min(how.batch, len(kept)),
        learning_rate=how.learning_rate,
        validate_every=max(1, how.steps // 4),
        patience=0,
        seed=how.seed,
    )
    method = "lora" if how.rank else "full"
    module = prepared(model.module, method=method, rank=how.rank or 1, seed=how.seed)
    dtype = model.module.dtype  # weights that are all trained are so in float32, then rounded again
    precision = "bfloat16" if str(dtype) == "torch.bfloat16" else "float32"

    def held_out(trained: Any) -> float:
        groups = [out[i : i + how.batch] for i in range(0, len(out), how.batch)]
        return sum(float(check(trained, g)) * len(g) for g in groups) / len(out)

    outcome = await asyncio.to_thread(
        train,
        module,
        kept,
        loss,
        schedule,
        validate=held_out if out else None,
        precision=precision,
    )
    facts: dict[str, int | float | str] = {
        "lessons": len(kept),
        "steps": len(outcome.losses),
        "loss at the first step": round(outcome.losses[0], 4),
        "loss at the last step": round(outcome.losses[-1], 4),
        "step of the weights kept": outcome.best_step,
    }
    if out:
        facts |= {
            "lessons held out": len(out),
            "loss on these before": round(outcome.validations[0], 4),
            "loss on these after": round(outcome.validations[outcome.best_step], 4),
        }
    trained = model.with_module(module if how.rank else module.to(dtype))
    return trained, Card(by=how.by, title="training", facts=facts)


def divided(lessons: Sequence[T], seed: int) -> tuple[list[T], list[T]]:
    """A tenth to be held out, and the rest; none of fewer than ten."""
    import numpy as np

    count = round(_HELD_OUT * len(lessons)) if len(lessons) >= _FEWEST else 0
    shuffled = np.random.default_rng(seed).permutation(len(lessons)).tolist()
    chosen = set(shuffled[:count])
    return (
        [lessons[i] for i in sorted(chosen)],
        [x for i, x in enumerate(lessons) if i not in chosen],
    )
