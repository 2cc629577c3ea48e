"""Hidden states on the wire: two bytes a number, each state scaled to a root mean square of 1.

What a state's length says is lost; what a linear model reads of it, its direction, stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]

WIDEST = 1 << 16
"""Numbers in the state of a model wider than any there is."""


def pack(states: Floats) -> bytes:
    """`states`, shape (n, width), as little-endian float16."""
    scale = np.sqrt(np.mean(np.square(states, dtype=np.float64), axis=1, keepdims=True))
    return bytes((states / np.maximum(scale, 1e-12)).astype("<f2").tobytes())


def unpack(packed: bytes, count: int) -> Floats:
    """What `pack` packed of `count` states, shape (count, width).

    Raises:
        UnexpectedReplyError: the bytes are not that many states, or hold what is no number.
    """
    if count < 1 or not packed or len(packed) % (2 * count):
        raise UnexpectedReplyError(f"{len(packed)} bytes are not {count} hidden states")
    if len(packed) > 2 * count * WIDEST:
        raise UnexpectedReplyError(f"{len(packed)} bytes are more than {count} hidden states take")
    found = np.frombuffer(packed, "<f2").astype(np.float32).reshape(count, -1)
    if not np.isfinite(found).all():
        raise UnexpectedReplyError("a hidden state of the large model holds what is no number")
    return found
