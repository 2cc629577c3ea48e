"""What the small model thinks of labels it has not learned from, and which of them it disowns.

Each part of the examples is judged by a copy trained on the other parts, so that no label is judged
by a model that has seen it. A label is disowned by the rule of confident learning (Northcutt et al.,
arXiv 1911.00068): the model is as sure of another class as it is, on average, of that class's own
examples, and less sure of the given one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import CapabilityError
from cosilo.models.base import Classifier, Trainable
from cosilo.types import Demonstration, last_user

Floats = NDArray[np.float64]


def out_of_fold(
    model: Trainable,
    examples: Sequence[Demonstration],
    *,
    beside: Sequence[Demonstration] = (),
    folds: int = 4,
    seed: int = 0,
) -> tuple[tuple[str, ...], Floats]:
    """The probabilities of each example's classes by models that have not learned from it.

    Args:
        beside: examples that every copy learns from as well.

    Returns:
        The labels, sorted, and shape (len(examples), labels).

    Raises:
        CapabilityError: the trained model gives no probabilities.
    """
    labels = tuple(sorted({e.target for e in (*examples, *beside)}))
    found = np.zeros((len(examples), len(labels)))
    # Dealt class by class, so that every copy has met every class that has two examples.
    rng = np.random.default_rng(seed)
    order = sorted(rng.permutation(len(examples)), key=lambda i: examples[i].target)
    fold = np.empty(len(examples), dtype=np.int64)
    fold[order] = np.arange(len(examples)) % folds
    for f in range(min(folds, len(examples))):
        inside = [e for e, own in zip(examples, fold, strict=True) if own != f]
        judge = model.fit((*beside, *inside), seed=seed)
        if not isinstance(judge, Classifier):
            raise CapabilityError(
                f"judging labels needs a model that gives class probabilities; "
                f"{type(judge).__name__} gives none"
            )
        rows = [i for i in range(len(examples)) if fold[i] == f]
        columns = [labels.index(label) for label in judge.labels]
        judged = judge.probabilities([last_user(examples[i].chat) for i in rows])
        found[np.array(rows)[:, None], columns] = judged
    return labels, found


def disowned(targets: Sequence[str], labels: Sequence[str], probabilities: Floats) -> list[bool]:
    """Which targets the model takes for mistakes.

    Args:
        probabilities: out of fold, shape (len(targets), len(labels)).
    """
    given = np.array([list(labels).index(t) for t in targets])
    own = probabilities[np.arange(len(given)), given]
    sure = np.array(
        [own[given == c].mean() if (given == c).any() else np.inf for c in range(len(labels))]
    )
    other = np.where(probabilities >= sure, probabilities, 0.0)
    other[np.arange(len(given)), given] = 0.0
    return [bool(x) for x in other.max(axis=1) > own]
