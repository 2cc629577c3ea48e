"""Finding given values in a text: to the letter, normalised, and with a few edits.

A `Pool` is built once over many values and then asked about many texts; the work per text depends
on the text's length and on what it shares with the pool, not on the pool's size.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PREFIX = 4  # characters a value is looked up by
_GRAM = 3
_CHARACTERS_PER_EDIT = 6
_MOST_EDITS = 16
_PART = 0.6  # of a value's characters, in whole words that follow one another
_SHORTEST_PART = 5
_FEW_WORDS = 12

_NUMBER = re.compile(r"(?<![\w.,])(\d{1,3}(?:[.,'’]\d{3})+|\d+)(?:[.,](\d{1,2}))?(?![\w]|[.,]\d)")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text in which values are looked for: where one may start, and where one may end."""

    text: str
    starts: tuple[int, ...]
    ends: frozenset[int]


Fold = Callable[[str], Folded]


def as_written(text: str) -> Folded:
    """`text` itself; a value may start and end anywhere but inside a run of letters and digits."""
    edges = [
        i
        for i in range(len(text) + 1)
        if i in (0, len(text)) or not (text[i - 1].isalnum() and text[i].isalnum())
    ]
    return Folded(text, tuple(edges[:-1]), frozenset(edges[1:]))


def normalised(text: str) -> Folded:
    """One case, no accents, no spaces or signs, numbers written one way.

    "José  Müller-Lüdenscheidt" becomes "josemullerludenscheidt" and "1.200,50" and "1,200.5" both
    become "1200d5". Values start and end where words of the original do.
    """
    # Decomposing first makes full-width and superscript digits plain ones.
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    plain = _NUMBER.sub(_one_way, plain)
    words = _WORD.findall(plain)
    starts, ends, at = [], [], 0
    for word in words:
        starts.append(at)
        at += len(word)
        ends.append(at)
    return Folded("".join(words), tuple(starts), frozenset(ends))


def _one_way(number: re.Match[str]) -> str:
    whole, fraction = re.sub(r"\D", "", number[1]), (number[2] or "").rstrip("0")
    return f"{whole}d{fraction}" if fraction else whole


class Pool:
    """Values to look for, under one way of folding; they are named by their position."""

    def __init__(self, values: Sequence[str], fold: Fold) -> None:
        self.folded = [fold(value).text for value in values]
        self._by_prefix: dict[str, list[int]] = {}
        for i, value in enumerate(self.folded):
            if value:
                self._by_prefix.setdefault(value[:_PREFIX], []).append(i)
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix})

    def found(self, text: Folded) -> set[int]:
        """Which values stand in `text`, by their positions in the pool."""
        hits = set()
        for start in text.starts:
            for length in self._lengths:
                for i in self._by_prefix.get(text.text[start : start + length], ()):
                    value = self.folded[i]
                    if start + len(value) in text.ends and text.text.startswith(value, start):
                        hits.add(i)
        return hits


