"""Adapters of unequal ranks put together: exactly, by stacking, or padded to the largest.

    FLoRA     A = [p₁A₁; p₂A₂; …]   B = [B₁ B₂ …]      B A = Σ pₖ Bₖ Aₖ, of rank Σ rₖ
    HetLoRA   A = Σ pₖ [Aₖ; 0]      B = Σ pₖ [Bₖ 0]     of rank max rₖ; each owner takes its first rₖ

Only one factor of a stack is weighted: weighting both would weigh the products by pₖ².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cosilo.federation.rules import Aggregate, Ranks, Reads, by_owner, mean_error, rules
from cosilo.federation.updates import (
    A,
    B,
    Floats,
    OwnerUpdate,
    Pairs,
    Tensors,
    in_order,
    pairs_of,
    product_norm,
    shares,
)


@rules.register("flora")
@dataclass(frozen=True)
class Flora:
    """Exact: what the result adds to the weights is the weighted mean of what the updates add, whatever
    their ranks (FLoRA, Wang et al., arXiv 2409.05976).

    The result is merged into the weights and owners begin anew. It has the sum of all ranks, and so do
    the bytes that come back to each owner.

    Attributes:
        rank: the largest rank of the result; where the stack has more, the closest of this rank comes
            back, and `Aggregate.error` says how far off it is. None for no limit.

    Raises:
        ValueError: the rank is not positive.
    """

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "stacked"
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank = {self.rank!r} is not positive")

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        updates = in_order(updates)
        each, weights = _pairs_of_all(updates), shares(updates)
        found: dict[str, Floats] = {}
        for layer in each[0]:
            wide = [
                w * pairs[layer][0].astype(np.float64)
                for w, pairs in zip(weights, each, strict=True)
            ]
            found[layer + A] = np.concatenate(wide, axis=0).astype(np.float32)
            found[layer + B] = np.concatenate([pairs[layer][1] for pairs in each], axis=1)
        if self.rank is not None:
            found = reduced(found, self.rank)
        error = mean_error(found, updates, weights)
        return Aggregate(found, by_owner(updates, weights), adds=True, error=error)


@rules.register("hetlora")
@dataclass(frozen=True)
class HetLora:
    """Padded with zeros to the largest rank and averaged, each update weighing as much as the norm of
    its product, so that those that say little count little (HetLoRA, Cho et al., arXiv 2401.06432).
    The weights that updates state do not count.

    An owner of a smaller rank goes on with `truncated` of the result.
    """

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "padded"

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        updates = in_order(updates)
        each = _pairs_of_all(updates)
        norms = [product_norm(update.tensors) for update in updates]
        total = math.fsum(norms)
        weights = [n / total for n in norms] if total else shares(updates)
        rank = max(len(a) for pairs in each for a, _ in pairs.values())
        found: dict[str, Floats] = {}
        for layer, (first, second) in each[0].items():
            wide = np.zeros((rank, first.shape[1]))
            tall = np.zeros((len(second), rank))
            for w, pairs in zip(weights, each, strict=True):
                a, b = pairs[layer]
                wide[: len(a)] += w * a.astype(np.float64)
                tall[:, : len(a)] += w * b.astype(np.float64)
            found[layer + A] = wide.astype(np.float32)
            found[layer + B] = tall.astype(np.float32)
        error = mean_error(found, updates, weights)
        return Aggregate(found, by_owner(updates, weights), error=error)


def truncated(tensors: Tensors, rank: int) -> dict[str, Floats]:
    """The first `rank` ranks of an adapter; all of it where it has no more.

    Raises:
        ValueError: the rank is not positive, or the tensors are no pairs.
    """
    if rank < 1:
        raise ValueError(f"rank {rank!r} is not positive")
    found: dict[str, Floats] = {}
    for layer, (a, b) in pairs_of(tensors).items():
        found[layer + A], found[layer + B] = a[:rank].copy(), b[:, :rank].copy()
    return found


def reduced(tensors: Tensors, rank: int) -> dict[str, Floats]:
    """The adapter of that rank whose product is closest to that of `tensors` in each layer, its
    singular values shared evenly between the factors. A layer that has no more ranks stays as it is.

    Raises:
        ValueError: the rank is not positive, or the tensors are no pairs.
    """
    if rank < 1:
        raise ValueError(f"rank {rank!r} is not positive")
    found: dict[str, Floats] = {}
    for layer, (a, b) in pairs_of(tensors).items():
        if len(a) > rank:
            q_tall, r_tall = np.linalg.qr(b.astype(np.float64))
            q_wide, r_wide = np.linalg.qr(a.T.astype(np.float64))
            left, values, right = np.linalg.svd(r_tall @ r_wide.T, full_matrices=False)
            half, r = np.sqrt(values[:rank]), min(rank, len(values))
            shapes = (rank, a.shape[1]), (len(b), rank)
            a, b = (np.zeros(shape, np.float32) for shape in shapes)  # a layer may be narrower
            a[:r] = half[:, None] * right[:rank] @ q_wide.T
            b[:, :r] = q_tall @ left[:, :rank] * half
        found[layer + A], found[layer + B] = a, b
    return found


def _pairs_of_all(updates: Sequence[OwnerUpdate]) -> list[Pairs]:
    """The pairs of each update.

    Raises:
        ValueError: they are not of the same layers.
    """
    each = [pairs_of(update.tensors) for update in updates]
    layers = {layer: (len(b), a.shape[1]) for layer, (a, b) in each[0].items()}
    for update, pairs in zip(updates, each, strict=True):
        if layers != {layer: (len(b), a.shape[1]) for layer, (a, b) in pairs.items()}:
            raise ValueError(
                f"the updates of {updates[0].owner!r} and {update.owner!r} are of other layers"
            )
    return each
