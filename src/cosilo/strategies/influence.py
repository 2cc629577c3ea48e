"""Which training texts help: the influence of each on a loss over the owner's validation examples.

Koh and Liang, "Understanding Black-box Predictions via Influence Functions" (arXiv 1703.04730), with
the validation loss of ProGen (arXiv 2210.12329), which wrong validation labels cannot drive far:
reverse cross-entropy, A · (1 − p(label)), A = 4 (Wang et al., arXiv 1908.06112).

For a softmax over sentence vectors x with probabilities p, an example's gradient is (p − y) xᵀ. The
Hessian is taken for a Kronecker product, E[diag p − p pᵀ] ⊗ E[x xᵀ] (Martens and Grosse, arXiv
1503.05671), so that no matrix is larger than the vectors are long. N-grams that a head looks at besides
are left out. It ranks examples; it is no estimate of a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import CapabilityError
from cosilo.models.base import Classifier, Embedder
from cosilo.strategies.synthesis import Synthetic
from cosilo.types import Demonstration, last_user

Floats = NDArray[np.float64]

_A = 4.0
_DAMPING = 1e-3


class Readable(Classifier, Embedder, Protocol):
    """A classifier that also shows the sentence vectors it classifies."""


def readable(model: object, *, by: str) -> Readable:
    """`model` as one whose training examples can be judged.

    Raises:
        CapabilityError: it shows no class probabilities or no vectors.
    """
    if not (isinstance(model, Classifier) and isinstance(model, Embedder)):
        raise CapabilityError(
            f"{by} judges texts by a small model with class probabilities and sentence vectors; "
            f"{type(model).__name__} shows none"
        )
    return model


def influence(
    model: Readable, examples: Sequence[Demonstration], validation: Sequence[Demonstration]
) -> Floats:
    """How much each of `examples` helps: positive where counting it more would lower the loss.

    Args:
        model: trained on `examples`.
        validation: those with labels that the model does not know are left out.

    Returns:
        Shape (len(examples),).
    """
    known = [e for e in validation if e.target in model.labels]
    errors, x, p = _gradients(model, examples)
    away, seen, sure = _gradients(model, known)
    right = sure[np.arange(len(known)), [model.labels.index(e.target) for e in known]]
    loss = (_A * right[:, None] * away).T @ seen / max(len(known), 1)
    classes = np.diag(p.mean(axis=0)) - p.T @ p / len(p)
    vectors = x.T @ x / len(x)
    towards = _solve(classes, loss)
    towards = _solve(vectors, towards.T).T
    scores: Floats = np.einsum("nc,cd,nd->n", errors, towards, x)
    return scores


def most_helpful(texts: Sequence[Synthetic], scores: Floats, most: int) -> dict[str, list[str]]:
    """Of every label the texts with the highest scores, best first."""
    best: dict[str, list[str]] = {}
    for i in np.argsort(-scores, kind="stable"):
        chosen = best.setdefault(texts[i].label, [])
        if len(chosen) < most:
            chosen.append(texts[i].text)
    return best


def _gradients(model: Readable, examples: Sequence[Demonstration]) -> tuple[Floats, Floats, Floats]:
    """p − y, shape (n, labels); the vectors with a constant 1, shape (n, dimension + 1); p."""
    texts = [last_user(e.chat) for e in examples]
    p = np.asarray(model.probabilities(texts), np.float64).reshape(len(texts), len(model.labels))
    x = np.asarray(model.embed(texts), np.float64).reshape(len(texts), -1)
    y = np.zeros_like(p)
    y[np.arange(len(texts)), [model.labels.index(e.target) for e in examples]] = 1.0
    return p - y, np.hstack([x, np.ones((len(texts), 1))]), p


def _solve(matrix: Floats, right: Floats) -> Floats:
    damped = matrix + _DAMPING * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    found: Floats = np.linalg.solve(damped, right)
    return found
