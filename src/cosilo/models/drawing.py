"""Which token a model writes where its probabilities are known, by the numbers that decide it.

As `models.white_box` draws while it writes by itself: the first token at which the probability, summed
up in the order of the vocabulary, exceeds the next number of the reply's own generator. So the same
probabilities give the same token to whoever knows the seed and the place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosilo.models.asked import generator
from cosilo.models.base import NextTokens
from cosilo.types import Sampling


def chances(sampling: Sampling, first: int, count: int) -> Sequence[float]:
    """The numbers in [0, 1) that decide `count` tokens of a reply, from its token `first` on; none
    where nothing is drawn.
    """
    if sampling.temperature <= 0:
        return ()
    found: list[float] = generator(sampling).random(first + count).tolist()
    return found[first:]


def wanted(sampling: Sampling, vocabulary_size: int) -> int:
    """How many of the likeliest tokens must be known at a place to draw one."""
    return 1 if sampling.temperature <= 0 else vocabulary_size


def drawn(found: NextTokens, sampling: Sampling, numbers: Sequence[float]) -> list[int]:
    """A token for each place of `found`, drawn by `numbers`; the likeliest at temperature 0."""
    if sampling.temperature <= 0:
        return [int(token) for token in found.ids[:, 0]]
    rows = zip(found.ids, found.logprobs, numbers, strict=True)
    return [_one(ids, logprobs, sampling, number) for ids, logprobs, number in rows]


def _one(ids: np.ndarray, logprobs: np.ndarray, sampling: Sampling, number: float) -> int:
    scaled = logprobs.astype(np.float64) / sampling.temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    if sampling.top_p < 1:
        order = np.lexsort((ids, -p))
        ids, p = ids[order], p[order]
        gone = np.cumsum(p) - p >= sampling.top_p
        gone[0] = False
        p[gone] = 0.0
    order = np.argsort(ids)
    ids, total = ids[order], np.cumsum(p[order])
    at = int(np.searchsorted(total, number * total[-1], side="right"))
    return int(ids[min(at, len(ids) - 1)])
