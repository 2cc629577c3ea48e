"""A language model's training at home: a copy learns in a thread, the best of it is kept.

pool ─ Ask ─▶ replies ─▶ lessons (a strategy's own)
                            │
model ─ copy, with an adapter ─▶ train(loss) ─▶ the weights best on lessons held out ─▶ model
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from cosilo.boundary.messages import Score
from cosilo.errors import DataError
from cosilo.models.base import WeightModel
from cosilo.strategies.base import (
    About,
    Expected,
    Forecast,
    Session,
    Strategy,
    Text,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.cards import Card
from cosilo.strategies.labelling import labelled
from cosilo.types import Answer, Chat, Demonstration

T = TypeVar("T")
Loss = Callable[[Any, Sequence[T]], Any]

_HELD_OUT = 0.1
_FEWEST = 10  # lessons below which none is held out


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What the strategies do that train a small model's weights and leave answering to another one.

    Override `needs` and `prepare`, and set `name` to what the strategy is registered as.

    Attributes:
        items: how many pool items are learned from, in the pool's order; all of them when unset.
        gold: learn from the owner's own examples and their targets; no reply of the LM is asked for.
        steps, batch, learning_rate: of the training.
        rank: of the LoRA matrices; 0 trains all weights.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    name: ClassVar[str]

    items: int | None = None
    gold: bool = False
    steps: int = 200
    batch: int = 8
    learning_rate: float = 2e-4
    rank: int = 8
    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("items", "steps", "batch", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value!r} is not positive")
        if self.rank < 0:
            raise ValueError(f"rank = {self.rank!r} is negative")

    def next(self) -> Strategy:
        """The strategy that answers, not prepared."""
        return strategies.create(self.then, **self.then_options)

    def forecast(self) -> Forecast:
        """The replies, where they are asked for, and what the strategy that answers asks."""
        asked = () if self.gold else (Expected("pool", items=self.items),)
        return (*asked, *unshared(forecast(self.next())))

    def scored(self) -> Expected:
        """One message for each reply that is learned from."""
        about: About = "gold" if self.gold else "pool"
        reply: Text = "target" if self.gold else "answer"
        return Expected(about, Score, items=self.items, reads=("question", reply), writes=())

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError(f"{self.name} only prepares: answer with the strategy prepare returns")

    def pool(self, session: Session) -> tuple[Demonstration, ...]:
        """What is learned from: of the owner's own examples or of the pool, as many as `items` says.

        Raises:
            DataError: there is nothing.
        """
        owner = session.owner
        pool = (owner.private if self.gold else owner.pool or owner.private)[: self.items]
        if not pool:
            raise DataError(f"{self.name} has no pool to learn from")
        return pool

    async def replies(
        self, session: Session, pool: Sequence[Demonstration]
    ) -> tuple[Sequence[Demonstration], Session]:
        """`pool` with a reply to each item as its target: what is gold stays, else the LM's.

        Raises:
            DataError: the LM gave none that is of use.
        """
        if not self.gold:
            labels = await labelled(session, pool)
            session = session.with_card(labels.card(self.name, session.sampling.choices))
            pool = labels.examples
        if not pool:
            raise DataError(
                f"{self.name} got no reply from the large model that could be learned from"
            )
        return pool, session

    async def learned(
        self,
        session: Session,
        model: WeightModel,
        examples: Sequence[Demonstration],
        lessons: Sequence[T],
        loss: Loss[T],
        check: Loss[T] | None = None,
    ) -> tuple[Strategy, Session]:
        """Train `model` on `lessons`, made from `examples`; returns the strategy and session that
        `prepare` returns.
        """
        trained, card = await learn(model, lessons, loss, check or loss, self)
        session = replace(session, owner=session.owner.taught(trained, examples, further=True))
        return await self.next().prepare(session.with_card(card))


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
    from cosilo.models.white_box.training import Schedule, TrainingOutcome, train
    from cosilo.models.white_box.tuning import prepared

    if not lessons:
        raise DataError(f"{how.name} has nothing to learn from: no reply could be scored")
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

    def held_out(trained: Any) -> float:
        groups = [out[i : i + how.batch] for i in range(0, len(out), how.batch)]
        return sum(float(check(trained, g)) * len(g) for g in groups) / len(out)

    def work() -> tuple[Any, TrainingOutcome]:
        module = prepared(model.module, method=method, rank=how.rank or 1, seed=how.seed)
        dtype = model.module.dtype
        outcome = train(
            module,
            kept,
            loss,
            schedule,
            validate=held_out if out else None,
            precision="bfloat16" if str(dtype) == "torch.bfloat16" else "float32",
        )
        # Weights that are all trained are so in float32, then rounded again.
        return module if how.rank else module.to(dtype), outcome

    module, outcome = await asyncio.to_thread(work)
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
    return model.with_module(module), Card(by=how.name, title="training", facts=facts)


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
