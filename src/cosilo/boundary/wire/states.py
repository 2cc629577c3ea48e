"""Hidden states on the wire: two bytes a number, each state scaled to a root mean square of 1.

What a state's length says is lost; what a linear model reads of it, its direction, stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs import codec
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


def pack_scaled(states: Floats) -> bytes:
    """`states`, shape (n, width), each as its root mean square (float32) and its numbers over that
    (float16): what another layer goes on from, or a gradient, has a length that counts.
    """
    scale = np.sqrt(np.mean(np.square(states, dtype=np.float64), axis=1, keepdims=True))
    rows = (states / np.maximum(scale, 1e-30)).astype("<f2")
    scales = scale.astype("<f4").view(np.uint8).reshape(len(states), 4)
    return np.concatenate([scales, rows.view(np.uint8).reshape(len(states), -1)], axis=1).tobytes()


def unpack_scaled(packed: bytes, count: int) -> Floats:
    """What `pack_scaled` packed of `count` states, shape (count, width).

    Raises:
        UnexpectedReplyError: the bytes are not that many states, or hold what is no number.
    """
    width, left = divmod(len(packed) - 4 * count, 2 * count) if count > 0 else (0, 1)
    if left or not 0 < width <= WIDEST:
        raise UnexpectedReplyError(f"{len(packed)} bytes are not {count} states")
    rows = np.frombuffer(packed, np.uint8).reshape(count, -1)
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4")
    found: Floats = np.ascontiguousarray(rows[:, 4:]).view("<f2").astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
        found *= scales
    if (scales < 0).any() or not np.isfinite(found).all():
        raise UnexpectedReplyError("a state holds what is no number")
    return found


def pack_by(name: str, states: Floats) -> bytes:
    """`states`, shape (n, width), by the codec of that name (`wire.codecs`); `pack_scaled` where it is
    empty.

    Raises:
        ValueError: there is no such codec, or a number is not finite.
    """
    return codec(name).pack(states) if name else pack_scaled(states)


def size_by(name: str, count: int, width: int) -> int:
    """How many bytes `pack_by` makes of `count` states."""
    return codec(name).size(count, width) if name else count * (4 + 2 * width)


def unpack_by(name: str, packed: bytes, count: int, width: int = 0) -> Floats:
    """What `pack_by` packed, shape (count, width).

    Args:
        width: may be 0 where no codec is named.

    Raises:
        UnexpectedReplyError: the bytes are not that many states, or hold what is no number.
    """
    if name:
        return codec(name).unpack(packed, count, width)
    found = unpack_scaled(packed, count)
    if width and found.shape[1] != width:
        raise UnexpectedReplyError(f"states of {found.shape[1]} numbers came, not of {width}")
    return found


def parted(states: Floats, lengths: Sequence[int]) -> list[Floats]:
    """The states of each of several texts; of one where `lengths` is empty."""
    ends = np.cumsum(lengths or [len(states)])
    return np.split(states, ends[:-1])
