"""Learn from graded answers how much the large model would gain on a question.

A kernel ridge regression on three views of the text: its words, its opening's words (the question
without its options, a letter's first paragraph) and its shape (lengths, digits, capitals,
negations). Each view is a kernel with unit diagonal, so none drowns the others. A fourth, where the
caller has it, is how sure the small model is of its own answer; it stays where held-out questions are
ranked better with it. The penalty is chosen by cross-validation, too, and the held-out predictions it
leaves behind set the caller's threshold, so that no threshold is fitted on what the model has seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.strategies.inference.asked_form import shape, split_options
from cosilo.strategies.saved import reading

Floats = NDArray[np.float64]

PENALTIES = (5.0, 10.0, 20.0, 40.0)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class GainModel:
    """A fitted regression.

    Attributes:
        views: the fitted feature maps.
        weights: dual coefficients, shape (examples,).
        mean: the mean gain, which a question unlike all others falls back to.
    """

    views: Views
    weights: Floats
    mean: float

    @property
    def reads_certainty(self) -> bool:
        """Whether the fourth view is one of them."""
        return self.views.certainty_rows is not None

    def predict(self, texts: Sequence[str], certainty: Floats | None = None) -> Floats:
        """Expected gain of each text, shape (len(texts),), in grades.

        Args:
            certainty: what `certainty.certainty` says of the small model's answers, where it is read.
        """
        return self.mean + self.views.kernel(texts, certainty) @ self.weights

    def save(self, folder: Path) -> None:
        """Write `gain.json` and `gain.npz` into `folder`; `load` reads them, nothing is pickled.

        They hold words of the training texts and how often each text has them: they are as private as
        these.
        """
        folder.mkdir(parents=True, exist_ok=True)
        views = self.views
        arrays: dict[str, Any] = {"weights": self.weights}
        arrays |= {
            name: array
            for name in (*_DENSE, *_CERTAIN)
            if (array := getattr(views, name)) is not None
        }
        facts: dict[str, Any] = {"mean": self.mean, "rarity": views.rarity}
        for name in _COUNTED:
            counter, rows = getattr(views, name), getattr(views, _ROWS[name])
            facts[name] = counter.get_feature_names_out().tolist()
            arrays[f"{name}_idf"] = counter.idf_
            arrays |= {f"{name}_{part}": getattr(rows, part) for part in _SPARSE}
        np.savez_compressed(folder / "gain.npz", **arrays)
        (folder / "gain.json").write_text(json.dumps(facts), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> GainModel:
        """The model that `save` wrote.

        Raises:
            ConfigError: it is not there, or none.
        """
        from scipy.sparse import csr_matrix

        with reading(folder / "gain.npz", "learned gain") as held:
            facts = json.loads((folder / "gain.json").read_text("utf-8"))
            arrays = dict(held)
            counted: dict[str, Any] = {}
            for name in _COUNTED:
                parts = [arrays[f"{name}_{part}"] for part in _SPARSE]
                rows = csr_matrix(tuple(parts[:3]), shape=tuple(parts[3]))
                counted[name] = _counter(facts[name], arrays[f"{name}_idf"])
                counted[_ROWS[name]] = rows
            dense = {name: arrays[name] for name in _DENSE}
            dense |= {name: arrays[name] for name in _CERTAIN if name in arrays}
            views = Views(rarity=facts["rarity"], **counted, **dense)
            return cls(views, arrays["weights"], float(facts["mean"]))


_COUNTED = ("words", "opening_words")
_ROWS = {"words": "word_rows", "opening_words": "opening_rows"}
_DENSE = ("centre", "scale", "shape_rows")
_CERTAIN = ("certainty_centre", "certainty_scale", "certainty_rows")
_SPARSE = ("data", "indices", "indptr", "shape")


def _counter(vocabulary: Sequence[str], rarity: Floats) -> Any:
    """Counts and weighs word pairs as the vectoriser that learned them did."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = {term: i for i, term in enumerate(vocabulary)}
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=known)
    counter.idf_ = rarity
    return counter


def fit_gain(
    texts: Sequence[str], gains: Floats, *, seed: int = 0, certainty: Floats | None = None
) -> tuple[GainModel, Floats]:
    """The model for `gains` (shape (len(texts),)) and its held-out predictions.

    The penalty with the best ranking wins: routers use the order of the predictions, so it is
    compared by the area under gain against share of calls, not by squared error. So is whether
    `certainty` (shape (len(texts), features)) is of use.
    """
    folds = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
    best: tuple[float, Views, Floats, float, Floats] | None = None
    views = Views.fit(texts)
    of_texts = views.kernel(texts)
    tries = [(views, of_texts)]
    if certainty is not None:
        beside = views.beside(certainty)
        tries.append((beside, of_texts + beside.certainty_kernel(certainty)))
    for tried, kernel in tries:
        held_out = _held_out(kernel, gains, folds)
        areas = {p: round(ranking_area(held_out[p], gains), 6) for p in PENALTIES}
        penalty = max(PENALTIES, key=lambda p: (areas[p], p))
        if best is None or areas[penalty] > best[0]:
            best = areas[penalty], tried, kernel, penalty, held_out[penalty]
    assert best is not None
    _, views, kernel, penalty, held = best
    return GainModel(views, _solve(kernel, gains, penalty), float(gains.mean())), held


