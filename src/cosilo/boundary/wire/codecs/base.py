"""What a codec is, and what each of them looks at."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]


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


def checked(array: NDArray[np.floating]) -> Floats:
    """`array` as float32, where it can be packed."""
    if array.ndim != 2 or not array.size:
        raise ValueError(f"an array of shape {array.shape} has no rows and columns to pack")
    with np.errstate(over="ignore"):  # what is too large for a float32 is infinite then
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError("an array holds what is no number, or one too large")
    return found


def sized(of: Codec, packed: bytes, n: int, d: int) -> None:
    """Refuse `packed` where it is not as long as an array of that shape."""
    if n < 1 or d < 1 or len(packed) != of.size(n, d):
        raise UnexpectedReplyError(f"{len(packed)} bytes are no {of.name} of {n} × {d} numbers")


def finite(array: Floats) -> Floats:
    """`array`, where all of it is a number."""
    if not np.isfinite(array).all():
        raise UnexpectedReplyError("an array holds what is no number")
    return array
