"""Numbers as whole ones modulo 2³² or 2⁶⁴, so that masks cancel to the bit and sums cannot overflow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.federation.updates import Doubles

Words = NDArray[np.unsignedinteger[Any]]
"""Numbers modulo 2³² (uint32) or 2⁶⁴ (uint64)."""

_COARSEST = 1 << 10  # steps from 0 to the largest number, at least


@dataclass(frozen=True)
class FixedPoint:
    """Each number as a multiple of 2^-`fraction`, negative ones as the modulus less that much.

    No sum overflows: a number is at most `largest`, so its multiple at most largest · 2^f + ½, and
    `fraction` is the greatest f with owners · (largest · 2^f + ½) ≤ 2^(bits − 1) − 1. A sum of so many
    is off by owners · 2^-(f + 1) at most, their mean by 2^-(f + 1).

    Attributes:
        owners: how many numbers are summed, at most.
        largest: the largest magnitude of each.
        bits: 32 or 64.

    Raises:
        ValueError: one of them is out of range, or so few bits leave fewer than a thousand steps.
    """

    owners: int
    largest: float
    bits: int = 32

    def __post_init__(self) -> None:
        if self.bits not in (32, 64) or self.owners < 1:
            raise ValueError(
                f"{self.owners!r} owners in {self.bits!r} bits: one at least, 32 or 64"
            )
        if not 0 < self.largest < math.inf:
            raise ValueError(f"largest = {self.largest!r} is not positive and finite")
        if self.largest * 2.0**self.fraction < _COARSEST:
            raise ValueError(
                f"{self.bits} bits are too few for {self.owners} owners' numbers up to "
                f"{self.largest:g}: take 64"
            )

    @property
    def fraction(self) -> int:
        """f: a step is 2^-f."""
        room = (Fraction(2 ** (self.bits - 1) - 1) / self.owners - Fraction(1, 2)) / Fraction(
            self.largest
        )
        if room <= 0:
            return -2000
        f = room.numerator.bit_length() - room.denominator.bit_length()
        return f if Fraction(2) ** f <= room else f - 1

    @property
    def step(self) -> float:
        return math.ldexp(1.0, -self.fraction)

    def encoded(self, numbers: Doubles) -> Words:
        """`numbers`, shape (n,), as words, each rounded to the nearest step.

        Raises:
            ValueError: one is no number, or of a larger magnitude than was agreed.
        """
        wide = numbers.astype(np.float64)
        if not (np.abs(wide) <= self.largest).all():
            raise ValueError(
                f"a number is none, or larger than the {self.largest:g} that sums have room for"
            )
        steps = np.rint(np.ldexp(wide, self.fraction)).astype(np.int64)
        return steps.astype(np.uint64).astype(self.dtype)

    def decoded(self, total: Words) -> Doubles:
        """The numbers of a sum of words."""
        signed = total.astype(self.dtype).view(np.int32 if self.bits == 32 else np.int64)
        return np.ldexp(signed.astype(np.float64), -self.fraction)

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint32 if self.bits == 32 else np.uint64

    @property
    def sent(self) -> np.dtype[np.unsignedinteger[Any]]:
        """`dtype` in the order of bytes that all machines send and draw."""
        return np.dtype(self.dtype).newbyteorder("<")


def weighted(vector: Doubles, weight: float) -> Doubles:
    """A vector for a sum: each number times the weight, and the weight itself behind them.

    The sum of such vectors is all that a weighted mean needs: see `mean_of_sum`.

    Args:
        weight: above 0 and at most 1, so that no number grows: an owner's share of the most examples
            that any owner may have, say.

    Raises:
        ValueError: the weight is out of range.
    """
    if not 0 < weight <= 1:
        raise ValueError(f"the weight {weight!r} is not above 0 and at most 1")
    return np.concatenate([vector * weight, [weight]])


def mean_of_sum(total: Doubles) -> Doubles:
    """The weighted mean of the vectors that were `weighted` and summed to `total`.

    Raises:
        ValueError: the weights sum to nothing.
    """
    if total.ndim != 1 or len(total) < 2 or not total[-1] > 0:
        raise ValueError(f"a sum of shape {total.shape} is none of weighted vectors")
    mean: Doubles = total[:-1] / total[-1]
    return mean
