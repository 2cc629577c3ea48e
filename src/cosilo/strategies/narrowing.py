"""The small model narrows a question down; the large one decides among what is left.

    item ──▶ small model ──▶ its most probable labels ──▶ LM: which of these? ──▶ both views, blended

The question shrinks with the labels that are left out: fewer tokens, and fewer labels to mistake. What
the LM's owner learns besides is which labels the small model held possible.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import CapabilityError, DataError
from cosilo.models.base import Array, Classifier, Trainable
from cosilo.parties.data_owner import DataOwner
from cosilo.types import Chat, Demonstration, Generation, Turn, last_user

Floats = NDArray[np.float64]

LEAST = 0.02
"""A label that both models together hold less probable than this is no target."""


async def judge_of(owner: DataOwner, model: Trainable, *, by: str, seed: int) -> Classifier:
    """The owner's small model as one that knows the task: as it is, or trained on the gold examples.

    Raises:
        DataError: it is not trained and there is no gold example.
        CapabilityError: it gives no class probabilities.
    """
    if isinstance(model, Classifier) and model.labels:
        return model
    if not owner.private:
        raise DataError(
            f"{by} asks the small model first, but it has no gold example to learn from"
        )
    trained = await asyncio.to_thread(model.fit, owner.private, seed=seed)
    if not isinstance(trained, Classifier):
        raise CapabilityError(
            f"{by} asks the small model first, but {type(trained).__name__} gives no class "
            "probabilities"
        )
    return trained


def views(judge: Classifier, pool: Sequence[Demonstration], choices: Sequence[str]) -> Floats:
    """What `judge` holds of each item: shape (items, choices); labels it does not know get 0."""
    return arranged(judge.probabilities([last_user(e.chat) for e in pool]), judge.labels, choices)


def arranged(p: Array, labels: Sequence[str], choices: Sequence[str]) -> Floats:
    """Probabilities `p` with columns in the order of `choices` instead of `labels`; 0 for a choice
    that is no label.
    """
    found = np.zeros((len(p), len(choices)))
    for i, label in enumerate(labels):
        if label in choices:
            found[:, choices.index(label)] = p[:, i]
    return found


def least_sure(p: Floats, most: int | None) -> list[int]:
    """The rows whose two most probable labels are nearest to each other, in their own order."""
    ordered = np.sort(p, axis=1)
    gap = ordered[:, -1] - ordered[:, -2]
    return sorted(int(i) for i in np.argsort(gap, kind="stable")[:most])


def narrowed(chat: Chat, choices: Sequence[str], left: Sequence[str]) -> Chat:
    """`chat` without the lines of its system turns that list a label which is not `left`."""
    gone = {f"- {c}" for c in choices if c not in left}

    def kept(line: str) -> bool:
        return line not in gone and line.partition(": ")[0] not in gone

    return tuple(
        Turn(t.role, "\n".join(filter(kept, t.content.splitlines()))) if t.role == "system" else t
        for t in chat
    )


def blended(
    view: Floats, left: Sequence[str], choices: Sequence[str], reply: Generation, trust: float
) -> dict[str, float]:
    """label → probability, from the small model's and the LM's: p · q ** trust, over `left`.

    Args:
        view: the small model's probabilities of `choices`.
        reply: with the log-probabilities of `left` as alternatives of its one token.
    """
    told = dict(reply.tokens[0].top) if len(reply.tokens) == 1 else {}
    if not told:
        raise CapabilityError(
            "blending needs the large model's log-probabilities of the labels; set exposes = "
            "'logprobs' for a model that shows them"
        )
    least = min(told.values())
    logs = {
        c: math.log(max(float(view[list(choices).index(c)]), 1e-6)) + trust * told.get(c, least)
        for c in left
    }
    top = max(logs.values())
    odds = {c: math.exp(x - top) for c, x in logs.items()}
    found = {c: x / sum(odds.values()) for c, x in odds.items()}
    kept = {c: x for c, x in found.items() if x >= LEAST}
    return {c: x / sum(kept.values()) for c, x in kept.items()}
