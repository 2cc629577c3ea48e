"""The closest matrix of a low rank, as its two factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs.base import Floats, checked, finite, sized
from cosilo.boundary.wire.codecs.floats import Fp16

_FP16 = Fp16()


@dataclass(frozen=True)
class LowRank:
    """Of all matrices of rank r the one nearest to the array (Eckart and Young 1936), as (n, r) and
    (d, r), both fp16. Beside what that loses, rounding loses 2^-9 of the array's norm at most.

    Attributes:
        rank: r, or what n and d allow where that is less.

    Raises:
        ValueError: the rank is not positive.
    """

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank {self.rank!r} is not positive")

    @property
    def name(self) -> str:
        return f"lowrank:{self.rank}"

    def size(self, n: int, d: int) -> int:
        r = min(self.rank, n, d)
        return _FP16.size(n, r) + _FP16.size(d, r)

    def pack(self, array: NDArray[np.floating]) -> bytes:
        rows = checked(array).astype(np.float64)
        n, d = rows.shape
        r = min(self.rank, n, d)
        wide = rows if n <= d else rows.T
        # Its left singular vectors, of the smaller side's Gram matrix, scaled so that it is finite.
        scaled = wide / max(np.abs(wide).max(), np.finfo(np.float64).tiny)
        _, vectors = np.linalg.eigh(scaled @ scaled.T)
        # Factors are float32 while they are packed, and the other one is as long as whole rows are.
        left = vectors[:, -r:] * (2.0**20 if np.abs(wide).max() > 2.0**100 else 1.0)
        packed_left = _FP16.pack(left)
        left = _FP16.unpack(packed_left, *left.shape).astype(np.float64)
        # The other factor is fitted to this one as it will be read.
        right = np.linalg.lstsq(left, wide, rcond=None)[0].T
        packed_right = _FP16.pack(right)
        return packed_left + packed_right if n <= d else packed_right + packed_left

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        sized(self, packed, n, d)
        r = min(self.rank, n, d)
        end = _FP16.size(n, r)
        left = _FP16.unpack(packed[:end], n, r)
        right = _FP16.unpack(packed[end:], d, r)
        with np.errstate(over="ignore", invalid="ignore"):
            return finite(left @ right.T)
