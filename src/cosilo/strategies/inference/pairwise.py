"""A ranker that compares answers two by two, learned from items where one is better than the other.

    question, answer A, answer B ─▶ encoder ─▶ s(A, B) = −s(B, A)
    answers A, B, C: s(A, B) + s(A, C), s(B, A) + s(B, C), … ─▶ the largest is answered

Jiang et al., "LLM-Blender: Ensembling Large Language Models with Pairwise Ranking and Generative
Fusion" (arXiv 2306.02561): PairRanker reads two answers at once, and what it says over all pairs ranks
them. They fine-tune a cross-encoder on both orders of each pair; here the encoder stays as it is, and s
is a kernel regression whose kernel is antisymmetric, so that no order has to be learned. It does not
know who gave an answer, only how many did. So it can rank models that it has never seen, and the order
in which they come means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.strategies.inference.pairs import Answers, Floats, Pairs, kernels
from cosilo.strategies.saved import reading

PARTS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
"""Weights of what is linear in the answers' vectors, and of what is not, that are tried."""
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0)
FOLDS = 5
MOST_PAIRS = 1000


@dataclass(frozen=True, eq=False)
class PairRanker:
    """A learned s.

    Attributes:
        pairs, weights: what it has learned from, and what each counts, shape (pairs,). They hold
            vectors of the owner's examples, and are as private as these.
        parts: weights of the kernels beside that of the votes.
        penalty: of the regression.
        sure: of a 1, the share of those asked that agree, the margin over the nearest rival, and
            whether there is no rival: the log-odds that the answer is right, shape (4,).
    """

    pairs: Pairs
    weights: Floats
    parts: tuple[float, float]
    penalty: float
    sure: Floats

    file: ClassVar[str] = "pairwise.npz"

    def margins(self, answers: Answers) -> Floats:
        """s of each two of `answers`, antisymmetric, shape (answers, answers)."""
        return margins(self.pairs, self.weights, self.parts, answers)

    def choose(self, answers: Answers) -> tuple[int, float]:
        """The place of the best of `answers`, and how likely it is right; one answer at least."""
        best, margin = chosen(self.margins(answers))
        odds = float(self.sure @ _about(answers, best, margin))
        return best, float(1 / (1 + np.exp(-np.clip(odds, -30, 30))))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        questions, firsts, seconds, votes = self.pairs.arrays()
        np.savez_compressed(
            folder / self.file,
            questions=questions,
            firsts=firsts,
            seconds=seconds,
            votes=votes,
            weights=self.weights,
            settings=np.array([*self.parts, self.penalty]),
            sure=self.sure,
        )

    @classmethod
    def load(cls, folder: Path) -> PairRanker:
        """What `save` wrote.

        Raises:
            ConfigError: it is not there, or none.
        """
        with reading(folder / cls.file, "learned ranker") as held:
            found = {name: np.asarray(held[name], np.float64) for name in held.files}
            names = ("questions", "firsts", "seconds", "votes")
            linear, both, penalty = found["settings"].tolist()
            pairs = Pairs(*(found[name] for name in names))
            return cls(pairs, found["weights"], (linear, both), penalty, found["sure"])

    @classmethod
    def fit(cls, items: Sequence[Answers], *, seed: int = 0) -> PairRanker:
        """From items whose answers have grades; settings by cross-validation over the items.

        A pair is learned from where one answer has the better grade. Of more than 1,000 as many are
        drawn by `seed`. Where there is none, votes are counted.
        """
        rng = np.random.default_rng(seed)
        folds = rng.permutation(len(items)) % FOLDS
        pairs, gaps, owners = _graded(items, rng)
        if pairs is None:
            width = items[0].vectors.shape[1]
            nothing = np.zeros((1, width))
            unlearned = Pairs(nothing, nothing, nothing, np.ones(1))
            counted = [chosen(margins(unlearned, np.ones(1), (0, 0), item)) for item in items]
            return cls(unlearned, np.ones(1), (0.0, 0.0), PENALTIES[0], _sureness(items, counted))
        grams = kernels(pairs, pairs)
        asked = AnswersApart.of(items, pairs)
        best: tuple[float, tuple[float, float], float] | None = None
        held: list[tuple[int, float]] = []
        for parts in PARTS:
            gram, apart = _mixed(grams, parts), _mixed(asked.grams, parts)
            for penalty in PENALTIES:
                found = np.zeros(len(apart))
                for fold in range(FOLDS):
                    inside = np.flatnonzero(folds[owners] != fold)
                    outside = np.flatnonzero(folds[asked.owners] == fold)
                    weights = _solved(gram[np.ix_(inside, inside)], gaps[inside], penalty)
                    found[outside] = apart[np.ix_(outside, inside)] @ weights
                tried = [chosen(each) for each in asked.matrices(found)]
                places = (at for at, _ in tried)
                right = np.mean([_grade(i, at) for i, at in zip(items, places, strict=True)])
                if best is None or right > best[0] + 1e-9:
                    best, held = (float(right), parts, penalty), tried
        assert best is not None
        _, parts, penalty = best
        weights = _solved(_mixed(grams, parts), gaps, penalty)
        return cls(pairs, weights, parts, penalty, _sureness(items, held))


