"""Learn from graded answers how much the large model would gain on a question.

A kernel ridge regression on three views of the text: its words, its opening's words (the question
without its options, a letter's first paragraph) and its shape (lengths, digits, capitals,
negations). Each view is a kernel with unit diagonal, so none drowns the others. The penalty is chosen
by cross-validation, and the held-out predictions it leaves behind set the caller's threshold, so that
no threshold is fitted on what the model has seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ConfigError

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

    def predict(self, texts: Sequence[str]) -> Floats:
        """Expected gain of each text, shape (len(texts),), in grades."""
        return self.mean + self.views.kernel(texts) @ self.weights

    def save(self, folder: Path) -> None:
        """Write `gain.json` and `gain.npz` into `folder`; `load` reads them, nothing is pickled.

        They hold words of the training texts and how often each text has them: they are as private as
        these.
        """
        folder.mkdir(parents=True, exist_ok=True)
        views = self.views
        arrays: dict[str, Any] = {"weights": self.weights}
        arrays |= {name: getattr(views, name) for name in _DENSE}
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

        try:
            facts = json.loads((folder / "gain.json").read_text("utf-8"))
            with (
                (folder / "gain.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as held,
            ):
                arrays = dict(held)
            counted: dict[str, Any] = {}
            for name in _COUNTED:
                parts = [arrays[f"{name}_{part}"] for part in _SPARSE]
                rows = csr_matrix(tuple(parts[:3]), shape=tuple(parts[3]))
                counted[name] = _counter(facts[name], arrays[f"{name}_idf"])
                counted[_ROWS[name]] = rows
            dense = {name: arrays[name] for name in _DENSE}
            views = Views(rarity=facts["rarity"], **counted, **dense)
            return cls(views, arrays["weights"], float(facts["mean"]))
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise ConfigError(
                f"{str(folder)!r} holds no learned gain: {type(error).__name__}"
            ) from None


_COUNTED = ("words", "opening_words")
_ROWS = {"words": "word_rows", "opening_words": "opening_rows"}
_DENSE = ("centre", "scale", "shape_rows")
_SPARSE = ("data", "indices", "indptr", "shape")


def _counter(vocabulary: Sequence[str], rarity: Floats) -> Any:
    """Counts and weighs word pairs as the vectoriser that learned them did."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = {term: i for i, term in enumerate(vocabulary)}
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=known)
    counter.idf_ = rarity
    return counter


def fit_gain(texts: Sequence[str], gains: Floats, *, seed: int = 0) -> tuple[GainModel, Floats]:
    """The model for `gains` (shape (len(texts),)) and its held-out predictions.

    The penalty with the best ranking wins: routers use the order of the predictions, so it is
    compared by the area under gain against share of calls, not by squared error.
    """
    views = Views.fit(texts)
    kernel = views.kernel(texts)
    folds = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
    held_out = _held_out(kernel, gains, folds)
    best = max(PENALTIES, key=lambda p: (round(ranking_area(held_out[p], gains), 6), p))
    return GainModel(views, _solve(kernel, gains, best), float(gains.mean())), held_out[best]


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
    """The three feature maps, fitted on the training texts, which it remembers as features."""

    words: Any
    opening_words: Any
    rarity: dict[str, float]
    word_rows: Any
    opening_rows: Any
    centre: Floats
    scale: Floats
    shape_rows: Floats

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
        centre, scale = shapes.mean(axis=0), shapes.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
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

    def kernel(self, texts: Sequence[str]) -> Floats:
        """Similarity to the training texts, shape (len(texts), training texts)."""
        openings = [split_options(t)[0] for t in texts]
        shapes = (np.array([shape(t, self.rarity) for t in texts]) - self.centre) / self.scale
        apart = (
            (shapes**2).sum(axis=1)[:, None]
            + (self.shape_rows**2).sum(axis=1)[None, :]
            - 2 * shapes @ self.shape_rows.T
        )
        similar = self.words.transform(texts) @ self.word_rows.T
        similar = similar + self.opening_words.transform(openings) @ self.opening_rows.T
        return np.asarray(similar.toarray() + np.exp(-0.4 * apart / shapes.shape[1]))


def split_options(text: str) -> tuple[str, list[str]]:
    """The text up to its first blank line or listed option, and the options (A. …, B) …)."""
    parts = re.split(r"\n\(?[A-J][.)] ", text)
    return parts[0].split("\n\n", 1)[0], parts[1:]


def shape(text: str, rarity: dict[str, float]) -> list[float]:
    """What a question looks like, apart from which words it uses.

    Args:
        rarity: word → inverse document frequency; a word it lacks counts as the rarest.
    """
    question, options = split_options(text)
    options = options or [""]
    size, words = max(len(text), 1), text.split() or [""]
    lowered = question.lower()
    rarest = max(rarity.values(), default=0.0)
    asked = [rarity.get(w, rarest) for w in _words(question)] or [0.0]
    offered_words = _words(" ".join(options))
    offered = [rarity.get(w, rarest) for w in offered_words] or [0.0]
    lengths = [len(o) for o in options]
    return [
        float(np.log1p(len(text))),
        float(np.log1p(len(question))),
        float(np.sqrt(np.mean(lengths))),
        sum(c.isdigit() for c in text) / size,
        float(np.mean([any(c.isdigit() for c in o) for o in options])),
        float(len(options)),
        float(bool(re.search(r"\b(not|except|least|never)\b", lowered))),
        float("__" in question),
        float(question.rstrip().endswith("?")),
        sum(c.isupper() for c in text) / size,
        float("all of the above" in text.lower()),
        float("$" in text),
        float(np.mean([len(w) for w in words])),
        float(np.mean(asked)),
        float(np.max(asked)),
        float(np.mean(offered)),
        float(np.max(offered)),
        len(set(offered_words)) / max(1, len(offered_words)),
        float(np.std(lengths) / (1 + np.mean(lengths))),
        float(lowered.startswith("which")),
        float("according to" in lowered),
        float("most likely" in lowered or "best" in lowered),
        float(question.count(".")),
        float(any(c.isdigit() for c in question)),
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\w\w+", text.lower())
