"""Which texts nearly repeat an earlier one.

Two texts are as alike as the Jaccard index of their character 4-grams, case, signs and spacing aside.
Candidates come from MinHash signatures in bands (Broder, "On the resemblance and containment of
documents", 1997); each is then compared exactly, so nothing is called a duplicate that is none, and
a pair that is alike by 0.7 or more is missed with a probability below 0.0002.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

_GRAM = 4
_BANDS, _ROWS = 32, 4


class Repeats:
    """Remembers texts, and tells whether a new one nearly repeats one of them.

    Args:
        least: how alike two texts are that count as one, 0 to 1.
    """

    def __init__(self, *, least: float = 0.7) -> None:
        self.least = least
        self._grams: list[frozenset[str]] = []
        self._bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)

    def add(self, text: str) -> bool:
        """Remember `text` unless it repeats one; whether it was new."""
        grams = frozenset(_grams(text))
        keys = _keys(grams)
        near = {i for key in keys for i in self._bands.get(key, ())}
        if any(_jaccard(grams, self._grams[i]) >= self.least for i in near):
            return False
        for key in keys:
            self._bands[key].append(len(self._grams))
        self._grams.append(grams)
        return True


def new(texts: Sequence[str], *, least: float = 0.7) -> list[bool]:
    """For each text, whether no earlier one that is new is nearly the same."""
    seen = Repeats(least=least)
    return [seen.add(text) for text in texts]


def alike(a: str, b: str) -> float:
    """The Jaccard index of two texts' 4-grams: 1 when they say the same, 0 when they share none."""
    return _jaccard(frozenset(_grams(a)), frozenset(_grams(b)))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def _grams(text: str) -> Iterable[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join("".join(c if c.isalnum() else " " for c in plain).split())
    padded = f" {words} "
    return (padded[i : i + _GRAM] for i in range(max(1, len(padded) - _GRAM + 1)))


def _keys(grams: frozenset[str]) -> list[tuple[int, bytes]]:
    mixed = np.fromiter((zlib.crc32(g.encode()) for g in grams), np.uint64, len(grams))[:, None]
    mixed = mixed ^ _SEEDS
    for factor in _MIX:  # MurmurHash3's finaliser; products wrap around
        mixed = (mixed ^ (mixed >> np.uint64(33))) * factor
    bands = mixed.min(axis=0).reshape(_BANDS, _ROWS)
    return [(i, band.tobytes()) for i, band in enumerate(bands)]


_SEEDS = np.random.default_rng(1997).integers(1 << 63, size=_BANDS * _ROWS, dtype=np.uint64)
_MIX = np.array([0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53], np.uint64)
