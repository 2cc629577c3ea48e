"""Rules that a few hostile owners cannot bend as they like; all of them read each update.

    median          each number the middle one of all owners'
    trimmed_mean    each number the mean of those left when the smallest and largest are cut off
    krum            the one update that lies nearest to most others
    multi_krum      the mean of the `kept` best of these
    norm_bounded    the mean, each update's way from the round's beginning cut to a length

Owners count the same, whatever weight they state, where not said otherwise: a weight is a claim.

What they promise they promise of updates that are alike. Where owners' data differ much, an honest
owner may look like a hostile one, and a small poisoned update like an honest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cosilo.federation.rules import Aggregate, Ranks, Reads, by_owner, mean_of, rules
from cosilo.federation.updates import (
    Doubles,
    Floats,
    OwnerUpdate,
    Tensors,
    distance_norm,
    in_order,
    of_one_shape,
    shares,
)


@rules.register("median")
@dataclass(frozen=True)
class Median:
    """The median of each number (Yin et al., arXiv 1803.01498); of an even count the mean of the middle
    two. Holds against fewer than half of the owners."""

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "one"

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        updates = in_order(updates)
        shapes = of_one_shape(updates, "median")
        found: dict[str, Floats] = {}
        for name in sorted(shapes):
            stacked = np.stack([update.tensors[name] for update in updates])
            found[name] = np.asarray(np.median(stacked.astype(np.float64), axis=0), np.float32)
        return Aggregate(found, by_owner(updates, _evenly(updates)))


@rules.register("trimmed_mean")
@dataclass(frozen=True)
class TrimmedMean:
    """The mean of each number without its smallest and its largest (Yin et al., arXiv 1803.01498).

    Attributes:
        hostile: how many owners may be; so many are cut off at either end. A quarter of the owners,
            rounded down, when unset.

    Raises:
        ValueError: it is negative; on use, nothing would be left.
    """

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "one"
    hostile: int | None = None

    def __post_init__(self) -> None:
        _check_hostile(self.hostile)

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        updates = in_order(updates)
        shapes = of_one_shape(updates, "trimmed_mean")
        n = len(updates)
        cut = n // 4 if self.hostile is None else self.hostile
        if 2 * cut >= n:
            raise ValueError(f"of {n} updates none is left when {cut} at either end are cut off")
        found: dict[str, Floats] = {}
        for name in sorted(shapes):
            stacked = np.sort(np.stack([update.tensors[name] for update in updates]), axis=0)
            middle = stacked[cut : n - cut].astype(np.float64)
            found[name] = np.asarray(middle.mean(axis=0), np.float32)
        return Aggregate(found, by_owner(updates, _evenly(updates)))


@rules.register("krum")
@dataclass(frozen=True)
class Krum:
    """The update whose nearest others, of whom `hostile` + 1 are left out, are nearest in the sum of
    squares (Blanchard et al., NeurIPS 2017). Of updates equally near, the first by owner's name.

    Attributes:
        hostile: how many owners may be; at most (owners − 3) / 2, which is taken when unset.

    Raises:
        ValueError: it is negative; on use, there are too few updates for it.
    """

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "one"
    hostile: int | None = None

    def __post_init__(self) -> None:
        _check_hostile(self.hostile)

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        return _best(updates, self.hostile, 1, "krum")


@rules.register("multi_krum")
@dataclass(frozen=True)
class MultiKrum:
    """The mean of the updates that `krum` finds best, weighted as they state.

    Attributes:
        hostile: as for `krum`.
        kept: how many; all but `hostile` when unset.

    Raises:
        ValueError: one of them is out of range; on use, there are too few updates for it.
    """

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "one"
    hostile: int | None = None
    kept: int | None = None

    def __post_init__(self) -> None:
        _check_hostile(self.hostile)
        if self.kept is not None and self.kept < 1:
            raise ValueError(f"kept = {self.kept!r} is not positive")

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        return _best(updates, self.hostile, self.kept, "multi_krum")


@rules.register("norm_bounded")
@dataclass(frozen=True)
class NormBounded:
    """The weighted mean of updates none of which goes farther than `largest` from where the round began
    (Sun et al., arXiv 1911.07963): one that does is cut to that length, in its direction.

    Attributes:
        largest: in the Euclidean norm over all numbers together; the median of the updates' own when
            unset, which half of the owners bound.

    Raises:
        ValueError: it is not positive; on use, nobody said where the round began.
    """

    reads: ClassVar[Reads] = "each"
    ranks: ClassVar[Ranks] = "one"
    largest: float | None = None

    def __post_init__(self) -> None:
        if self.largest is not None and not 0 < self.largest < math.inf:
            raise ValueError(f"largest = {self.largest!r} is not positive and finite")

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        updates = in_order(updates)
        shapes = of_one_shape(updates, "norm_bounded")
        if before is None:
            raise ValueError("norm_bounded needs the tensors that the round began with")
        norms = [distance_norm(update.tensors, before) for update in updates]
        largest = float(np.median(norms)) if self.largest is None else self.largest
        weights = shares(updates)
        factors = [
            w * (min(1.0, largest / n) if n else 1.0) for w, n in zip(weights, norms, strict=True)
        ]
        found: dict[str, Floats] = {}
        for name in sorted(shapes):
            began = before[name].astype(np.float64)
            total = sum(
                f * (update.tensors[name] - began)
                for f, update in zip(factors, updates, strict=True)
            )
            found[name] = np.asarray(began + total, np.float32)
        return Aggregate(found, by_owner(updates, factors))


def squared_distances(updates: Sequence[OwnerUpdate]) -> Doubles:
    """Between each two updates, over all numbers together."""
    n = len(updates)
    found = np.zeros((n, n))
    for name in sorted(updates[0].tensors):
        rows = np.stack([update.tensors[name].astype(np.float64).ravel() for update in updates])
        for i in range(n):
            found[i] += np.square(rows - rows[i]).sum(axis=1)
    return found


def _best(
    updates: Sequence[OwnerUpdate], hostile: int | None, kept: int | None, rule: str
) -> Aggregate:
    updates = in_order(updates)
    shapes = of_one_shape(updates, rule)
    n = len(updates)
    f = max(0, (n - 3) // 2) if hostile is None else hostile
    near = n - f - 2
    if near < 1 or (f and n < 2 * f + 3):
        raise ValueError(
            f"{rule} against {f} hostile owners needs {max(3, 2 * f + 3)} updates, and there are {n}"
        )
    kept = n - f if kept is None else kept
    if kept > n - f:
        raise ValueError(f"{rule} keeps {kept} of {n} updates, and only {n - f} are surely honest")
    distances = squared_distances(updates)
    scores = [float(np.sort(np.delete(distances[i], i))[:near].sum()) for i in range(n)]
    best = sorted(range(n), key=lambda i: (scores[i], i))[:kept]
    total = math.fsum(updates[i].weight for i in best)
    weights = [updates[i].weight / total if i in best else 0.0 for i in range(n)]
    found = {name: mean_of(name, updates, weights) for name in sorted(shapes)}
    return Aggregate(found, by_owner(updates, weights))


def _evenly(updates: Sequence[OwnerUpdate]) -> list[float]:
    return [1 / len(updates)] * len(updates)


def _check_hostile(hostile: int | None) -> None:
    if hostile is not None and hostile < 0:
        raise ValueError(f"hostile = {hostile!r} is negative")
