"""Words that are replaced by others at random: each mechanism as a table of chances, a row a word.

    word ──▶ row of chances over the vocabulary ──▶ one draw ──▶ word

What each promises differs, and their ε cannot be compared:

* **SanText** (Yue et al., arXiv 2106.01221): P(y|x) ∝ exp(−ε d(x, y) / 2). Any two words x, x' can be
  told apart by a factor of exp(ε d(x, x')) at most: metric differential privacy, in the unit of d.
* **CusText** (Chen et al., arXiv 2207.04232): the vocabulary falls into groups of near words, and a
  word is replaced within its own, P(y|x) ∝ exp(ε u(x, y) / 2) with u from 0 to 1. Two words of one
  group differ by exp(ε) at most. Words of two groups have no output in common: no ε holds between them.
* **RANTEXT** (Tong et al., "InferDPT", arXiv 2310.12214): the words nearer than the length R of a
  Laplace vector, P(y|x, R) ∝ exp(ε (1 − d(x, y) / R) / 2). Which words can come out depends on the word
  that goes in, so no ε holds, whatever the setting of that name.

A word that is not in the vocabulary, `UNKNOWN`, is replaced by any word with equal chances. In SanText
it can be told from others no better than a word half as far from all of them as the farthest two are.
Chances are float64 numbers, and what is likely by less than 2⁻⁵³ is not drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

UNKNOWN = -1
"""The word that the vocabulary does not hold."""

LARGEST = 40.0
"""The largest ε: from about there on, float64 numbers cannot hold the chances of the farthest words."""

_RADII = 64
_AT_ONCE = 256


class WordKernel(Protocol):
    """A mechanism on the words of a vocabulary, numbered from 0 on."""

    @property
    def size(self) -> int:
        """Words in the vocabulary."""

    @property
    def bound(self) -> float | None:
        """The ε of one word, between any two words that its relation speaks of; None for no ε."""

    def rows(self, words: Sequence[int]) -> Floats:
        """The chance of each output, given each of `words`: shape (len(words), size), rows sum to 1."""

    def draw(self, words: Sequence[int], source: random.Random) -> list[int]:
        """What to say in the place of each of `words`."""


@dataclass(frozen=True, eq=False)
class SanText:
    """Replaces a word by any other, the nearer the likelier.

    Args:
        vectors: of the words, shape (size, width); Euclidean distance between them is the metric.
        epsilon: for each unit of distance.
    """

    vectors: Vectors
    epsilon: float

    def __post_init__(self) -> None:
        check(self.epsilon)

    @property
    def size(self) -> int:
        return len(self.vectors)

    @cached_property
    def bound(self) -> float:
        """ε between the two words that can be told apart best, `UNKNOWN` among them: the largest
        log-ratio of two chances of one output. At most ε times the largest distance there is."""
        most = np.full(self.size, -math.log(self.size))
        least = most.copy()
        for start in range(0, self.size, _AT_ONCE):
            far = distances(self.vectors[start : start + _AT_ONCE], self.vectors)
            far *= -self.epsilon / 2
            far -= np.log(np.exp(far).sum(axis=1, keepdims=True))
            np.maximum(most, far.max(axis=0), out=most)
            np.minimum(least, far.min(axis=0), out=least)
        return float((most - least).max())

    def rows(self, words: Sequence[int]) -> Floats:
        return _known(words, self.size, self._rows)

    def _rows(self, words: Sequence[int]) -> Floats:
        weights: Floats = np.exp(-self.epsilon / 2 * distances(self.vectors[words], self.vectors))
        weights /= weights.sum(axis=1, keepdims=True)
        return weights

    def draw(self, words: Sequence[int], source: random.Random) -> list[int]:
        starts = range(0, len(words), _AT_ONCE)
        rows = (row for i in starts for row in self.rows(words[i : i + _AT_ONCE]))
        return [_drawn(row, source) for row in rows]


@dataclass(frozen=True, eq=False)
class CusText:
    """Replaces a word by one of its group, the nearer the likelier.

    Args:
        group: words in a group; the last one has up to twice as many.
    """

    vectors: Vectors
    epsilon: float
    group: int = 20

    def __post_init__(self) -> None:
        check(self.epsilon)
        if not 2 <= self.group <= len(self.vectors):
            raise ValueError(
                f"group = {self.group!r} is not between 2 and the vocabulary's {len(self.vectors)}"
            )

    @property
    def size(self) -> int:
        return len(self.vectors)

    @property
    def bound(self) -> float:
        """ε between two words of one group; across groups there is none."""
        return self.epsilon

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], ...]:
        """The words of each group: in turn the commonest word that is left, and those nearest to it."""
        left = np.arange(self.size)
        found = []
        while len(left) >= 2 * self.group:
            near = np.argpartition(
                distances(self.vectors[left[:1]], self.vectors[left])[0], self.group
            )
            chosen = near[: self.group]
            if 0 not in chosen:  # words with one vector
                chosen[0] = 0
            found.append(np.sort(left[chosen]))
            left = np.delete(left, chosen)
        return (*found, left)

    @cached_property
    def group_of(self) -> NDArray[np.int64]:
        """The number of each word's group."""
        found = np.empty(self.size, np.int64)
        for number, members in enumerate(self.groups):
            found[members] = number
        return found

    def rows(self, words: Sequence[int]) -> Floats:
        return _known(words, self.size, self._rows)

    def _rows(self, words: Sequence[int]) -> Floats:
        found = np.zeros((len(words), self.size))
        for row, word in zip(found, words, strict=True):
            members = self.groups[self.group_of[word]]
            row[members] = self._within(word, members)
        return found

    def _within(self, word: int, members: NDArray[np.int64]) -> Floats:
        far = distances(self.vectors[[word]], self.vectors[members])[0]
        near = 1 - (far - far.min()) / max(float(np.ptp(far)), 1e-12)
        weights: Floats = np.exp(self.epsilon / 2 * near)
        weights /= weights.sum()
        return weights

    def draw(self, words: Sequence[int], source: random.Random) -> list[int]:
        return [self._draw(word, source) for word in words]

    def _draw(self, word: int, source: random.Random) -> int:
        if word == UNKNOWN:
            return source.randrange(self.size)
        members = self.groups[self.group_of[word]]
        return int(members[_drawn(self._within(word, members), source)])


