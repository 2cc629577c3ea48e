"""Which tokens was this update made of? What the first layer is given stands in its gradient.

    update of W (or of LoRA's A) = Σ δᵢ xᵢᵀ      xᵢ: what the first layer is given for token i, public
    span check: a token was there if its x lies in the span of the update's rows
    pursuit:    the fewest tokens that explain the rows, found one after the other

The curious party is whoever receives an owner's gradient or update: a coordinator, or the LM's owner.
The x of each token is known, since embeddings and the first norm are a public model's and stay frozen,
and attention turns positions in only later. So the rows that q, k and v changed by are sums of the x of
the tokens that an owner trained on, over all its steps as long as its optimiser adds gradients up.

The span check (Petrov et al., "DAGER: Exact Gradient Inversion for Large Language Models", arXiv
2405.15586) says all where there are fewer tokens than rows, and little beyond: a LoRA of low rank stops
it. It does not stop the pursuit, which asks for less: that few tokens of many explain what the rows
have in common (rank-aware order-recursive matching pursuit: Davies and Eldar, "Rank Awareness in Joint
Sparse Recovery", arXiv 1004.4529). With as many rows as tokens it is the span check; with a single row
it is ordinary sparse recovery, which needs some numbers in the row for each token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import Array

Floats = NDArray[np.float64]

ROUNDING = 1e-5
"""Singular values below this share of the largest are taken for rounding."""
IN_SPAN = 0.02
"""The sine of an angle to the span below which a token counts as in it."""
EXPLAINED = 1e-3
"""The share of an update, by its norm, that may be left over when all of it counts as explained."""
DIRECTIONS = 64
"""Of an update's rows so many directions, the strongest, are looked at in a pursuit."""

_UNLIKELY = (
    4.0  # noise alone is that much longer once in three thousand times (Davidson and Szarek)
)
_PRIOR = 0.03  # chosen on train texts of banking77: what a nat of a token's commonness is worth
_FIRST = re.compile(
    r"\b(?:layers|h|blocks)\.0\.(?:\w+\.)?(?:q_proj|k_proj|v_proj|qkv_proj|c_attn|query_key_value)\b"
)


@dataclass(frozen=True, eq=False)
class RowSpan:
    """What the rows of a gradient span.

    Attributes:
        basis: orthonormal rows, shape (rank, width).
    """

    basis: Array

    @classmethod
    def of(cls, rows: Array, *, noise: float = 0.0) -> RowSpan:
        """The span of `rows`, shape (n, width), as far as it stands out of rounding, or of independent
        noise of the standard deviation `noise`: the attacker knows the mechanism.
        """
        _, values, right = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
        edge = max(
            ROUNDING * float(values[0]) if len(values) else 0.0,
            noise * (np.sqrt(rows.shape[0]) + np.sqrt(rows.shape[1]) + _UNLIKELY),
        )
        return cls(right[values > edge].astype(np.float32))

    def sines(self, inputs: Array) -> Floats:
        """Of each of `inputs`, shape (n, width), the sine of its angle to the span: 0 within it, 1 at a
        right angle to it.
        """
        along = np.square(inputs @ self.basis.T).sum(axis=1, dtype=np.float64)
        whole = np.maximum(np.square(inputs).sum(axis=1, dtype=np.float64), 1e-30)
        found: Floats = np.sqrt(np.clip(1 - along / whole, 0, 1))
        return found


def within(sines: Floats) -> list[int]:
    """The tokens that lie in the span."""
    return [int(i) for i in np.flatnonzero(sines < IN_SPAN)]


def nearest(scores: Floats, count: int) -> list[int]:
    """The `count` tokens of the smallest scores."""
    return [int(i) for i in np.argsort(scores, kind="stable")[:count]]


@dataclass(frozen=True, eq=False)
class Pursued:
    """Attributes:
    tokens: in the order in which they were found.
    left: the share of the update, by its norm, that they do not explain.
    """

    tokens: list[int]
    left: float


