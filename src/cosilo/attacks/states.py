"""Which tokens made these states? Tried one after the other, through the layers that made them.

    tokens found so far ──▶ for each candidate: the first layers ──▶ which is nearest to what crossed?

The curious party is the LM's owner, who knows the layers at home: a public model's, or one that was cut
from its own. A state depends on the tokens before it and on its own, so each is found by trying all
that could come next, and the error of one that was found wrong stays small. With noise in any
direction the nearest candidate is the likeliest. An attack that only looks for the nearest row of the
embedding, or learns a linear map back, finds little behind the second layer and is no measure of
anything.

No objective runs it: a record of states has no number for leaks, since what they say is not legible.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import Array, SplitModel, StatePast
from cosilo.privacy.radial_noise import cut_to

Ids = NDArray[np.int64]
Candidates = Callable[[int, Sequence[int]], Awaitable[Ids]]
"""From a position and the tokens before it to the tokens that are tried there."""

_AT_ONCE = 512


class KnownLayers(SplitModel, Protocol):
    """The layers at home, as their owner or anybody who has the weights can run them."""

    async def alternatives(
        self, past: StatePast | None, states: Array, first: int, last: int
    ) -> Array:
        """Of each of `states`, alone behind `past`, what it is after `last` layers."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """Attributes:
    ids: the token found at each position.
    tried: whether the true one was among those that were tried there, where it is known.
    """

    ids: list[int]
    tried: list[bool]


async def recover(
    model: KnownLayers,
    embedding: Array,
    seen: Array,
    layers: int,
    candidates: Candidates,
    *,
    clip: float | None = None,
    open: int = 0,
    truth: Sequence[int] | None = None,
) -> Recovered:
    """The tokens behind states that crossed.

    Args:
        embedding: of each token, shape (vocabulary, width).
        seen: the states as they crossed, shape (n, width).
        layers: how many they have been through.
        clip: what they were cut to before noise was added; None where they were not.
        open: so many of the first were not cut.
        truth: the right tokens, where they are known: then each position is attacked as if all before
        it
            had been found, which bounds what an attacker who searches better would get.
    """
    past: StatePast | None = None
    found: list[int] = []
    tried: list[bool] = []
    for i, state in enumerate(seen):
        before = found if truth is None else truth[:i]
        ids = await candidates(i, before)
        far: list[Array] = []
        for start in range(0, len(ids), _AT_ONCE):
            some = embedding[ids[start : start + _AT_ONCE]]
            made = some if not layers else await model.alternatives(past, some, 0, layers)
            if clip is not None and i >= open:
                made = cut_to(made, clip)
            far.append(np.linalg.norm(made - state, axis=1))
        best = int(ids[int(np.concatenate(far).argmin())])
        found.append(best)
        if truth is not None:
            tried.append(truth[i] in ids)
        if layers and i + 1 < len(seen):
            token = best if truth is None else truth[i]
            past, _ = await model.forward(past, embedding[[token]], 0, layers)
    return Recovered(found, tried)


def every(size: int) -> Candidates:
    """All tokens of a vocabulary, at each position."""
    ids: Ids = np.arange(size)

    async def given(_: int, __: Sequence[int]) -> Ids:
        return ids

    return given


def nearest_rows(embedding: Array, seen: Array) -> list[int]:
    """The weak attack: of each state the row of the embedding that is nearest to it."""
    squares = np.sum(np.square(embedding), axis=1)
    return [int(i) for i in (squares - 2 * (seen @ embedding.T)).argmin(axis=1)]


@dataclass(frozen=True, eq=False)
class LinearBack:
    """A linear map from states to the embeddings of their tokens, learned on one's own texts (ridge).

    Attributes:
        weights: shape (width + 1, width).
    """

    weights: Array
    embedding: Array

    @classmethod
    def fit(cls, seen: Array, ids: Sequence[int], embedding: Array) -> LinearBack:
        x = _with_one(seen)
        wanted = embedding[list(ids)].astype(np.float64)
        penalty = 0.1 * np.trace(x.T @ x) / x.shape[1] * np.eye(x.shape[1])
        weights = np.linalg.solve(x.T @ x + penalty, x.T @ wanted)
        return cls(weights.astype(np.float32), embedding)

    def nearest(self, seen: Array, count: int) -> Ids:
        """Of each state the tokens whose embedding lies nearest to where it is mapped: (n, count)."""
        there = (_with_one(seen) @ self.weights).astype(np.float32)
        there /= np.maximum(np.linalg.norm(there, axis=1, keepdims=True), 1e-12)
        rows = self.embedding / np.maximum(
            np.linalg.norm(self.embedding, axis=1, keepdims=True), 1e-12
        )
        found: Ids = np.argpartition(-(there @ rows.T), count, axis=1)[:, :count]
        return found


def _with_one(seen: Array) -> NDArray[np.float64]:
    return np.concatenate([seen, np.ones((len(seen), 1))], axis=1).astype(np.float64)
