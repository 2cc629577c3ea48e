"""A linear classifier over sentence vectors and, where it helps, over word and letter n-grams.

    vectors ┐
    words   ├─▶ W x + b ──▶ ÷ temperature ──▶ softmax
    letters ┘

Multinomial logistic regression. How strongly it is regularised, and whether the n-grams are used, is
chosen by cross-validation on the training data alone, by log loss; the temperature (Guo et al. 2017,
arXiv 1706.04599) is fitted on the out-of-fold logits, so that its probabilities are those of data it
has not seen.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from cosilo.errors import ConfigError, DataError
from cosilo.models.base import Array
from cosilo.models.encoder.ngrams import KINDS, Terms, learn_terms

PACKAGES = ("sklearn", "scipy", "threadpoolctl")
"""What a head loads."""

Features = Literal["auto", "embedding", "embedding+tfidf"]

_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_FOLDS = 5
_SEARCH_ITEMS = 2_000


@dataclass(frozen=True)
class Validation:
    """What cross-validation found: the strength C, and the out-of-fold scores at that strength."""

    features: str
    strength: float
    accuracy: float
    log_loss: float
    items: int


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A trained head.

    Attributes:
        labels: in the order of the rows of `weights`, sorted.
        weights: shape (labels, features); bias: shape (labels,).
        terms: the n-grams; empty when only the vector is used. They are words of the training texts, so
            a head is as private as those.
        validation: None where there was too little to validate on.
    """

    labels: tuple[str, ...]
    weights: Array
    bias: Array
    temperature: float
    terms: tuple[Terms, ...] = ()
    validation: Validation | None = None

    def probabilities(self, vectors: Array, texts: Sequence[str]) -> Array:
        """Calibrated probabilities, shape (n, labels), of texts with these unit vectors."""
        if not len(texts):
            return np.zeros((0, len(self.labels)), np.float32)
        features = _joined(vectors, texts, self.terms)
        logits = np.asarray(features @ self.weights.T) + self.bias
        found: Array = _softmax(logits / self.temperature).astype(np.float32)
        return found

    def digest(self) -> str:
        """A short hash of all that decides its answers."""
        digest = hashlib.sha256(json.dumps([self.labels, self.temperature]).encode())
        for array in (self.weights, self.bias, *(t.idf for t in self.terms)):
            digest.update(np.ascontiguousarray(array).tobytes())
        for terms in self.terms:
            digest.update(json.dumps(terms.vocabulary).encode())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `head.npz` and `head.json` into `folder`; `load` reads them, nothing is pickled."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f"idf{i}": terms.idf for i, terms in enumerate(self.terms)}
        np.savez_compressed(folder / "head.npz", weights=self.weights, bias=self.bias, **arrays)
        facts = {
            "labels": self.labels,
            "temperature": self.temperature,
            "terms": [[KINDS.index(t.kind), t.vocabulary] for t in self.terms],
            "validation": vars(self.validation) if self.validation else None,
        }
        (folder / "head.json").write_text(json.dumps(facts), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> TrainedHead:
        """The head that `save` wrote.

        Raises:
            ConfigError: it is not there, or not a head.
        """
        try:
            facts = json.loads((folder / "head.json").read_text("utf-8"))
            with (
                (folder / "head.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                terms = tuple(
                    Terms(KINDS[kind], tuple(vocabulary), arrays[f"idf{i}"])
                    for i, (kind, vocabulary) in enumerate(facts["terms"])
                )
                head = cls(
                    tuple(facts["labels"]),
                    arrays["weights"],
                    arrays["bias"],
                    float(facts["temperature"]),
                    terms,
                    Validation(**facts["validation"]) if facts["validation"] else None,
                )
        except (
            OSError, EOFError, ValueError, KeyError, TypeError, IndexError, BadZipFile,
        ) as error:  # fmt: skip
            raise ConfigError(
                f"{str(folder)!r} holds no trained head: {type(error).__name__}"
            ) from None
        if head.weights.shape[:1] != (len(head.labels),) or head.bias.shape != (len(head.labels),):
            raise ConfigError(f"{str(folder)!r} holds a head whose parts do not fit together")
        return head


def train(
    vectors: Array,
    texts: Sequence[str],
    targets: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    features: Features = "auto",
    seed: int = 0,
    threads: int = 1,
) -> TrainedHead:
    """The head that tells `targets` apart. The same arguments give the same head.

    Args:
        vectors: unit vectors of `texts`, shape (n, dimension).
        weights: how much each example counts, above 0: in fitting and in cross-validation; all the
            same by default.
        features: with "auto", cross-validation decides whether n-grams are used.
        threads: of the linear algebra.

    Raises:
        DataError: no examples, one target only, or a different target for every example.
        ConfigError: scikit-learn is not installed.
    """
    _require_classes(targets)
    labels = tuple(sorted(set(targets)))
    y = np.array([labels.index(t) for t in targets])
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    kinds = ("embedding", "embedding+tfidf") if features == "auto" else (features,)
    with _limited(threads):
        data = _Data(vectors, list(texts), y, w, len(labels))
        search = data.some(_SEARCH_ITEMS, seed)
        found = [_search(search, kind, seed) for kind in kinds]
        best = min((f for f in found if f is not None), key=lambda f: f.log_loss, default=None)
        if best is not None and search is not data:
            best = _score(data, best.features, (best.strength,), seed, folds=3)[0]
        kind = best.features if best else kinds[0]
        terms = learn_terms(data.texts) if kind == "embedding+tfidf" else ()
        fitted, bias = next(_fits(data.features(terms), data, (best.strength if best else 1.0,)))
    validation = (
        Validation(best.features, best.strength, best.accuracy, best.log_loss, best.items)
        if best
        else None
    )
    temperature = best.temperature if best else 1.0
    return TrainedHead(labels, fitted, bias, temperature, terms, validation)


@dataclass(frozen=True, eq=False)
class _Data:
    vectors: Array
    texts: list[str]
    y: Any
    w: Any
    classes: int

    def rows(self, index: Any) -> _Data:
        texts = [self.texts[i] for i in index]
        return _Data(self.vectors[index], texts, self.y[index], self.w[index], self.classes)

    def some(self, most: int, seed: int) -> _Data:
        """At most about `most` rows with every class in its share, two of each at least."""
        if len(self.y) <= most:
            return self
        order = np.random.default_rng(seed).permutation(len(self.y))
        keep: list[int] = []
        for c in range(self.classes):
            mine = order[self.y[order] == c]
            keep.extend(mine[: max(2, round(most * len(mine) / len(self.y)))])
        return self.rows(np.sort(keep))

    def features(self, terms: Sequence[Terms]) -> Any:
        return _joined(self.vectors, self.texts, terms)


@dataclass(frozen=True)
class _Found:
    features: str
    strength: float
    temperature: float
    accuracy: float
    log_loss: float
    items: int = field(default=0)


def _search(data: _Data, kind: str, seed: int) -> _Found | None:
    scores = _score(data, kind, _STRENGTHS, seed, folds=_FOLDS)
    return min(scores, key=lambda f: f.log_loss, default=None)


def _score(
    data: _Data, kind: str, strengths: Sequence[float], seed: int, *, folds: int
) -> list[_Found]:
    """Out-of-fold scores at each strength; none where no class has two examples."""
    fold = _folds(data.y, folds, seed)
    logits = np.zeros((len(strengths), len(data.y), data.classes))
    for f in range(folds):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        if not len(outside):
            continue
        train, test = data.rows(inside), data.rows(outside)
        terms = learn_terms(train.texts) if kind == "embedding+tfidf" else ()
        x, held_out = train.features(terms), test.features(terms)
        for s, (fitted, bias) in enumerate(_fits(x, train, strengths)):
            logits[s, outside] = np.asarray(held_out @ fitted.T) + bias
    scored = fold >= 0
    if not scored.any():
        return []
    return [
        _found(kind, strength, logits[s, scored], data.y[scored], data.w[scored])
        for s, strength in enumerate(strengths)
    ]


def _found(kind: str, strength: float, logits: Any, y: Any, w: Any) -> _Found:
    temperature, loss = _temperature(logits, y, w)
    accuracy = float(np.average(logits.argmax(axis=1) == y, weights=w))
    return _Found(kind, strength, temperature, accuracy, loss, len(y))


def _folds(y: Any, folds: int, seed: int) -> Any:
    """The fold of each row, every class spread evenly; -1 for the only example of a class.

    So every class is in the training part of every fold.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(len(y), -1)
    for c in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == c))
        if len(rows) > 1:
            fold[rows] = (np.arange(len(rows)) + rng.integers(folds)) % folds
    return fold


def _fits(x: Any, data: _Data, strengths: Sequence[float]) -> Iterator[tuple[Array, Array]]:
    """Weights and bias at each strength, each fit starting from the one before."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)
    for strength in strengths:
        model.set_params(C=strength)
        _quiet_fit(model, x, data.y, data.w)
        w, b = model.coef_, model.intercept_
        if data.classes == 2:  # scikit-learn keeps one row for two classes
            w, b = np.concatenate([-w / 2, w / 2]), np.concatenate([-b / 2, b / 2])
        yield w.astype(np.float32), b.astype(np.float32)


def _quiet_fit(model: Any, x: Any, y: Any, w: Any) -> None:
    import warnings

    with warnings.catch_warnings():  # a fit that stops early is judged by its scores like any other
        warnings.simplefilter("ignore")
        model.fit(x, y, sample_weight=w)


def _temperature(logits: Any, y: Any, w: Any) -> tuple[float, float]:
    """The temperature with the least log loss, between 1/20 and 20, and that loss."""
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        peak = scaled.max(axis=1)
        normaliser = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float(np.average(normaliser - scaled[np.arange(len(y)), y], weights=w))

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return math.exp(float(found.x)), float(found.fun)


def _joined(vectors: Array, texts: Sequence[str], terms: Sequence[Terms]) -> Any:
    if not terms:
        return vectors
    from scipy.sparse import csr_matrix, hstack

    return hstack([csr_matrix(vectors), *(t.transform(texts) for t in terms)], format="csr")


def _softmax(logits: Any) -> Any:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _require_classes(targets: Sequence[str]) -> None:
    counts = Counter(targets)
    if not counts:
        raise DataError("a classifier cannot be trained on no examples")
    if len(counts) == 1:
        raise DataError(
            f"all {len(targets)} training examples have the same target; a classifier needs two "
            "or more"
        )
    if len(counts) == len(targets) > 20:
        raise DataError(
            f"all {len(targets)} training examples have different targets; a classifier needs "
            "labels that repeat, so it cannot learn to write text"
        )


def _limited(threads: int) -> Any:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ConfigError(
            "a classifier needs scikit-learn; run: pip install 'cosilo[local]'"
        ) from error
    return threadpool_limits(threads)
