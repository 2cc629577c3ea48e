"""Arrays of numbers in few bytes: what states, gradients and weights are sent as.

    array (n, d) ─ pack ─▶ size(n, d) bytes ─ unpack(·, n, d) ─▶ array (n, d), float32

A codec is named by a text, so that a plan and a message can name it:

    fp32            as they are
    fp16            two bytes a number, with one power of two for all

How many bytes come out depends on the shape alone, never on the numbers, and is checked before anything
is unpacked. What is packed twice is the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]

_EXPONENT = struct.Struct("<h")
_TOP = 14  # numbers are scaled so that the largest is from 2^13 to below 2^14
_LARGEST = 16376.0  # the largest float16 below 2^14


class Codec(Protocol):
    """A way to pack an array of `n` rows and `d` columns."""

    @property
    def name(self) -> str:
        """What `codec` makes it of."""

    def size(self, n: int, d: int) -> int:
        """How many bytes it packs an array of that shape into, whatever stands in it."""

    def pack(self, array: NDArray[np.floating]) -> bytes:
        """`array`, shape (n, d), in `size(n, d)` bytes.

        Raises:
            ValueError: it has another number of dimensions, no numbers, or one that is not finite as
                a float32.
        """

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        """What `pack` was given, up to what the codec loses, shape (n, d).

        Raises:
            UnexpectedReplyError: the bytes are not such an array.
        """


@dataclass(frozen=True)
class Fp32:
    """Four bytes a number, little-endian; negative zero is zero."""

    name: str = "fp32"

    def size(self, n: int, d: int) -> int:
        return 4 * n * d

    def pack(self, array: NDArray[np.floating]) -> bytes:
        return (_checked(array) + np.float32(0)).astype("<f4").tobytes()

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        _sized(self, packed, n, d)
        if (np.frombuffer(packed, "<u4") == 1 << 31).any():
            raise UnexpectedReplyError("an array has a negative zero")
        found = np.frombuffer(packed, "<f4").astype(np.float32)
        if not np.isfinite(found).all():
            raise UnexpectedReplyError("an array holds what is no number")
        return found.reshape(n, d)


@dataclass(frozen=True)
class Fp16:
    """Two bytes a number, and a power of two that all were divided by, so that the largest is from
    2^13 to below 2^14.

    Each number is within 2^-11 of itself, or 2^-38 of the largest one: gradients of 1e-9 are as
    exact as states of 1e5. What comes out packs into the same bytes again.
    """

    name: str = "fp16"

    def size(self, n: int, d: int) -> int:
        return _EXPONENT.size + 2 * n * d

    def pack(self, array: NDArray[np.floating]) -> bytes:
        numbers = _checked(array).astype(np.float64)
        largest = float(np.abs(numbers).max())
        if largest == 0:
            return _EXPONENT.pack(0) + bytes(2 * numbers.size)
        exponent = int(np.frexp(largest)[1]) - _TOP
        rows = np.ldexp(numbers, -exponent).clip(-_LARGEST, _LARGEST).astype("<f2")
        return _EXPONENT.pack(exponent) + (rows + np.float16(0)).astype("<f2").tobytes()

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        _sized(self, packed, n, d)
        (exponent,) = _EXPONENT.unpack_from(packed)
        rows = np.frombuffer(packed, "<f2", offset=_EXPONENT.size)
        if (np.frombuffer(packed, "<u2", offset=_EXPONENT.size) == 1 << 15).any():
            raise UnexpectedReplyError("an array has a negative zero")
        largest = float(np.abs(rows).max())
        if not 2 ** (_TOP - 1) <= largest < 2**_TOP and (largest, exponent) != (0, 0):
            raise UnexpectedReplyError("an array is not scaled, or holds what is no number")
        with np.errstate(over="ignore", under="ignore"):  # looked at below
            found: Floats = np.ldexp(rows.astype(np.float32), exponent)
            if not (np.ldexp(found, -exponent) == rows).all():
                raise UnexpectedReplyError("an array holds numbers that no float32 can be")
        return found.reshape(n, d)


def codec(name: str) -> Codec:
    """The codec of that name.

    Raises:
        ValueError: there is none.
    """
    known: dict[str, Codec] = {"fp32": Fp32(), "fp16": Fp16()}
    if name not in known:
        raise ValueError(f"no codec named {name!r} (known: {', '.join(known)})")
    return known[name]


def _checked(array: NDArray[np.floating]) -> Floats:
    if array.ndim != 2 or not array.size:
        raise ValueError(f"an array of shape {array.shape} has no rows and columns to pack")
    with np.errstate(over="ignore"):  # what is too large for a float32 is infinite then
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError("an array holds what is no number, or one too large")
    return found


def _sized(of: Codec, packed: bytes, n: int, d: int) -> None:
    if n < 1 or d < 1 or len(packed) != of.size(n, d):
        raise UnexpectedReplyError(f"{len(packed)} bytes are no {of.name} of {n} × {d} numbers")
