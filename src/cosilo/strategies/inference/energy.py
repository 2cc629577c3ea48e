"""An energy that says how well an answer fits a question, learned from right and wrong answers.

    question ─▶ encoder ─▶ u ┐
                             ├─▶ u∘v, v, u·v ─▶ w·φ = g        p(answer) ∝ share of samples × exp(g)
    answer ───▶ encoder ─▶ v ┘

Sun et al., "BBox-Adapter: Lightweight Adapting for Black-Box Large Language Models" (arXiv 2402.08219):
g is raised on right answers and lowered on those that the adapted model itself would give,

    −E₊[g] + E₋[g] + α (E₊[g²] + E₋[g²]) + λ |w|²

and after each round the wrong answers are drawn anew by what has been learned. They fine-tune an
encoder by gradient steps; here the encoder stays as it is and g is linear in φ, so that a round's
minimum is one system of equations. They keep the answers with the highest g among the samples; here the
share of the samples, which estimates what the LM itself gives, stands in the choice too, as in the
distribution that they adapt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.strategies.saved import reading

Floats = NDArray[np.float64]

ALPHAS = (0.02, 0.05, 0.15, 0.5)
RIDGES = (0.01, 0.1, 1.0)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Candidates:
    """The different answers to one question.

    Attributes:
        features: of each with the question, shape (answers, features).
        shares: of the samples that gave it, shape (answers,); they sum to 1.
        right: which of them are right, shape (answers,).
        gold: the features of a right answer that need not be among them, shape (features,).
    """

    features: Floats
    shares: Floats
    right: NDArray[np.bool_]
    gold: Floats | None = None

    @property
    def positive(self) -> Floats | None:
        """The features of the right answer to learn from: the owner's own, else the first sampled."""
        if self.gold is not None:
            return self.gold
        return self.features[self.right.argmax()] if self.right.any() else None


def features_of(question: Floats, answers: Floats) -> Floats:
    """φ of answers to a question, shape (answers, 2 d + 1).

    Args:
        question: a unit vector, shape (d,).
        answers: unit vectors, shape (answers, d).
    """
    products = answers * question
    near = products.sum(axis=1, keepdims=True)
    return np.concatenate([products * np.sqrt(len(question)), answers, near], axis=1)


@dataclass(frozen=True, eq=False)
class Energy:
    """A learned g.

    Attributes:
        weights: shape (features,).
        alpha, ridge: the settings that cross-validation chose.
        pairs: how many wrong answers it was learned from.
    """

    weights: Floats
    alpha: float
    ridge: float
    pairs: int

    file: ClassVar[str] = "energy.npz"

    def adapted(self, features: Floats, shares: Floats) -> Floats:
        """The probability of each answer, shape (answers,).

        Args:
            features: shape (answers, features).
            shares: of the samples, above 0, shape (answers,).
        """
        return adapted(self.weights, features, shares)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = np.array([self.alpha, self.ridge, self.pairs])
        np.savez(folder / self.file, weights=self.weights, settings=settings)

    @classmethod
    def load(cls, folder: Path) -> Energy:
        """What `save` wrote.

        Raises:
            ConfigError: it is not there, or none.
        """
        with reading(folder / cls.file, "learned energy") as held:
            weights = np.asarray(held["weights"], dtype=np.float64)
            alpha, ridge, pairs = held["settings"].tolist()
        return cls(weights, alpha, ridge, int(pairs))


def adapted(weights: Floats, features: Floats, shares: Floats) -> Floats:
    logits = np.log(shares) + features @ weights
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum(), dtype=np.float64)


def loss(
    weights: Floats, positives: Floats, negatives: Floats, alpha: float, ridge: float
) -> float:
    """The ranking loss; shapes (features,), (right answers, features), (wrong answers, features)."""
    right, wrong = positives @ weights, negatives @ weights
    squares = (right**2).mean() + (wrong**2).mean()
    return float(wrong.mean() - right.mean() + alpha * (squares + ridge * weights @ weights))


def least(positives: Floats, negatives: Floats, alpha: float, ridge: float) -> Floats:
    """The weights with the least `loss`."""
    moments = positives.T @ positives / len(positives) + negatives.T @ negatives / len(negatives)
    moments[np.diag_indices_from(moments)] += ridge
    towards = positives.mean(axis=0) - negatives.mean(axis=0)
    return np.asarray(np.linalg.solve(moments, towards) / (2 * alpha), dtype=np.float64)


def fit_energy(questions: Sequence[Candidates], *, draws: int, rounds: int, seed: int) -> Energy:
    """The energy with the settings that predict right answers best in cross-validation.

    Args:
        questions: at least one.
        draws: wrong answers drawn for each question in each round.
        rounds: how often they are drawn anew by what has been learned.

    Returns:
        All weights 0 where no question has both a right answer and a wrong one: the choice is then by
        the shares alone.
    """
    usable = [q for q in questions if q.positive is not None and not q.right.all()]
    size = questions[0].features.shape[1]
    if len(usable) < 2:
        return Energy(np.zeros(size), ALPHAS[-1], RIDGES[-1], 0)
    folds = np.random.default_rng(seed).permutation(len(usable)) % min(FOLDS, len(usable))
    best: tuple[float, float, float] | None = None
    for alpha in reversed(ALPHAS):
        for ridge in reversed(RIDGES):
            found = 0.0
            for fold in range(folds.max() + 1):
                inside = [q for q, f in zip(usable, folds, strict=True) if f != fold]
                weights = learned(inside, alpha, ridge, draws=draws, rounds=rounds, seed=seed)
                outside = (q for q, f in zip(usable, folds, strict=True) if f == fold)
                found += sum(_predicted(weights, q) for q in outside)
            if best is None or found > best[0] + 1e-9:
                best = found, alpha, ridge
    assert best is not None
    _, alpha, ridge = best
    weights = learned(usable, alpha, ridge, draws=draws, rounds=rounds, seed=seed)
    return Energy(weights, alpha, ridge, sum(int((~q.right).sum()) for q in usable))


def learned(
    questions: Sequence[Candidates],
    alpha: float,
    ridge: float,
    *,
    draws: int,
    rounds: int,
    seed: int,
) -> Floats:
    """The weights after all rounds, shape (features,), from questions that have a right answer and a
    wrong one; what every round drew stays."""
    rng = np.random.default_rng(seed)
    positives = np.array([q.positive for q in questions])
    weights = np.zeros(positives.shape[1])
    negatives: list[Floats] = []
    for _ in range(rounds):
        for q in questions:
            wrong = np.flatnonzero(~q.right)
            likely = adapted(weights, q.features[wrong], q.shares[wrong])
            negatives.append(q.features[rng.choice(wrong, size=draws, p=likely)])
        weights = least(positives, np.concatenate(negatives), alpha, ridge)
    return weights


def _predicted(weights: Floats, question: Candidates) -> float:
    """The log-probability that a right answer is given, at least that of one in a million; 0 where
    the samples hold none, so that no choice among them is better than another."""
    if not question.right.any():
        return 0.0
    likely = adapted(weights, question.features, question.shares)
    return float(np.log(max(likely[question.right].sum(), 1e-6)))
