"""A vocabulary in the order of its spellings: tokens that begin with the same bytes lie together.

0  a          after "a":  rows 0–2; row 0 ends there, the others go on with b"b"
1  ab
2  abc
3  b
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ENDED = 256
"""Stands where a spelling has no further byte."""


class Spellings:
    """Tokens by what they stand for; those that stand for nothing are left out.

    Attributes:
        order: indexes into `pieces`, sorted by spelling; equal ones keep their order.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        said = [i for i, piece in enumerate(pieces) if piece]
        self.order: NDArray[np.int64] = np.array(sorted(said, key=pieces.__getitem__), np.int64)
        chosen = [pieces[i] for i in self.order]
        self._bytes = np.frombuffer(b"".join(chosen), np.uint8)
        self._lengths = np.array([len(p) for p in chosen], np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths

    def __len__(self) -> int:
        return len(self.order)

    def column(self, low: int, high: int, depth: int) -> NDArray[np.int64]:
        """The byte at place `depth` of each of the spellings from `low` to `high`, `ENDED` where there
        is none."""
        found = np.full(high - low, ENDED, np.int64)
        longer = np.flatnonzero(self._lengths[low:high] > depth)
        found[longer] = self._bytes[self._starts[low:high][longer] + depth]
        return found

    def narrowed(self, low: int, high: int, depth: int, byte: int) -> tuple[int, int, int]:
        """Of the spellings from `low` to `high`, which begin with the same `depth` bytes and are
        longer: where those lie that go on with `byte`, and from where on they are longer still.

        Returns:
            (low, middle, high): from low to middle they end with it, from middle to high they go on.
        """
        column = self.column(low, high, depth)
        first, last = np.searchsorted(column, [byte, byte + 1])
        ends = self._lengths[low + first : low + last] == depth + 1
        return low + int(first), low + int(first) + int(ends.sum()), low + int(last)
