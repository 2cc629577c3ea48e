"""How a round's updates are put together: rules, each by its name.

    updates, one an owner ──rule──▶ Aggregate: the tensors of all, which every owner goes on with

Rules are pure: what they give depends on the updates alone, to the bit, in whatever order they come.
They trust shapes and numbers, which `updates.vetted` looks at first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from cosilo.errors import ConfigError
from cosilo.federation.updates import (
    A,
    B,
    Floats,
    OwnerUpdate,
    Tensors,
    in_order,
    of_one_shape,
    pairs_of,
    shares,
)
from cosilo.registry import Registry

Reads = Literal["sum", "each"]
"""What a rule must see: the weighted sum of all updates, or each of them."""

Ranks = Literal["one", "padded", "stacked"]
"""Of which ranks adapters may be: all of one; of several, the result having the largest of them, or the
sum of all."""


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What a round's updates became.

    Attributes:
        tensors: by name, float32.
        weights: owner → how much of the result is its update's; 0 for one that was left out.
        adds: the result is an adapter to be merged into the base weights, after which every owner
            begins a new one; otherwise owners go on training the result itself.
        error: of an adapter: ‖product − Σ pₖ Bₖ Aₖ‖ / ‖Σ pₖ Bₖ Aₖ‖, how far what the result adds to
            the weights is from the weighted mean of what the updates add; None where that is not
            what the rule is after.
    """

    tensors: Mapping[str, Floats]
    weights: Mapping[str, float]
    adds: bool = False
    error: float | None = None


class AggregationRule(Protocol):
    """A way to put updates together."""

    reads: ClassVar[Reads]
    """"sum": secure aggregation can stand in front of it; "each": it cannot."""
    ranks: ClassVar[Ranks]

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        """`updates`, in any order, put together.

        Args:
            before: the tensors that all owners began the round with, for rules that look at how far
                each went.

        Raises:
            ValueError: there are none, or too few for the rule; an owner has two; their shapes are not
                what the rule can put together.
        """


rules: Registry[AggregationRule] = Registry("aggregation")


@rules.register("average")
@dataclass(frozen=True)
class Average:
    """The weighted mean of each tensor (FedAvg, McMahan et al., arXiv 1602.05629; of an adapter's A and
    B FedIT, Zhang et al., arXiv 2305.05644).

    Of an adapter it is not the mean of what the owners' adapters do: mean(B) · mean(A) is not
    mean(B A). `Aggregate.error` says by how much.
    """

    reads: ClassVar[Reads] = "sum"
    ranks: ClassVar[Ranks] = "one"

    def __call__(self, updates: Sequence[OwnerUpdate], before: Tensors | None = None) -> Aggregate:
        updates = in_order(updates)
        shapes = of_one_shape(updates, "average")
        weights = shares(updates)
        found = {name: mean_of(name, updates, weights) for name in sorted(shapes)}
        return Aggregate(
            found, by_owner(updates, weights), error=mean_error(found, updates, weights)
        )


def require_securable(rule: str) -> None:
    """Refuse secure aggregation in front of a rule that reads what it hides.

    Raises:
        ConfigError: there is no rule of that name, or it reads each owner's update.
    """
    able = [name for name in rules.names() if getattr(rules.get(name), "reads", "each") == "sum"]
    rules.get(rule)
    if rule not in able:
        raise ConfigError(
            f"aggregation {rule!r} reads each owner's update, and secure aggregation hides all but "
            f"their sum: leave one of the two out, or use {' or '.join(map(repr, able))}"
        )


def mean_of(name: str, updates: Sequence[OwnerUpdate], weights: Sequence[float]) -> Floats:
    """The mean of one tensor with weights that sum to 1, summed as doubles."""
    total = sum(
        w * update.tensors[name].astype(np.float64)
        for w, update in zip(weights, updates, strict=True)
    )
    return np.asarray(total, np.float32)


def by_owner(updates: Sequence[OwnerUpdate], weights: Sequence[float]) -> dict[str, float]:
    return {update.owner: w for update, w in zip(updates, weights, strict=True)}


def mean_error(
    tensors: Tensors, updates: Sequence[OwnerUpdate], weights: Sequence[float]
) -> float | None:
    """See `Aggregate.error`; None where the tensors are no adapter's.

    It is computed from the factors' products with one another, of as many numbers as the square of
    Σ ranks, never in the layers' full size: errors below 1e-7 cannot be told from none.
    """
    if not any(name.endswith((A, B)) for name in tensors):
        return None
    try:
        made, each = pairs_of(tensors), [pairs_of(update.tensors) for update in updates]
    except ValueError:
        return None
    off = wanted = 0.0
    for layer, (a, b) in made.items():
        wide = [
            w * pairs[layer][0].astype(np.float64) for w, pairs in zip(weights, each, strict=True)
        ]
        all_wide = np.concatenate([-a.astype(np.float64), *wide], axis=0)
        tall = np.concatenate([b, *(pairs[layer][1] for pairs in each)], axis=1).astype(np.float64)
        # ‖B A‖² = tr(BᵀB AAᵀ), of the difference and, without its first factors, of what is wanted.
        products = (tall.T @ tall) * (all_wide @ all_wide.T)
        off += float(products.sum())
        wanted += float(products[len(a) :, len(a) :].sum())
    return math.sqrt(max(0.0, off) / wanted) if wanted > 0 else None
