"""Fixed-point arithmetic in a ring, with Python's integers: slow, and obviously as it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cosilo.engines.ranges import Fixed


def multiplied(one: float, other: float, fixed: Fixed) -> float:
    """The product as a ring gives it: encoded, multiplied, wrapped around, truncated."""
    raw = round(one * 2**fixed.fraction) * round(other * 2**fixed.fraction)
    half = 1 << (fixed.bits - 1)
    return (((raw + half) % (2 * half) - half) >> fixed.fraction) / 2**fixed.fraction


def rms_norm(states: Any, arithmetic: Fixed | Callable[[Any], Any]) -> Any:
    """RMSNorm whose squares are taken in a ring, or in floating point."""
    if isinstance(arithmetic, Fixed):
        squares = np.array([[multiplied(x, x, arithmetic) for x in row] for row in states])
    else:
        squares = arithmetic(states) ** 2
    return states / np.sqrt(np.abs(squares.mean(-1, keepdims=True)) + 1e-5)
