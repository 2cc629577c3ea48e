"""Numbers in four bytes or in two."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs.base import Floats, checked, finite, sized
from cosilo.errors import UnexpectedReplyError

_EXPONENT = struct.Struct("<h")
_TOP = 14  # numbers are scaled so that the largest is from 2^13 to below 2^14
_LARGEST = 16376.0  # the largest float16 below 2^14


@dataclass(frozen=True)
class Fp32:
    """Four bytes a number, little-endian; negative zero is zero."""

    name: str = "fp32"

    def size(self, n: int, d: int) -> int:
        return 4 * n * d

    def pack(self, array: NDArray[np.floating]) -> bytes:
        return (checked(array) + np.float32(0)).astype("<f4").tobytes()

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        sized(self, packed, n, d)
        if (np.frombuffer(packed, "<u4") == 1 << 31).any():
            raise UnexpectedReplyError("an array has a negative zero")
        return finite(np.frombuffer(packed, "<f4").astype(np.float32)).reshape(n, d)


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
        numbers = checked(array).astype(np.float64)
        largest = float(np.abs(numbers).max())
        if largest == 0:
            return _EXPONENT.pack(0) + bytes(2 * numbers.size)
        exponent = int(np.frexp(largest)[1]) - _TOP
        rows = np.ldexp(numbers, -exponent).clip(-_LARGEST, _LARGEST).astype("<f2")
        return _EXPONENT.pack(exponent) + (rows + np.float16(0)).astype("<f2").tobytes()

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        sized(self, packed, n, d)
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
