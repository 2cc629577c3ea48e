"""An adapter of the LM is tuned on a client's lessons, where its owner does that."""

from __future__ import annotations

from asyncio import to_thread

import numpy as np

from cosilo.boundary.messages import Tune, Tuned
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.base import Array
from cosilo.models.tunable import LessonPlan, Lessons, tunes
from cosilo.parties.serving.base import Owner, serves


@serves(Tune)
async def tune(owner: Owner, message: Tune) -> Tuned:
    """Tunes, or says what was tuned before.

    Raises:
        CapabilityError: the owner tunes for nobody.
        RejectedError: the lessons cannot be, or are more than the owner tunes.
    """
    model = owner.model
    if not tunes(model):
        raise CapabilityError(
            f"{owner.name} tunes no adapters of {model.name!r} for others: a model of kind 'tunable' "
            "does"
        )
    if fault := message.fault():
        raise RejectedError(fault)
    shares = await to_thread(_shares, message)
    lessons = Lessons(message.chats, message.choices, message.replies, shares)
    plan = LessonPlan(
        steps=message.steps,
        batch=message.batch,
        learning_rate=message.learning_rate,
        rank=message.rank,
        seed=message.seed,
        confidence=message.confidence,
        warmup=message.warmup,
    )
    found = await model.tune(owner.client, lessons, plan)
    return Tuned(name=found.name, first=found.first, last=found.last, prompt_tokens=found.tokens)


def _shares(message: Tune) -> Array:
    """Rows of choices share out 1; replies are worth 1 on average."""
    found = np.array(message.shares, np.float32)
    total = found.sum(axis=1, keepdims=True) if message.choices else found.mean(keepdims=True)
    made: Array = found / total
    return made
