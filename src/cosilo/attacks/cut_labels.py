"""What were the labels? A model in two hands sends gradients through its cut, and labels shape them.

The curious party holds the layers below the cut, and sees the gradient of the loss with respect to what
they gave. Two attacks on a classifier need nothing else (Li et al., "Label Leakage and Protection in
Two-party Split Learning", arXiv 2102.08504): the rarer label pulls harder, and gradients of equal
labels point the same way. Of a causal language model with a public output layer W, the gradient at the
last hidden state h is

    g = s (Wᵀ p − w_y)      p = softmax(W h): what the model foretells; y: the token that came next

and s one over the number of tokens. So whoever knows h reads y off it. Layers between the cut and the
end that are known, too, are undone first (`before_layers`): the states that they were given are known
to whoever sent them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import Array

Floats = NDArray[np.float64]
Back = Callable[[Array], Awaitable[Array]]
"""From the gradient behind layers to the gradient in front of them, of the same shape; linear."""

_AT_ONCE = 64


def norm_scores(gradients: Array) -> Floats:
    """Of each example's gradient how hard it pulls: of two labels the rarer one pulls harder.

    Args:
        gradients: shape (examples, width).
    """
    found: Floats = np.linalg.norm(gradients, axis=1).astype(np.float64)
    return found


def cosine_scores(gradients: Array, known: Array) -> Floats:
    """How far each example's gradient points the way of that of one whose label is known."""
    sizes = np.linalg.norm(gradients, axis=1) * max(float(np.linalg.norm(known)), 1e-30)
    found: Floats = (gradients @ known).astype(np.float64) / np.maximum(sizes, 1e-30)
    return found


@dataclass(frozen=True, eq=False)
class PublicEnd:
    """The end of a public model: x ─▶ gains · x / √(mean x² + epsilon) ─▶ W.

    Attributes:
        head: W, shape (vocabulary, width).
        gains: of the last norm, shape (width,); None where states are given behind it.
    """

    head: Array
    gains: Array | None = None
    epsilon: float = 0.0

    def next_tokens(self, gradients: Array, states: Array, *, scale: float) -> list[int]:
        """The token that the loss was about at each place.

        The token is taken whose own gradient is nearest to what was seen: with noise in any direction
        it is the likeliest.

        Args:
            gradients: of the loss with respect to `states`, shape (n, width).
            states: in front of the norm, or behind it where there are no gains.
            scale: s, one over the tokens of the loss where it is their mean.
        """
        found: list[int] = []
        for start in range(0, len(states), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            far = self._far(gradients[some].astype(np.float64) / scale, states[some])
            found += [int(i) for i in far.argmin(axis=1)]
        return found

    def _far(self, seen: Floats, states: Array) -> Floats:
        """The squared distance of each place's gradient to what each token's would be, less a constant;
        shape (n, vocabulary).

        With r = √(mean x² + epsilon), J = (I − x xᵀ / (d r²)) / r, W' = W · gains and t = J W'ᵀ p − g
        it is |t − J w'_y|² = |t|² − 2 (J t) · w'_y + |J w'_y|².
        """
        head: Array = self.head if self.gains is None else self.head * self.gains
        x = states.astype(np.float64)
        if self.gains is None:
            foretold = _softmax(states @ head.T)
            left = foretold @ head - seen
            sizes = np.square(head).sum(axis=1)[None]
            return np.asarray(sizes - 2 * (left.astype(np.float32) @ head.T), np.float64)
        width = x.shape[1]
        r = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + self.epsilon)
        logits: Array = (x / r).astype(np.float32) @ head.T

        def through(rows: Floats) -> Floats:
            along = (rows * x).sum(axis=1, keepdims=True)
            found: Floats = (rows - x * along / (width * r**2)) / r
            return found

        left = through((_softmax(logits) @ head).astype(np.float64)) - seen
        onto = logits * r  # x · w'_y
        shrink = 2 / (width * r**4) - np.square(x).sum(axis=1, keepdims=True) / (width**2 * r**6)
        sizes = np.square(head).sum(axis=1)[None] / r**2 - np.square(onto) * shrink
        return np.asarray(sizes - 2 * (through(left).astype(np.float32) @ head.T), np.float64)


def _softmax(logits: Array) -> Array:
    wide: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    wide /= wide.sum(axis=1, keepdims=True)
    return wide


async def before_layers(back: Back, seen: Array, *, turns: int = 40, enough: float = 1e-3) -> Array:
    """The gradient behind known layers, from the one in front of them: `back` undone by GMRES (Saad and
    Schultz, 1986), which calls it once a turn.

    Args:
        seen: what crossed the cut, shape (positions, width).
        enough: the residual, as a share of `seen`, at which no further turn is made.
    """
    shape, goal = seen.shape, seen.astype(np.float64).ravel()
    size = float(np.linalg.norm(goal))
    if not size:
        return np.zeros_like(seen)
    basis, rows = [goal / size], np.zeros((turns + 1, turns))
    solved: Floats = np.zeros(0)
    for j in range(turns):
        new = (await back(basis[j].reshape(shape).astype(np.float32))).astype(np.float64).ravel()
        for i, known in enumerate(basis):
            rows[i, j] = known @ new
            new = new - rows[i, j] * known
        rows[j + 1, j] = np.linalg.norm(new)
        wanted = np.zeros(j + 2)
        wanted[0] = size
        used = rows[: j + 2, : j + 1]
        solved = np.asarray(np.linalg.lstsq(used, wanted, rcond=None)[0], np.float64)
        if np.linalg.norm(used @ solved - wanted) < enough * size or rows[j + 1, j] < 1e-12 * size:
            break
        basis.append(new / rows[j + 1, j])
    found = sum(c * b for c, b in zip(solved, basis, strict=False))
    return np.asarray(found, np.float32).reshape(shape)