class FuzzyPool:
    """Normalised values to look for with a few edits or with words missing at their ends.

    Edits: one per six characters, rounded down, and 16 at most; shorter values must match exactly,
    because one edit turns many a short name into an ordinary word. Missing words: what is left must
    hold 60 % of the characters, and five at least.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self._exact = Pool(values, normalised)
        parts = [(i, part) for i, value in enumerate(values) for part in _parts(normalised(value))]
        self._parts = Pool([part for _, part in parts], normalised)
        self._whole = [i for i, _ in parts]  # the value that each part is of
        postings: dict[str, list[int]] = {}
        wanted = np.zeros(len(values), dtype=np.int64)
        for i, value in enumerate(self._exact.folded):
            if edits(value):
                grams = set(_grams(value))
                wanted[i] = max(1, len(grams) - _GRAM * edits(value))
                for gram in grams:
                    postings.setdefault(gram, []).append(i)
        self._wanted = wanted  # how many of a value's trigrams survive its edits; 0: not fuzzy
        self._postings = {gram: np.array(found) for gram, found in postings.items()}

    def found(self, text: Folded) -> dict[int, float]:
        """Each value that stands in `text`, and how similar it is, above 0 to 1: 1 − edits ÷ length
        or, where words are missing, the share of its characters that are there.
        """
        found = dict.fromkeys(self._exact.found(text), 1.0)
        for k in self._parts.found(text):
            i = self._whole[k]
            share = len(self._parts.folded[k]) / len(self._exact.folded[i])
            found[i] = max(share, found.get(i, 0.0))
        for i in self._promising(text):
            if found.get(i) != 1.0 and (
                similarity := self._similarity(self._exact.folded[i], text)
            ):
                found[i] = max(similarity, found.get(i, 0.0))
        return found

    def _promising(self, text: Folded) -> list[int]:
        hits = [self._postings[gram] for gram in set(_grams(text.text)) if gram in self._postings]
        if not hits:
            return []
        counts = np.bincount(np.concatenate(hits), minlength=len(self._wanted))
        enough: NDArray[np.int_] = np.flatnonzero((self._wanted > 0) & (counts >= self._wanted))
        return [int(i) for i in enough]

    def _similarity(self, value: str, text: Folded) -> float:
        limit = edits(value)
        least = max(1, len(set(_grams(value))) - _GRAM * limit)
        places = sorted(p for gram in set(_grams(value)) for p in _places(gram, text.text))
        best = limit + 1
        for start in text.starts:
            stop = start + len(value) + limit
            if bisect_left(places, stop) - bisect_left(places, start) >= least:
                for length, distance in enumerate(_distances(value, text.text[start:stop])):
                    if distance < best and start + length in text.ends:
                        best = distance
        return 1 - best / len(value) if best <= limit else 0.0


def _parts(value: Folded) -> Iterator[str]:
    """The runs of words, short of all, that hold enough of `value`; of a long one, a whole text
    perhaps, those that reach its start or end (there are quadratically many others)."""
    size = len(value.text)
    least = max(_SHORTEST_PART, _PART * size)
    few = len(value.starts) <= _FEW_WORDS
    ends = sorted(value.ends)
    for start in value.starts:
        for end in ends:
            if least <= end - start < size and (few or start == 0 or end == size):
                yield value.text[start:end]


def edits(value: str) -> int:
    """How many edits a value may have and still be found."""
    return min(len(value) // _CHARACTERS_PER_EDIT, _MOST_EDITS)


def _grams(text: str) -> Iterator[str]:
    return (text[i : i + _GRAM] for i in range(len(text) - _GRAM + 1))


def _places(gram: str, text: str) -> Iterator[int]:
    at = text.find(gram)
    while at >= 0:
        yield at
        at = text.find(gram, at + 1)


def _distances(value: str, text: str) -> Iterator[int]:
    """The edit distance of `value` to every prefix of `text`, the empty one first.

    Myers' bit-parallel algorithm (JACM 1999) in Hyyrö's form, anchored at the start of the text.
    """
    size = len(value)
    mask, last = (1 << size) - 1, 1 << (size - 1)
    occurs: dict[str, int] = {}
    for i, character in enumerate(value):
        occurs[character] = occurs.get(character, 0) | (1 << i)
    positive, negative, distance = mask, 0, size
    yield distance
    for character in text:
        equal = occurs.get(character, 0)
        diagonal = (((equal & positive) + positive) ^ positive) | equal | negative
        across_up = negative | (~(diagonal | positive) & mask)
        across_down = diagonal & positive
        distance += bool(across_up & last) - bool(across_down & last)
        across_up = ((across_up << 1) | 1) & mask
        across_down = (across_down << 1) & mask
        positive = across_down | (~(diagonal | across_up) & mask)
        negative = across_up & diagonal
        yield distance