def ranking_area(scores: Floats, gains: Floats) -> float:
    """Mean gain collected when the highest scores are called first, over all shares of calls."""
    order = np.argsort(-scores, kind="stable")
    return float(np.cumsum(gains[order]).mean() / len(gains))


def _held_out(kernel: Floats, gains: Floats, folds: NDArray[np.int64]) -> dict[float, Floats]:
    out = {penalty: np.zeros(len(gains)) for penalty in PENALTIES}
    for fold in range(FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        # Added back is the mean of all folds: a fold's own complement has a low mean just where
        # the fold's is high, which would turn the ranking around.
        for penalty in PENALTIES:
            weights = _solve(kernel[np.ix_(inside, inside)], gains[inside], penalty)
            out[penalty][outside] = gains.mean() + kernel[np.ix_(outside, inside)] @ weights
    return out


def _solve(kernel: Floats, gains: Floats, penalty: float) -> Floats:
    weights = np.linalg.solve(kernel + penalty * np.eye(len(gains)), gains - gains.mean())
    return weights.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Views:
    """The feature maps, fitted on the training texts, which it remembers as features; the last three
    belong to the small model's certainty, where that is one of them."""

    words: Any
    opening_words: Any
    rarity: dict[str, float]
    word_rows: Any
    opening_rows: Any
    centre: Floats
    scale: Floats
    shape_rows: Floats
    certainty_centre: Floats | None = None
    certainty_scale: Floats | None = None
    certainty_rows: Floats | None = None

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Views:
        from sklearn.feature_extraction.text import TfidfVectorizer

        def vectoriser() -> Any:
            least = 2 if len(texts) >= 200 else 1
            return TfidfVectorizer(ngram_range=(1, 2), min_df=least, sublinear_tf=True)

        words, opening_words = vectoriser(), vectoriser()
        single = TfidfVectorizer().fit(texts)
        rarity = dict(zip(single.get_feature_names_out(), single.idf_.tolist(), strict=True))
        shapes = np.array([shape(t, rarity) for t in texts])
        centre, scale = _spread(shapes)
        return cls(
            words,
            opening_words,
            rarity,
            words.fit_transform(texts),
            opening_words.fit_transform([split_options(t)[0] for t in texts]),
            centre,
            scale,
            (shapes - centre) / scale,
        )

    def beside(self, certainty: Floats) -> Views:
        """These, and how sure the small model is of its answers to the same texts."""
        centre, scale = _spread(certainty)
        return replace(
            self,
            certainty_centre=centre,
            certainty_scale=scale,
            certainty_rows=(certainty - centre) / scale,
        )

    def kernel(self, texts: Sequence[str], certainty: Floats | None = None) -> Floats:
        """Similarity to the training texts, shape (len(texts), training texts).

        Raises:
            ValueError: the certainty is one of the views, and is not given.
        """
        openings = [split_options(t)[0] for t in texts]
        shapes = (np.array([shape(t, self.rarity) for t in texts]) - self.centre) / self.scale
        similar = self.words.transform(texts) @ self.word_rows.T
        similar = similar + self.opening_words.transform(openings) @ self.opening_rows.T
        found = similar.toarray() + _near(shapes, self.shape_rows)
        if self.certainty_rows is None:
            return np.asarray(found)
        if certainty is None:
            raise ValueError("the small model's certainty is one of the views: give it, too")
        return np.asarray(found + self.certainty_kernel(certainty))

    def certainty_kernel(self, certainty: Floats) -> Floats:
        """The part of `kernel` that tells how alike the small model's certainty is, where it is one of
        the views."""
        rows, centre, scale = self.certainty_rows, self.certainty_centre, self.certainty_scale
        assert rows is not None
        assert centre is not None
        assert scale is not None
        return _near((certainty - centre) / scale, rows)


def _spread(features: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each, the latter 1 where it is 0."""
    scale = features.std(axis=0)
    return features.mean(axis=0), np.where(scale > 0, scale, 1.0)


def _near(one: Floats, other: Floats) -> Floats:
    """How near rows are, 1 where they are the same, shape (len(one), len(other))."""
    apart = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(np.exp(-0.4 * apart / one.shape[1]))
