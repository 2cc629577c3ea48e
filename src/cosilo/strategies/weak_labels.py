"""What a small model thinks of texts, as numbers that may be sent: how likely each label is.

text ──▶ small model ──▶ a known label? ──▶ shares of all labels, or of that one alone
                             └─ no: dropped, counted
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from cosilo.boundary.messages.tune import WHOLE
from cosilo.errors import DataError
from cosilo.models.base import Array, TextModel
from cosilo.reasoning import spoken
from cosilo.strategies.fanout import fan_out
from cosilo.types import Demonstration, Generation, Sampling


@dataclass(frozen=True, eq=False)
class WeakLabels:
    """What the small model thinks of texts.

    Attributes:
        kept: those of which it names a known label.
        shares: how likely each label is, (kept, labels); rows sum to 1.
        dropped: how many texts it named no known label of.
    """

    kept: tuple[Demonstration, ...]
    shares: Array
    dropped: int

    def require(self, choices: Sequence[str]) -> None:
        """Refuse labels that teach nothing.

        Raises:
            DataError: there are none, or all are the same.
        """
        if not self.kept:
            raise DataError(
                f"the small model named no known label of {self.dropped} texts, so there is nothing to "
                "teach"
            )
        named = set(self.shares.argmax(axis=1).tolist())
        if len(named) < 2:
            raise DataError(
                f"the small model gives all {len(self.kept)} texts the same label, "
                f"{choices[named.pop()]!r}, which teaches nothing"
            )


def in_thousandths(shares: Array) -> tuple[tuple[int, ...], ...]:
    """Shares as they are sent: no closer than that, the largest of a row never 0."""
    whole = np.maximum(np.rint(shares * WHOLE), (shares == shares.max(1, keepdims=True)) * 1)
    return tuple(tuple(int(x) for x in row) for row in whole)


async def weak_labels(
    model: TextModel, sampling: Sampling, pool: Sequence[Demonstration], *, soft: bool = True
) -> WeakLabels:
    """What `model` thinks of each of `pool`, by what it answers to its chat.

    Args:
        sampling: with the choices that are the labels.
        soft: how likely it holds each label, where it shows that; else the likeliest alone.
    """
    choices = sampling.choices
    sampling = msgspec.structs.replace(sampling, temperature=0.0)

    async def one(item: Demonstration) -> Generation:
        return await model.generate(item.chat, sampling)

    replies = await fan_out(one, pool, concurrency=256)
    rows = [_shares(reply, choices, soft=soft) for reply in replies]
    kept = [(item, row) for item, row in zip(pool, rows, strict=True) if row is not None]
    shares = np.array([row for _, row in kept], np.float32).reshape(len(kept), len(choices))
    return WeakLabels(tuple(item for item, _ in kept), shares, len(pool) - len(kept))


def _shares(reply: Generation, choices: Sequence[str], *, soft: bool) -> list[float] | None:
    """How likely each choice is; None where the reply is none of them."""
    text = spoken(reply.text).strip()
    if text not in choices:
        return None
    if soft and len(reply.tokens) == 1:
        known = {reply.tokens[0].token: reply.tokens[0].logprob, **dict(reply.tokens[0].top)}
        found = [math.exp(min(0.0, known[c])) if c in known else 0.0 for c in choices]
        if sum(found) > 0:
            return [p / sum(found) for p in found]
    return [float(choice == text) for choice in choices]
