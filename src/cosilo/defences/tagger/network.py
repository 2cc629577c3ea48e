"""A small network that says of each word whether it is part of a name, and of what.

    rows ─▶ sum of their vectors ─▶ layers that look at neighbours ─▶ a share for each kind

Hashed word vectors under convolutions, as spaCy's taggers have them (Honnibal and others 2020), in
numpy: no more than that is needed to run it. `benchmarks/pseudonyms/train_names.py` makes the file.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np

from cosilo.defences.tagger.reading import Floats, Ints, Lists, ReadWords

DILATIONS = (1, 2, 4)
"""How far apart the three words are that each layer looks at."""


class TaggerNetwork:
    """The tagger's weights.

    Args:
        file: `names.npz`: `table` (rows, width) int8 with a `scale` for each row, the layers, and the
            word lists.
    """

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as held:
            data = {name: held[name] for name in held.files}
        self._table = data["table"]
        self._scale: Floats = data["scale"].astype(np.float32)
        self._layers = [
            (data[f"weight{i}"].astype(np.float32), data[f"bias{i}"].astype(np.float32))
            for i in range(len(DILATIONS) + 2)
        ]
        self.lists = Lists(data["common"], data["known"], data["names"])

    def shares(self, seen: ReadWords) -> Floats:
        """Of each word of `seen` the share of each kind, the first of which is none; (n, kinds)."""
        n = len(seen.words)
        if not n:
            return np.zeros((0, self._layers[-1][1].size), np.float32)
        state = np.zeros((-(-n // _BLOCK) * _BLOCK, self._table.shape[1]), np.float32)
        state[:n] = self._vectors(seen)
        state = _positive(_times(state, self._layers[0][0]) + self._layers[0][1])
        for (weight, bias), apart in zip(self._layers[1:-1], DILATIONS, strict=True):
            size, width = state.shape
            around = np.zeros((size + 2 * apart, width), np.float32)
            around[apart : apart + n] = _even(state[:n])
            made = sum(
                _times(around[apart * i : apart * i + size], weight[width * i : width * (i + 1)])
                for i in range(3)
            )
            state = state + _positive(made + bias)
        scores = _times(_even(state), self._layers[-1][0])[:n] + self._layers[-1][1]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: Floats = scores / scores.sum(axis=1, keepdims=True)
        return shares

    def _vectors(self, seen: ReadWords) -> Floats:
        """The sum of each word's rows; its letters' groups count less the more there are."""
        counts = np.fromiter(map(len, seen.rows), np.int64, len(seen.rows))
        flat = np.fromiter(chain.from_iterable(seen.rows), np.int64, int(counts.sum()))
        weights = self._scale[flat] * group_weights(counts)
        parts = self._table[flat].astype(np.float32) * weights[:, None]
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
        letters = np.add.reduceat(parts, starts, axis=0)[seen.words]
        forms = self._table[seen.forms].astype(np.float32) * self._scale[seen.forms][..., None]
        total: Floats = letters + forms.sum(axis=1)
        return total


_BLOCK = 64  # words; OpenBLAS takes one thread for products up to 64 × 64 × 64

WHOLE = 6
"""Of a word's rows so many, the first, count in full: the whole word, its beginnings, its ends."""


def group_weights(counts: Ints) -> Floats:
    """The weight of each row of words that have `counts` of them, one word after the other."""
    starts = np.cumsum(counts) - counts
    place = np.arange(int(counts.sum())) - np.repeat(starts, counts)
    rest = np.repeat(1 / np.sqrt(np.maximum(counts - WHOLE, 1)), counts)
    return np.where(place < WHOLE, 1, rest).astype(np.float32)


def _times(values: Floats, weight: Floats) -> Floats:
    """`values @ weight`, in blocks so small that BLAS takes one thread for each: several would wait for
    each other longer than they work.
    """
    blocks = values.reshape(-1, _BLOCK, values.shape[1])
    made: Floats = (blocks @ weight).reshape(-1, weight.shape[1])
    return made


def _positive(values: Floats) -> Floats:
    return np.maximum(values, 0)


def _even(values: Floats) -> Floats:
    """`values` with mean 0 and deviation 1 in each row."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread: Floats = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return spread
