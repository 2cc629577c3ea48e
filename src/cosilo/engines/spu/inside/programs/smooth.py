"""The exponential, the logistic function and 1/√x on fixed-point shares, exacter than SPU's own.

SPU's exponential is (1 + x/256)^256, which is 5 % off at -5 and returns great numbers below -512. Its
reciprocal first finds the highest bit of each value, which is more than half of a block's bytes.
Here arguments are bounded by a comparison; and where a divisor is known to lie in [1, 2], Newton's
method starts from a line.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LEAST = -16.0
"""Below it e^x is 0 to 18 fractional bits, near enough (1e-7)."""

_HALVINGS = 4


def exponential(x: Any) -> Any:
    """e^x for x ≤ 0: the cubic of x/16, squared four times."""
    y = jnp.maximum(x, LEAST) * 2.0**-_HALVINGS
    power = 1 + y * (1 + y * (0.5 + y * (1 / 6)))
    for _ in range(_HALVINGS):
        power = power * power
    return power


def logistic(x: Any) -> Any:
    """1 / (1 + e^-x), by way of |x|: the divisor 1 + e^-|x| lies in [1, 2]."""
    below = x < 0
    inverse = _inverse(1 + exponential(jnp.where(below, x, -x)))
    return jnp.where(below, 1 - inverse, inverse)


def inverse_root(x: Any) -> Any:
    """1/√x for x between 2^-8 and 2^8, with a step of Newton's after SPU's own estimate."""
    root = jax.lax.rsqrt(x)
    return root * (1.5 - 0.5 * x * root * root)


def _inverse(x: Any) -> Any:
    """1/x for x in [1, 2]."""
    inverse = 24 / 17 - 8 / 17 * x
    for _ in range(2):
        inverse = inverse * (2 - x * inverse)
    return inverse
