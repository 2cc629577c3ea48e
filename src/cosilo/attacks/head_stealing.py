"""The data owner works out the LM owner's linear head from its answers.

Logits are W x + b. Who has them for as many vectors as x has numbers, and one, solves for W and b
exactly, whatever hid the computation; with fewer, least squares leave out what was not asked about.
Where the label alone is told, a head is trained on labels instead: Tramèr et al., "Stealing Machine
Learning Models via Prediction APIs" (arXiv 1609.02943).

No objective runs it: what the data owner reads does not stand in the record, which is encrypted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_STRENGTH = 30.0  # labels that a head gives hold no noise, so that little is regularised


@dataclass(frozen=True, eq=False)
class StolenHead:
    """A head as the data owner has it: weights (labels, inputs), bias (labels,)."""

    weights: Floats
    bias: Floats

    def labels(self, vectors: Floats) -> Places:
        """The places of the labels that it gives `vectors`, (n, inputs)."""
        found: Places = (vectors @ self.weights.T + self.bias).argmax(axis=1)
        return found


def solved(vectors: Floats, logits: Floats) -> StolenHead:
    """The head behind `logits`, (n, labels), of `vectors`, (n, inputs): the smallest that explains them
    where there are too few."""
    middle = vectors.mean(
        axis=0
    )  # then a bias that every vector shows is not sought in the weights
    level = logits.mean(axis=0)
    weights = np.linalg.lstsq(vectors - middle, logits - level, rcond=None)[0].T
    return StolenHead(weights, level - weights @ middle)


def trained(vectors: Floats, labels: Places, count: int) -> StolenHead:
    """A head that gives `vectors` those of `count` labels; one that was never seen it never gives."""
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(labels)
    weights, bias = np.zeros((count, vectors.shape[1])), np.full(count, -np.inf)
    if len(seen) == 1:
        bias[seen] = 0.0
        return StolenHead(weights, bias)
    model = LogisticRegression(C=_STRENGTH, max_iter=300, tol=1e-3)
    with warnings.catch_warnings():  # few answers hold many labels, and a fit may stop early
        warnings.simplefilter("ignore")
        model.fit(vectors, labels)
    if len(seen) == 2:  # scikit-learn keeps one row for two classes
        weights[seen], bias[seen] = model.coef_ * [[-0.5], [0.5]], model.intercept_ * [-0.5, 0.5]
    else:
        weights[seen], bias[seen] = model.coef_, model.intercept_
    return StolenHead(weights, bias)


@dataclass(frozen=True)
class Theft:
    """How near a stolen head is to the true one.

    Attributes:
        agreement: share of texts that both give one label.
        base_rate: that of whoever always says the true head's most frequent label.
        weight_error: length of the difference of the weights, as a share of the true ones' length. What
            all labels have in common decides nothing, and is left out.
    """

    agreement: float
    base_rate: float
    weight_error: float


def compared(weights: Floats, bias: Floats, stolen: StolenHead, vectors: Floats) -> Theft:
    """`stolen` beside the true head, on `vectors` that were not asked about."""
    said = StolenHead(weights, bias).labels(vectors)
    most = np.bincount(said).max() / len(said)
    true, found = (w - w.mean(axis=0) for w in (weights, stolen.weights))
    error = np.linalg.norm(found - true) / np.linalg.norm(true)
    return Theft(float((stolen.labels(vectors) == said).mean()), float(most), float(error))
