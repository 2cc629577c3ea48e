"""An attack that predicts the LM's answers with a model trained on its recorded replies.

The curious party is the data owner: it wants the LM's ability without the LM (functional model
extraction, e.g. Krishna et al., "Thieves on Sesame Street!", arXiv 1910.12366). Targets are requests
whose reply is held back from the view: their question is on record, their answer is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.record import replies, spoken
from cosilo.errors import ConfigError
from cosilo.registry import Loads

_CHARACTERS = 20_000


@attacks.register("surrogate", loads=Loads(packages=("sklearn",)))
class Surrogate:
    """Learns the LM's replies: ridge regression on word n-grams for a closed set of answers,
    copying the reply to the most similar question otherwise.
    """

    about: ClassVar[str] = "replies"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        known = replies(view)
        asked = spoken(view)
        questions = [request for request in known if asked.get(request, "").strip()]
        if not questions:
            return [Guess(t.id, _first(t), 0.0) for t in targets]
        answers = [known[request].strip() for request in questions]
        common, count = Counter(answers).most_common(1)[0]
        prior = (common, count / len(answers))
        wanted = [t for t in targets if asked.get(t.request, "").strip()]
        closed = any(t.candidates for t in targets)
        found = {}
        if wanted and len(set(answers)) > 1:
            vectors = _vectors([*questions, *(t.request for t in wanted)], asked)
            learn = _classify if closed else _copy
            predicted = learn(vectors[: len(questions)], answers, vectors[len(questions) :])
            found = {t.id: guess for t, guess in zip(wanted, predicted, strict=True)}
        return [Guess(t.id, *found.get(t.id, prior)) for t in targets]


def _first(target: Target) -> str:
    return min(target.candidates, default="")


def _vectors(requests: Sequence[str], asked: dict[str, str]) -> Any:
    """TF-IDF over words and word pairs: a sparse matrix, one row per request."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise ConfigError(
            "the surrogate attack needs scikit-learn: pip install 'cosilo[local]'"
        ) from None
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"
    )
    return vectorizer.fit_transform([asked[request][:_CHARACTERS] for request in requests])


def _classify(known: Any, answers: Sequence[str], wanted: Any) -> list[tuple[str, float]]:
    from sklearn.linear_model import RidgeClassifier

    model = RidgeClassifier(alpha=1.0).fit(known, answers)
    margins = np.atleast_1d(model.decision_function(wanted))
    best = np.abs(margins) if margins.ndim == 1 else margins.max(axis=1)
    sure = 1 / (1 + np.exp(-best))
    return [(str(a), float(s)) for a, s in zip(model.predict(wanted), sure, strict=True)]


def _copy(known: Any, answers: Sequence[str], wanted: Any) -> list[tuple[str, float]]:
    found = []
    for start in range(0, wanted.shape[0], 256):  # a block of the similarities at a time
        near = (wanted[start : start + 256] @ known.T).toarray()
        at = near.argmax(axis=1)
        found += [(answers[j], float(min(1.0, near[i, j]))) for i, j in enumerate(at)]
    return found