@dataclass(frozen=True, eq=False)
class RanText:
    """Replaces a word by one that is nearer than a random distance, the nearer the likelier.

    The noise's scale follows the paper: each dimension's range over ε up to 2, and over
    0.0166 ln(19.06 ε − 38.13) + 9.31 from there on, which is 9.4 for any ε from 3 to 18: the distance
    hardly depends on ε then, and jumps where ε passes 2.
    """

    vectors: Vectors
    epsilon: float

    bound: None = None

    def __post_init__(self) -> None:
        check(self.epsilon)

    @property
    def size(self) -> int:
        return len(self.vectors)

    @cached_property
    def scales(self) -> Floats:
        """Of the Laplace noise in each dimension."""
        divisor = self.epsilon
        if self.epsilon > 2.001:  # below, the logarithm has no value
            divisor = 0.0166 * math.log(19.06 * self.epsilon - 38.13) + 9.31
        ranges: Floats = np.ptp(self.vectors, axis=0).astype(np.float64) / divisor
        return ranges

    def radius(self, source: random.Random) -> float:
        """The length of a Laplace vector: the difference of two exponential draws in each dimension."""
        return math.sqrt(
            math.fsum(
                (scale * (source.expovariate(1.0) - source.expovariate(1.0))) ** 2
                for scale in self.scales.tolist()
            )
        )

    @cached_property
    def radii(self) -> tuple[float, ...]:
        """Some draws of the radius that everybody can make: what `rows` averages over."""
        source = random.Random(0)
        return tuple(self.radius(source) for _ in range(_RADII))

    def rows(self, words: Sequence[int]) -> Floats:
        def averaged(known: Sequence[int]) -> Floats:
            far = distances(self.vectors[known], self.vectors)
            found: Floats = np.mean([self._within(far, radius) for radius in self.radii], axis=0)
            return found

        return _known(words, self.size, averaged)

    def within(self, words: Sequence[int], radius: float) -> Floats:
        """The rows of `words` where the random distance is `radius`."""
        far = distances(self.vectors[words], self.vectors)
        return self._within(far, radius)

    def _within(self, far: Floats, radius: float) -> Floats:
        near = np.maximum(1 - far / radius, 0.0)
        weights = np.where(near > 0, np.exp(self.epsilon / 2 * near), 0.0)
        found: Floats = weights / weights.sum(axis=1, keepdims=True)
        return found

    def draw(self, words: Sequence[int], source: random.Random) -> list[int]:
        return [self._draw(word, source) for word in words]

    def _draw(self, word: int, source: random.Random) -> int:
        if word == UNKNOWN:
            return source.randrange(self.size)
        return _drawn(self.within([word], self.radius(source))[0], source)


