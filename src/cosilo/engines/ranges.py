"""Whether numbers fit: fixed-point arithmetic wraps around without a word, so it is proved not to.

A value x is the integer x · 2^f in a ring of k bits. A product has 2f fractional bits until it is
truncated, and to truncate needs one bit to spare, so each product, and each sum of products that is
truncated once, must stay below 2^(k - 2 - 2f): 2^26 for k = 64 and f = 18. That the likeliest label
is right says nothing: one position of many can be lost, and the label stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ConfigError

Floats = NDArray[np.floating]

LARGEST_INPUT = 1.0
"""Entries of vectors that encoders make, whose length is 1."""


@dataclass(frozen=True)
class Fixed:
    """Fixed-point numbers: the ring's bits, and how many of them are fractional."""

    bits: int = 64
    fraction: int = 18

    def __post_init__(self) -> None:
        if self.bits not in (32, 64, 128):
            raise ConfigError(f"a ring has 32, 64 or 128 bits, not {self.bits}")
        if self.fraction < 1 or 2 * self.fraction + 2 >= self.bits:
            raise ConfigError(
                f"{self.fraction} fractional bits leave no room for a product in a ring of "
                f"{self.bits} bits; use between 1 and {self.bits // 2 - 2}"
            )

    @property
    def largest_product(self) -> float:
        """What a product, or a sum of products, must stay below."""
        return float(2.0 ** (self.bits - 2 - 2 * self.fraction))


@dataclass(frozen=True)
class Bound:
    """How large a product can become.

    Args:
        proved: it holds for every input that is let in; else it was seen on public text, and
            `largest` has headroom.
    """

    what: str
    largest: float
    proved: bool = True


def require_room(bounds: Sequence[Bound], fixed: Fixed) -> Bound:
    """Refuse to compute where a product could leave the ring; the bound that comes nearest to it.

    Raises:
        ConfigError: one could, or nothing is known of it.
    """
    if not bounds:
        raise ConfigError("nothing is known of the ranges of this computation: calibrate it first")
    for bound in bounds:
        if not bound.largest < fixed.largest_product:  # NaN is refused, too
            raise ConfigError(
                f"{bound.what} can reach {bound.largest:.3g}, and with {fixed.fraction} fractional "
                f"bits of {fixed.bits} a product must stay below {fixed.largest_product:.3g}: the "
                "result would be wrong without a sign of it. Nothing was sent; fewer fractional bits "
                "or a wider ring would do"
            )
    return max(bounds, key=lambda bound: bound.largest)


def linear(what: str, weights: Floats, biases: Floats, largest_input: float) -> Bound:
    """Of `x @ weights + biases`, for every x whose entries are at most `largest_input` in size."""
    sums = np.abs(weights, dtype=np.float64).sum(0) * largest_input
    return Bound(what, float((sums + np.abs(biases)).max(initial=0)))


def mlp(layers: Sequence[tuple[Floats, Floats]], largest_input: float) -> list[Bound]:
    """Of linear layers with ReLU between them."""
    found: list[Bound] = []
    for number, (weights, biases) in enumerate(layers):
        found.append(linear(f"layer {number + 1}", weights, biases, largest_input))
        largest_input = found[-1].largest
    return found


def require_inputs(values: Floats, largest: float) -> None:
    """Refuse what the owner of `values` must not share: the proof holds for smaller ones alone.

    Raises:
        ConfigError: an entry is larger, or no number.
    """
    if not np.isfinite(values).all() or float(np.abs(values).max(initial=0)) > largest:
        raise ConfigError(
            f"an input is no number, or larger than the {largest:g} that the ranges were proved for; "
            "nothing was sent"
        )


def require_faithful(secure: Floats, plain: Floats, most: float) -> float:
    """Compare the result of a rehearsal on public text with the same in floating point; its error.

    The likeliest label is not looked at: it can be right where numbers are not.

    Raises:
        ConfigError: the largest error is above `most`.
    """
    if secure.shape != plain.shape:
        raise ConfigError(f"the rehearsal gave {secure.shape}, where {plain.shape} was expected")
    error = float(np.abs(np.asarray(secure, np.float64) - plain).max(initial=0))
    if not error <= most:
        raise ConfigError(
            f"on public text the result is off by {error:.3g}, more than {most:g}: a product leaves "
            "the ring, or the approximations are too coarse for these weights"
        )
    return error
