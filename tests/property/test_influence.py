"""The influence ranks examples as training without each of them does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr

from cosilo.strategies.influence import influence
from cosilo.types import Demonstration, last_user, user

CLASSES, DIMENSION = 3, 4


class Softmax:
    """Texts are names of vectors; a softmax over them, fitted until it moves no more."""

    labels = ("a", "b", "c")

    def __init__(self, vectors: dict[str, np.ndarray], examples: list[Demonstration]) -> None:
        self.vectors = vectors
        x = self._bias(np.array([vectors[last_user(e.chat)] for e in examples]))
        y = np.eye(CLASSES)[[self.labels.index(e.target) for e in examples]]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = flat.reshape(CLASSES, DIMENSION + 1)
            p = self._softmax(x @ w.T)
            value = -np.log(p[y > 0]).sum() + 0.05 * (w**2).sum()
            return float(value), ((p - y).T @ x + 0.1 * w).ravel()

        found = minimize(loss, np.zeros(CLASSES * (DIMENSION + 1)), jac=True, tol=1e-10)
        self.weights = found.x.reshape(CLASSES, DIMENSION + 1)

    @staticmethod
    def _bias(x: np.ndarray) -> np.ndarray:
        return np.hstack([x, np.ones((len(x), 1))])

    @staticmethod
    def _softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.array([self.vectors[t] for t in texts])

    def probabilities(self, texts: list[str]) -> np.ndarray:
        return self._softmax(self._bias(self.embed(texts)) @ self.weights.T)


def drawn(rng: np.random.Generator, count: int, name: str, vectors: dict[str, np.ndarray]):
    centres = np.random.default_rng(5).normal(size=(CLASSES, DIMENSION))
    found = []
    for i in range(count):
        label = int(rng.integers(CLASSES))
        vectors[f"{name}{i}"] = centres[label] + rng.normal(size=DIMENSION)
        found.append(Demonstration(f"{name}{i}", user(f"{name}{i}"), Softmax.labels[label]))
    return found


def robust_loss(model: Softmax, validation: list[Demonstration]) -> float:
    p = model.probabilities([last_user(e.chat) for e in validation])
    return float(
        np.mean(
            [4 * (1 - row["abc".index(e.target)]) for row, e in zip(p, validation, strict=True)]
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_it_ranks_as_leaving_each_out_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors: dict[str, np.ndarray] = {}
    train, validation = drawn(rng, 60, "t", vectors), drawn(rng, 80, "v", vectors)
    for i in range(8):  # some wrong labels
        train[i] = Demonstration(train[i].id, train[i].chat, rng.choice(["a", "b", "c"]))
    model = Softmax(vectors, train)
    scores = influence(model, train, validation)
    whole = robust_loss(model, validation)
    without = [
        robust_loss(Softmax(vectors, train[:i] + train[i + 1 :]), validation) - whole
        for i in range(len(train))
    ]
    assert spearmanr(scores, without).statistic > 0.7


def test_wrong_labels_harm_and_unknown_validation_labels_are_left_out() -> None:
    rng = np.random.default_rng(1)
    vectors: dict[str, np.ndarray] = {}
    train, validation = drawn(rng, 80, "t", vectors), drawn(rng, 80, "v", vectors)
    wrong = [
        Demonstration(e.id, e.chat, "abc"[("abc".index(e.target) + 1) % 3]) for e in train[:10]
    ]
    mixed = [*wrong, *train[10:]]
    model = Softmax(vectors, mixed)
    scores = influence(model, mixed, validation)
    assert scores[:10].mean() < 0 < scores[10:].mean()
    strange = [*validation, Demonstration("x", user("v0"), "none of them")]
    np.testing.assert_allclose(influence(model, mixed, strange), scores)