@dataclass(frozen=True, eq=False)
class Sparing:
    """A mechanism that keeps common words (SanText+, CusText+). They are not protected.

    Args:
        kept: the vocabulary's first so many words may stay.
        chance: how often such a word does; else it is replaced like the others.
    """

    inner: WordKernel
    kept: int
    chance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.kept <= self.inner.size:
            raise ValueError(
                f"kept = {self.kept!r} is not between 0 and the vocabulary's {self.inner.size}"
            )
        if not 0 <= self.chance <= 1:
            raise ValueError(f"chance = {self.chance!r} is not between 0 and 1")

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def bound(self) -> float | None:
        """ε between two words that are not among the kept ones."""
        return self.inner.bound

    def rows(self, words: Sequence[int]) -> Floats:
        found = self.inner.rows(words)
        for row, word in zip(found, words, strict=True):
            if 0 <= word < self.kept:
                row *= 1 - self.chance
                row[word] += self.chance
        return found

    def draw(self, words: Sequence[int], source: random.Random) -> list[int]:
        stays = [0 <= word < self.kept and source.random() < self.chance for word in words]
        drawn = self.inner.draw(words, source)
        return [w if stay else d for w, stay, d in zip(words, stays, drawn, strict=True)]


def kernel(
    kind: str,
    vectors: Vectors,
    epsilon: float,
    *,
    group: int = 20,
    kept: int = 0,
    chance: float = 1.0,
) -> WordKernel:
    """The mechanism called `kind`, with some words kept where `kept` says so.

    Raises:
        ValueError: there is none, or one of the numbers is impossible.
    """
    found: WordKernel
    match kind:
        case "santext":
            found = SanText(vectors, epsilon)
        case "custext":
            found = CusText(vectors, epsilon, group)
        case "rantext":
            found = RanText(vectors, epsilon)
        case _:
            raise ValueError(f"mechanism = {kind!r} is none of santext, custext, rantext")
    return Sparing(found, kept, chance) if kept else found


def check(epsilon: float) -> None:
    """Refuse an ε that no mechanism here can have.

    Raises:
        ValueError: it is one.
    """
    if not 0 < epsilon <= LARGEST:
        raise ValueError(f"epsilon = {epsilon!r} is not above 0 and up to {LARGEST:g}")


def distances(some: Vectors, others: Vectors) -> Floats:
    """Between each of `some` and each of `others`: shape (len(some), len(others)).

    Raises:
        ValueError: a vector holds what is no number.
    """
    square = np.einsum("ij,ij->i", some, some, dtype=np.float64)[:, None]
    others_square = np.einsum("ij,ij->i", others, others, dtype=np.float64)[None]
    # OpenBLAS reads whole registers, so that what lies in memory behind a row may raise the flag.
    with np.errstate(invalid="ignore", over="ignore"):
        product = (some @ others.T).astype(np.float64)
    if not (np.isfinite(product).all() and np.isfinite(square).all()):
        raise ValueError("a word's vector holds what is no number, so no distance can be told")
    found: Floats = np.sqrt(np.maximum(square + others_square - 2 * product, 0.0))
    return found


def _known(words: Sequence[int], size: int, rows: Callable[[Sequence[int]], Floats]) -> Floats:
    """`rows` of the words that the vocabulary holds, and even chances for the others."""
    found = np.full((len(words), size), 1 / size)
    known = [i for i, word in enumerate(words) if word != UNKNOWN]
    if known:
        found[known] = rows([words[i] for i in known])
    return found


def _drawn(chances: Floats, source: random.Random) -> int:
    ends = np.cumsum(chances)
    return int(np.searchsorted(ends, source.random() * ends[-1], side="right"))