@dataclass(frozen=True, eq=False)
class AnswersApart:
    """Every two answers to each of some questions, beside pairs to learn from.

    Attributes:
        sizes: how many answers each question has.
        owners: the question of each two answers, in order.
        grams: their kernels with the pairs.
    """

    sizes: Sequence[int]
    owners: NDArray[np.int64]
    grams: tuple[Floats, Floats, Floats]

    @classmethod
    def of(cls, items: Sequence[Answers], pairs: Pairs) -> AnswersApart:
        places = [_places(len(item)) for item in items]
        owners = np.repeat(np.arange(len(items)), [len(p) for p in places])
        every = Pairs.joined(
            [Pairs.among(item, p) for item, p in zip(items, places, strict=True) if p]
        )
        return cls([len(item) for item in items], owners, kernels(every, pairs))

    def matrices(self, values: Floats) -> Iterator[Floats]:
        """s of each two answers, question by question."""
        start = 0
        for size in self.sizes:
            end = start + len(_places(size))
            yield _matrix(size, values[start:end])
            start = end


def _places(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def _matrix(count: int, values: Floats) -> Floats:
    found = np.zeros((count, count))
    for (i, j), s in zip(_places(count), values, strict=True):
        found[i, j], found[j, i] = s, -s
    return found


def margins(pairs: Pairs, weights: Floats, parts: tuple[float, float], answers: Answers) -> Floats:
    """See `PairRanker.margins`."""
    places = _places(len(answers))
    if not places:
        return np.zeros((len(answers), len(answers)))
    gram = _mixed(kernels(Pairs.among(answers, places), pairs), parts)
    return _matrix(len(answers), gram @ weights)


def chosen(found: Floats) -> tuple[int, float]:
    """The answer whose margins sum to most, and the least of them; 0 where it has no rival."""
    best = int(found.sum(axis=1).argmax())
    rivals = np.delete(found[best], best)
    return best, float(rivals.min()) if len(rivals) else 0.0


def _graded(
    items: Sequence[Answers], rng: np.random.Generator
) -> tuple[Pairs | None, Floats, NDArray[np.int64]]:
    """Pairs of a better answer and a worse one, by how much it is better, and whose item's they are."""
    parts, gaps, owners = [], [], []
    for at, item in enumerate(items):
        assert item.grades is not None
        grades = item.grades
        count = range(len(item))
        better = [(i, j) for i in count for j in count if grades[i] > grades[j]]
        if better:
            parts.append(Pairs.among(item, better))
            gaps += [grades[i] - grades[j] for i, j in better]
            owners += [at] * len(better)
    if not parts:
        return None, np.zeros(0), np.zeros(0, np.int64)
    taken = np.sort(rng.permutation(len(gaps))[:MOST_PAIRS])
    return Pairs.joined(parts).of(taken), np.array(gaps)[taken], np.array(owners)[taken]


def _mixed(grams: tuple[Floats, Floats, Floats], parts: tuple[float, float]) -> Floats:
    return grams[0] + parts[0] * grams[1] + parts[1] * grams[2]


def _solved(gram: Floats, gaps: Floats, penalty: float) -> Floats:
    return np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gaps)), gaps), np.float64)


def _grade(item: Answers, at: int) -> float:
    assert item.grades is not None
    return float(item.grades[at])


def _about(answers: Answers, best: int, margin: float) -> Floats:
    """What the confidence in an answer is told by, shape (4,)."""
    return np.array([1.0, float(answers.shares[best]), margin, float(len(answers) == 1)])


def _sureness(items: Sequence[Answers], held: Sequence[tuple[int, float]]) -> Floats:
    """A logistic regression of right on `_about`, by Newton's method with a small ridge."""
    x = np.array([_about(item, *of) for item, of in zip(items, held, strict=True)])
    y = np.array([_grade(item, at) for item, (at, _) in zip(items, held, strict=True)])
    found = np.zeros(x.shape[1])
    ridge = np.diag([0.01, 1.0, 1.0, 1.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -30, 30)))
        slope = x.T @ (y - p) - ridge @ found
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, slope)
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    return found
