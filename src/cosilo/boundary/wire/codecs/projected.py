"""States in a basis that was learned from others: where both sides have it, only coordinates cross.

No strategy calls it yet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs.base import Codec, Floats, checked, finite
from cosilo.errors import UnexpectedReplyError


@dataclass(frozen=True, eq=False)
class Projected:
    """Coordinates in an orthonormal basis around a mean, packed by another codec.

    A plan cannot name it: both sides make it of the same arrays, and its name says by a digest of them
    whether they are.

    Attributes:
        basis: shape (d, r), orthonormal columns.
        mean: shape (d,).
        coordinates: the codec of an array (n, r).
    """

    basis: Floats
    mean: Floats
    coordinates: Codec
    name: str = field(init=False)

    def __post_init__(self) -> None:
        d, r = self.basis.shape
        if self.mean.shape != (d,) or not 0 < r <= d:
            raise ValueError(f"{self.basis.shape} and {self.mean.shape} are no basis and its mean")
        content = self.basis.astype("<f4").tobytes() + self.mean.astype("<f4").tobytes()
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        object.__setattr__(self, "name", f"projected:{r}:{digest}:{self.coordinates.name}")

    @classmethod
    def learned(cls, rows: NDArray[np.floating], rank: int, coordinates: Codec) -> Projected:
        """The basis that loses least of `rows`, shape (n, d), in squares (principal components).

        Raises:
            ValueError: there are not `rank` directions in them, or what is no number.
        """
        numbers = checked(rows).astype(np.float64)
        n, d = numbers.shape
        if not 0 < rank <= min(n - 1, d):
            raise ValueError(f"{n} rows of {d} columns have no {rank} principal components")
        mean = numbers.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(numbers, rowvar=False, bias=True).reshape(d, d))
        basis = np.ascontiguousarray(vectors[:, : -rank - 1 : -1])
        return cls(basis.astype(np.float32), mean.astype(np.float32), coordinates)

    def size(self, n: int, d: int) -> int:
        return self.coordinates.size(n, self.basis.shape[1])

    def pack(self, array: NDArray[np.floating]) -> bytes:
        rows = checked(array)
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"the basis is of {len(self.mean)} columns, not of {rows.shape[1]}")
        return self.coordinates.pack((rows - self.mean) @ self.basis)

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        if d != len(self.mean):
            raise UnexpectedReplyError(f"a basis of {len(self.mean)} columns has no rows of {d}")
        found = self.coordinates.unpack(packed, n, self.basis.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            return finite(found @ self.basis.T + self.mean)
