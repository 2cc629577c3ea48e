"""Which record does a message come from? The mapping leak of a sanitised record.

Hartmann et al., "Can LLMs get help from other LLMs without revealing private information?" (arXiv
2404.01041), sections 3 and 5. The attacker holds every original text (the targets' candidates) and
matches the messages to them. It knows that each message has one original, so it matches one to one,
which is stronger than taking the nearest for each: a sure match takes a candidate away from the
doubtful ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.record import spoken
from cosilo.errors import ConfigError
from cosilo.matching import normalised
from cosilo.models.base import Embedder
from cosilo.registry import Loads

MOST_ASSIGNED = 4000
"""Above so many messages or candidates each message takes its nearest: assignment is cubic."""

_CHARACTERS = 20_000  # of one text: enough to tell it apart, whatever its length
_GRAM_CHARACTERS = 1500

Similarity = NDArray[np.float32]


class _Linker:
    about: ClassVar[str] = "records"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        said = spoken(view, {target.request for target in targets})
        groups: dict[tuple[str, ...], list[Target]] = {}
        for target in targets:
            groups.setdefault(target.candidates, []).append(target)
        guesses = {}
        for candidates, group in groups.items():
            # Sorted, because the order of the candidates may be that of the items. Texts that occur
            # twice stay twice: each message has an original of its own.
            records = sorted(candidates)
            sent = [t for t in group if said.get(t.request, "").strip()]
            linked: dict[str, tuple[int, float]] = {}
            if sent and records:
                cut = [said[t.request][:_CHARACTERS] for t in sent]
                near = self._similarity(cut, [r[:_CHARACTERS] for r in records], view)
                if near is not None:
                    matched = match(near)
                    linked = {
                        t.id: (int(j), float(np.clip(near[i, j], 0, 1)))
                        for i, (t, j) in enumerate(zip(sent, matched, strict=True))
                        if j >= 0
                    }
            for target in group:
                j, score = linked.get(target.id, (0, 0.0))
                guesses[target.id] = Guess(target.id, records[j] if records else "", score)
        return [guesses[target.id] for target in targets]

    def _similarity(
        self, messages: Sequence[str], records: Sequence[str], view: View
    ) -> Similarity | None:
        """Shape (messages, records); None when the attacker cannot compare them."""
        raise NotImplementedError


@attacks.register("relink", loads=Loads(packages=("scipy", "sklearn")))
class RelinkAttack(_Linker):
    """Matches messages to original texts by character 4-grams, rare words and numbers."""

    def _similarity(
        self, messages: Sequence[str], records: Sequence[str], view: View
    ) -> Similarity | None:
        return _half(_grams(messages, records) + _rare_words(messages, records))


@attacks.register("relink_embedding", loads=Loads(packages=("scipy",)))
class RelinkEmbedding(_Linker):
    """Matches messages to original texts by the vectors of a public sentence encoder."""

    def _similarity(
        self, messages: Sequence[str], records: Sequence[str], view: View
    ) -> Similarity | None:
        if view.embedder is None:
            return None
        return _embedded(messages, view.embedder) @ _embedded(records, view.embedder).T


def match(similarity: Similarity) -> NDArray[np.int_]:
    """The column for each row, one to one with the largest sum; −1 for rows left without.

    The nearest column for each row where the matrix is too large to assign.
    """
    if max(similarity.shape) > MOST_ASSIGNED:
        nearest: NDArray[np.int_] = similarity.argmax(axis=1)
        return nearest
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ConfigError("re-linking needs scipy: pip install 'cosilo[local]'") from None
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    found = np.full(len(similarity), -1, dtype=np.int_)
    found[rows] = columns
    return found


def _half(sum_of_two: Similarity) -> Similarity:
    return np.multiply(sum_of_two, 0.5, dtype=np.float32)


def _grams(messages: Sequence[str], records: Sequence[str]) -> Similarity:
    """Cosine of TF-IDF over character 4-grams within words, at the start of each text."""
    how = {"analyzer": "char_wb", "ngram_range": (4, 4), "sublinear_tf": True, "norm": None}
    start = slice(_GRAM_CHARACTERS)  # counting grams takes most of the attack's time
    return _cosine([m[start] for m in messages], [r[start] for r in records], how, power=1)


def _rare_words(messages: Sequence[str], records: Sequence[str]) -> Similarity:
    """Cosine over which words and numbers occur, weighed by the square of their rarity."""
    how = {"analyzer": _words, "binary": True, "norm": None}
    return _cosine(messages, records, how, power=2)


def _words(text: str) -> list[str]:
    """The words of `text` as `normalised` folds them, numbers in one form."""
    folded = normalised(text)
    ends = [*folded.starts[1:], len(folded.text)]
    return [folded.text[a:b] for a, b in zip(folded.starts, ends, strict=False)]


def _cosine(
    messages: Sequence[str], records: Sequence[str], how: Mapping[str, Any], *, power: int
) -> Similarity:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize
    except ImportError:
        raise ConfigError("re-linking needs scikit-learn: pip install 'cosilo[local]'") from None
    try:
        weights = TfidfVectorizer(dtype=np.float32, **how).fit_transform([*messages, *records])
    except ValueError:  # no text holds a single feature
        return np.zeros((len(messages), len(records)), dtype=np.float32)
    vectors = normalize(weights.power(power))
    product = vectors[: len(messages)] @ vectors[len(messages) :].T
    return np.asarray(product.todense(), dtype=np.float32)


def _embedded(texts: Sequence[str], embedder: Embedder) -> Similarity:
    return np.asarray(embedder.embed(texts), dtype=np.float32)
