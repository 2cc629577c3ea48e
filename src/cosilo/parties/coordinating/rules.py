"""What a round's updates become: pure functions of the updates in the order of their owners' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Update:
    """What one owner contributed to a round.

    Attributes:
        owner: its name.
        weight: how much it counts beside the others, above 0.
        rank: of its adapter.
        tensors: the adapter's matrices by name: `LAYER.lora_A` (rank, in), `LAYER.lora_B` (out, rank).
    """

    owner: str
    weight: float
    rank: int
    tensors: Mapping[str, Floats]


def average(updates: Sequence[Update]) -> dict[str, Floats]:
    """The weighed mean of the matrices A, and that of the matrices B (FedIT, arXiv 2305.05644).

    Its product is not the mean of the products: mean(B) mean(A) ≠ mean(B A) where owners differ.
    """
    total = sum(u.weight for u in updates)
    found: dict[str, Floats] = {}
    for name in updates[0].tensors:
        mean = sum(
            np.float64(u.weight / total) * u.tensors[name].astype(np.float64) for u in updates
        )
        found[name] = np.asarray(mean, np.float32)
    return found


Rule = Callable[[Sequence[Update]], dict[str, Floats]]
RULES: Mapping[str, Rule] = {"average": average}
"""By the name that [federation] has for it."""
