"""What a model says of every answer of a closed set, and how sure that makes it of its own.

reply, with log P(A), log P(B), … ─▶ the likeliest's, its lead over the second and the third, entropy
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cosilo.labels import named
from cosilo.reasoning import spoken
from cosilo.strategies.confidence import plausibility
from cosilo.types import Generation

Floats = NDArray[np.float64]


def number(reply: Generation, choices: Sequence[str]) -> int:
    """The number of the choice that `reply` names; how many there are, where it names none."""
    label = named(spoken(reply.text), choices)
    return len(choices) if label is None else list(choices).index(label)


def view_of(own: Generation | None, choices: Sequence[str]) -> list[float]:
    """The small model's log-probability of each choice; zeros where it has no view."""
    if own is None:
        return [0.0] * len(choices)
    likely = [plausibility(own, choice) for choice in choices]
    if any(p is None for p in likely):
        # It shows the probability of its own reply alone, so the others share the rest.
        said = number(own, choices)
        if said == len(choices) or own.logprob is None:
            return [0.0] * len(choices)
        sure = min(0.999, float(np.exp(own.logprob)))
        rest = (1 - sure) / max(1, len(choices) - 1)
        likely = [sure if i == said else rest for i in range(len(choices))]
    return [float(np.log(max(p or 0.0, 1e-6))) for p in likely]


def certainty(views: Sequence[Sequence[float]]) -> Floats:
    """How sure of its choice a model is, whatever it chose, shape (items, 5).

    The likeliest answer's log-probability, how much less those of the second and the third are, how
    much less probable the second is, and the entropy, 1 where all are as likely.

    Args:
        views: log-probabilities of the choices, shape (items, choices), up to a constant of each item.
    """
    logs = np.sort(np.asarray(views, dtype=np.float64), axis=1)[:, ::-1]
    logs = logs - logs[:, :1]
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    chances = np.exp(logs)
    second, third = (min(n, logs.shape[1] - 1) for n in (1, 2))
    return np.stack(
        [
            logs[:, 0],
            logs[:, 0] - logs[:, second],
            logs[:, 0] - logs[:, third],
            chances[:, 0] - chances[:, second],
            -(chances * logs).sum(axis=1) / np.log(max(2, logs.shape[1])),
        ],
        axis=1,
    )
