"""Which words, word pairs and letter groups a text has: TF-IDF, kept without pickles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosilo.models.base import Array

MAX_CHARACTERS = 100_000
"""Of a longer text, only the start is counted."""
KINDS: tuple[dict[str, Any], ...] = (
    {"analyzer": "word", "ngram_range": (1, 2), "min_df": 2},
    {"analyzer": "char_wb", "ngram_range": (3, 5), "min_df": 3},
)
_MOST = 20_000


class Terms:
    """TF-IDF over one kind of n-gram (sublinear counts, rows of length 1)."""

    def __init__(self, kind: dict[str, Any], vocabulary: tuple[str, ...], idf: Array) -> None:
        self.kind = kind
        self.vocabulary = vocabulary
        self.idf = idf
        self._counter: Any = None

    @classmethod
    def fit(cls, kind: dict[str, Any], texts: Sequence[str]) -> Terms | None:
        """The n-grams of `texts`; None when none occurs often enough."""
        try:
            counter = _sklearn().TfidfVectorizer(
                **kind, sublinear_tf=True, max_features=_MOST, dtype=np.float32
            )
            counter.fit(_cut(texts))
        except ValueError:  # an empty vocabulary
            return None
        return cls(kind, tuple(map(str, counter.get_feature_names_out())), counter.idf_)

    def transform(self, texts: Sequence[str]) -> Any:
        """A sparse matrix, shape (len(texts), len(vocabulary))."""
        if self._counter is None:
            counter = _sklearn().TfidfVectorizer(
                **{**self.kind, "min_df": 1},
                sublinear_tf=True,
                dtype=np.float32,
                vocabulary={term: i for i, term in enumerate(self.vocabulary)},
            )
            counter.idf_ = self.idf
            self._counter = counter
        return self._counter.transform(_cut(texts))


def learn_terms(texts: Sequence[str]) -> tuple[Terms, ...]:
    """One `Terms` per kind of n-gram that `texts` have enough of."""
    found = (Terms.fit(kind, texts) for kind in KINDS)
    return tuple(terms for terms in found if terms is not None)


def _cut(texts: Sequence[str]) -> list[str]:
    return [text[:MAX_CHARACTERS] for text in texts]


def _sklearn() -> Any:
    from sklearn.feature_extraction import text

    return text
