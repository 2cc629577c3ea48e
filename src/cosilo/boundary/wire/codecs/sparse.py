"""Each row's numbers of largest magnitude; the others come out as zero.

    which they are ──▶ Elias–Fano: about 2 + log₂(columns / kept) bits each
    what they are  ──▶ fp16, or int8 with a step for each row

Elias–Fano codes ascending numbers: the low bits of each as they are, the high ones as how many more
than the one before, in unary (Elias 1974; Fano 1971).

What is left out is not lost where the sender adds it to what it sends next; see `feedback`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs.base import Codec, Floats, checked, sized
from cosilo.boundary.wire.codecs.floats import Fp16
from cosilo.boundary.wire.codecs.groups import Grouped
from cosilo.errors import UnexpectedReplyError

Integers = NDArray[np.int64]

_FP16, _INT8 = Fp16(), Grouped(8, 0, apart=0)


@dataclass(frozen=True)
class Largest:
    """The largest of each row.

    Attributes:
        fraction: of the columns that are kept, at most a half; one column at least.
        eight: the numbers are int8 with a step for each row, not fp16.

    Raises:
        ValueError: there is no such fraction.
    """

    fraction: float
    eight: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 0.5:
            raise ValueError(f"the fraction {self.fraction!r} is not above 0 and at most 0.5")

    @property
    def name(self) -> str:
        return f"topk:{self.fraction!r}" + ":int8" * self.eight

    def kept(self, d: int) -> int:
        """How many of a row's numbers are sent."""
        return math.ceil(self.fraction * d)

    def size(self, n: int, d: int) -> int:
        k = self.kept(d)
        return sum(_places(n * k, n * d)[1:]) + self._values.size(n, k)

    def pack(self, array: NDArray[np.floating]) -> bytes:
        rows = checked(array)
        n, d = rows.shape
        k = self.kept(d)
        chosen = np.sort(np.argsort(-np.abs(rows), axis=1, kind="stable")[:, :k], axis=1)
        values = self._values.pack(np.take_along_axis(rows, chosen, axis=1))
        return _coded((chosen + np.arange(n)[:, None] * d).ravel(), n * d) + values

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        sized(self, packed, n, d)
        k = self.kept(d)
        values = self._values.size(n, k)
        keys = _decoded(packed[:-values], n * k, n * d)
        if (keys // d != np.repeat(np.arange(n), k)).any():
            raise UnexpectedReplyError("a row has more numbers than others")
        found = np.zeros(n * d, np.float32)
        found[keys] = self._values.unpack(packed[-values:], n, k).ravel()
        return found.reshape(n, d)

    @property
    def _values(self) -> Codec:
        return _INT8 if self.eight else _FP16


def _places(count: int, below: int) -> tuple[int, int, int]:
    """Of so many numbers below a bound: how many low bits each has, in how many bytes all of these are,
    and in how many all high ones."""
    low = (below // count).bit_length() - 1
    return low, -(-count * low // 8), -(-(count + ((below - 1) >> low) + 1) // 8)


def _coded(keys: Integers, below: int) -> bytes:
    low, _, high_bytes = _places(len(keys), below)
    bits = (keys[:, None] >> np.arange(low)) & 1
    high = np.zeros(8 * high_bytes, np.uint8)
    high[(keys >> low) + np.arange(len(keys))] = 1
    return np.packbits(bits.astype(np.uint8)).tobytes() + np.packbits(high).tobytes()


def _decoded(packed: bytes, count: int, below: int) -> Integers:
    low, low_bytes, _ = _places(count, below)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8, low_bytes))
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8, offset=low_bytes)))
    if len(ones) != count or bits[count * low :].any():
        raise UnexpectedReplyError("an array has another number of places than it should")
    keys = (ones - np.arange(count)) << low
    for place in range(low):
        keys |= bits[place : count * low : low].astype(np.int64) << place
    if (np.diff(keys, prepend=-1, append=below) <= 0).any():
        raise UnexpectedReplyError("the places of an array are not in order")
    return keys
