"""Where vectors, weights and logits stand in the slots of a ciphertext.

    slots   x₀ x₁ … x₃₈₃ x₀ x₁ …   │ the next vector, … │       a block: a vector, its beginning again
    turned by i:  xᵢ xᵢ₊₁ …         │                    │
    times         diagonal i: W[j, j + i] at slot j < outputs, and 0 elsewhere
    the sum over all i             logits at the slots j < outputs of each block, and 0 elsewhere

The diagonal method (Halevi and Shoup, "Algorithms in HElib", eprint 2014/106) with baby and giant
steps: about 2 √inputs turns in place of one for each input. All vectors of a ciphertext are multiplied
at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RING = 8192
"""Numbers in a polynomial."""

SLOTS = RING // 2

LARGEST = 2.0**8
"""No logit may be larger: there is no room for it."""


def require_room(weights: Floats, bias: Floats) -> None:
    """Refuse a head whose logits of some vector of length 1 may be larger than `LARGEST`.

    Raises:
        ValueError: it is one.
    """
    most = float((np.linalg.norm(weights, axis=1) + np.abs(bias)).max())
    if not most <= LARGEST:
        raise ValueError(
            f"its logits may be up to {most:.3g}, and there is room for {LARGEST:.0f} (a head that was "
            "trained with less strength has smaller ones)"
        )


@dataclass(frozen=True)
class SlotLayout:
    """For a head of so many inputs and outputs.

    Raises:
        ValueError: not even one vector fits into a ciphertext.
    """

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1 or self.block > SLOTS:
            raise ValueError(
                f"a head of {self.inputs} inputs and {self.outputs} outputs does not fit into "
                f"{SLOTS} slots: together they may be {SLOTS + 1}, and each must be 1 or more"
            )

    @property
    def block(self) -> int:
        """Slots that a vector takes."""
        return self.inputs + self.outputs - 1

    @property
    def fits(self) -> int:
        """How many vectors fit into a ciphertext."""
        return SLOTS // self.block

    @property
    def baby(self) -> int:
        return math.isqrt(self.inputs - 1) + 1

    @property
    def giants(self) -> int:
        return -(-self.inputs // self.baby)

    @property
    def steps(self) -> tuple[int, ...]:
        """By how many slots ciphertexts are turned."""
        return (*range(1, self.baby), *(self.baby * g for g in range(1, self.giants)))

    def spread(self, vectors: Floats) -> Floats:
        """`vectors`, (n, inputs), as slots.

        Raises:
            ValueError: more than fit, or of another length.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.inputs or len(vectors) > self.fits:
            raise ValueError(f"not at most {self.fits} vectors of {self.inputs} numbers")
        slots = np.zeros(SLOTS)
        for n, vector in enumerate(vectors):
            slots[n * self.block : (n + 1) * self.block] = np.resize(vector, self.block)
        return slots

    def at_outputs(self, values: Floats, vectors: int) -> Floats:
        """`values`, (outputs,), where the logits of the first so many vectors stand."""
        slots = np.zeros(SLOTS)
        for n in range(vectors):
            slots[n * self.block : n * self.block + self.outputs] = values
        return slots

    def diagonal(self, weights: Floats, i: int, vectors: int) -> Floats:
        """Diagonal `i` of `weights`, (outputs, inputs), turned back by the giant step that follows."""
        j = np.arange(self.outputs)
        slots = self.at_outputs(weights[j, (j + i) % self.inputs], vectors)
        return np.roll(slots, i // self.baby * self.baby)

    def logits(self, slots: Floats, vectors: int) -> Floats:
        """Those of the first so many vectors, (vectors, outputs)."""
        starts = self.block * np.arange(vectors)
        found: Floats = slots[starts[:, None] + np.arange(self.outputs)]
        return found