def pursue(
    rows: Array,
    inputs: Array,
    *,
    count: int | None = None,
    known: Sequence[int] = (),
    common: Floats | None = None,
    directions: int = DIRECTIONS,
) -> Pursued:
    """The tokens that `rows` were made of, one after the other: each time the one whose part that is
    not explained yet lies nearest to what is left of the rows.

    Args:
        rows: of an update, shape (n, width).
        inputs: what the first layer is given for each token, shape (vocabulary, width).
        count: of tokens, beside those that are known; by default until the rows are explained.
        known: tokens that stand in every text (a chat template's, say): they explain first.
        common: the logarithm of each token's probability in public texts, where the attacker uses it.
        directions: how many of the rows' strongest are looked at.
    """
    _, values, right = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    kept = (
        (values > 1e-6 * values[0])[:directions] if len(values) and values[0] else np.zeros(0, bool)
    )
    strong = values[:directions][kept]
    left = (right[:directions][kept] * strong[:, None]).T  # (width, k): what is left of the rows
    whole = float(np.linalg.norm(left))
    # More than half as many tokens as there are numbers have no one explanation (Chen and Huo, 2006).
    most = (inputs.shape[1] + left.shape[1]) // 2 if count is None else count
    if not whole:
        return Pursued([], 0.0)
    seen = inputs @ left.astype(np.float32)  # (vocabulary, k)
    size = np.square(inputs).sum(axis=1, dtype=np.float64)
    open_size, found = size.copy(), list[int]()
    basis = np.zeros((inputs.shape[1], 0))

    def explain(token: int) -> bool:
        """Take what `token` explains out of what is left; False where it explains nothing more."""
        nonlocal basis, open_size, left, seen
        new = inputs[token].astype(np.float64)
        for _ in range(2):  # twice is enough to stay orthogonal
            new -= basis @ (basis.T @ new)
        length = float(np.linalg.norm(new))
        if length < 1e-6 * np.sqrt(size[token]) or not length:
            return False
        new /= length
        basis = np.concatenate([basis, new[:, None]], axis=1)
        shown, part = inputs @ new.astype(np.float32), new @ left
        open_size = open_size - np.square(shown, dtype=np.float64)
        left = left - np.outer(new, part)
        seen = seen - np.outer(shown, part.astype(np.float32))
        return True

    for token in dict.fromkeys(known):
        explain(token)
    taken = list(known)
    lean = 0.0 if common is None else _PRIOR * common
    while len(found) < most:
        if count is None and np.linalg.norm(left) < EXPLAINED * whole:
            break
        squares, turn = np.linalg.eigh(left.T @ left)
        lengths = np.sqrt(np.maximum(squares, 0))
        alive = lengths > ROUNDING * strong[0]
        if not alive.any():
            break
        along = seen @ (turn[:, alive] / lengths[alive]).astype(np.float32)
        near = np.square(along).sum(axis=1) / np.maximum(open_size, 1e-3 * size + 1e-30) + lean
        near[taken] = -np.inf
        best = int(near.argmax())
        taken.append(best)
        if not explain(best):
            break
        found.append(best)
    return Pursued(found, float(np.linalg.norm(left)) / whole)


def first_rows(update: Mapping[str, Array]) -> Array | None:
    """The rows of `update` that are sums of what the first layer is given: of the full gradients of its
    q, k and v, or of their LoRA's A, one below the other. None where it has none.

    Args:
        update: by the names of parameters, as a model of the Llama or GPT-2 kind has them.
    """
    rows = [
        tensor
        for name, tensor in sorted(update.items())
        if _FIRST.search(name) and tensor.ndim == 2 and "lora_B" not in name
    ]
    return np.concatenate(rows).astype(np.float32) if rows else None


def first_columns(
    update: Mapping[str, Array], before: Mapping[str, Array]
) -> list[tuple[Array, Array]]:
    """Of q, k and v each the change of B and the A that it was made with: rows are sums of A x. Where B
    began as nothing, A has not changed after one step, and this is all there is.
    """
    return [
        (tensor.astype(np.float32), before[name.replace("lora_B", "lora_A")])
        for name, tensor in sorted(update.items())
        if _FIRST.search(name) and "lora_B" in name
    ]


def heaviest(gradient: Array, count: int) -> list[int]:
    """The tokens of the longest rows of an embedding's gradient, which has rows for those that were
    read; where the output layer is the same matrix, small ones for all others, too.
    """
    return nearest(-np.linalg.norm(gradient, axis=1).astype(np.float64), count)


def log_shares(counts: Sequence[float] | Floats) -> Floats:
    """The logarithm of each token's share of public texts; of those that were not seen, of a twentieth
    of a token.
    """
    smooth = np.asarray(counts, np.float64) + 0.05
    found: Floats = np.log(smooth / smooth.sum())
    return found


def recovered(found: Iterable[int], truth: Collection[int]) -> tuple[float, float]:
    """(recall, precision): the share of `truth` that was found, and of what was found that is true; 1
    where nothing was found."""
    said, known = set(found), set(truth)
    right = len(said & known)
    return right / max(1, len(known)), right / len(said) if said else 1.0


def likeness(update: Mapping[str, Array], own: Mapping[str, Array]) -> float:
    """How far `update`, of one owner or of many together, points the way of `own`: the cosine. Whoever
    holds an owner's texts, and knows the method, makes its update again, and asks so whether that owner
    took part.

    Raises:
        ValueError: they have no tensor in common.
    """
    names = sorted(update.keys() & own.keys())
    if not names:
        raise ValueError("the two updates have no tensor in common")
    a, b = (np.concatenate([u[n].ravel() for n in names]).astype(np.float64) for u in (update, own))
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if sizes else 0.0
