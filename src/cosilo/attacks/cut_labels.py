"""What were the labels? A model in two hands sends gradients through its cut, and labels shape them.

The curious party holds the layers below the cut, and sees the gradient of the loss with respect to what
they gave. Two attacks on a classifier need nothing else (Li et al., "Label Leakage and Protection in
Two-party Split Learning", arXiv 2102.08504): the rarer label pulls harder, and gradients of equal
labels point the same way. Of a causal language model with a public output layer W, the gradient at the
last hidden state h is

    g = s (Wᵀ p − w_y)      p = softmax(W h): what the model foretells; y: the token that came next

and s one over the number of tokens. So whoever knows h reads y off it. Layers between the cut and the
end that are known, too, are no shelter (`labels_behind`): a state is moved by what comes after it
alone, so labels are read from the last place to the first, each through the layers' Jacobian there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.states import KnownLayers
from cosilo.models.base import Array, StatePast

Floats = NDArray[np.float64]
_AT_ONCE = 64
_ROWS = 8192
_STEP = 1e-2  # of a state's length: how far it is moved to see what layers make of that


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

    def gradient(self, state: Array, token: int, *, scale: float) -> Array:
        """The gradient at `state`, shape (width,), where `token` came next."""
        foretold, through = self._at(state)
        found: Array = (scale * ((foretold @ self.head - self.head[token]) @ through)).astype(
            np.float32
        )
        return found

    def next_token(self, seen: Array, state: Array, below: Array, *, scale: float) -> int:
        """The token that came next behind `state`, by the gradient in front of layers whose Jacobian
        there is `below`, shape (width, width): d state / d what they were given.
        """
        foretold, through = self._at(state)
        turned = (through @ below).astype(np.float32)
        best, least = 0, np.inf
        goal = (foretold @ self.head) @ turned - seen / scale
        for start in range(0, len(self.head), _ROWS):
            far = np.square(self.head[start : start + _ROWS] @ turned - goal).sum(axis=1)
            if far.min() < least:
                best, least = start + int(far.argmin()), float(far.min())
        return best

    def _at(self, state: Array) -> tuple[Array, Array]:
        """(what is foretold at `state`, how what W is given changes with it: shape (width, width))."""
        if self.gains is None:
            same: Array = np.eye(len(state), dtype=np.float32)
            return _softmax((self.head @ state)[None])[0], same
        x = state.astype(np.float64)
        r = np.sqrt(np.square(x).mean() + self.epsilon)
        given = (self.gains * (x / r)).astype(np.float32)
        change = (np.eye(len(x)) - np.outer(x, x) / (len(x) * r**2)) / r
        return _softmax((self.head @ given)[None])[0], np.asarray(
            self.gains[:, None] * change, np.float32
        )

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


async def labels_behind(
    model: KnownLayers,
    end: PublicEnd,
    gradients: Array,
    states: Array,
    first: int,
    last: int,
    *,
    scale: float,
) -> list[int]:
    """The token that the loss was about at each place, where layers lie between the cut and the end.

    Args:
        model: runs the layers.
        gradients: of the loss with respect to `states`, as they crossed, shape (n, width).
        states: what crossed the other way.
        first, last: the layers between, by how many a state has been through.
        scale: as for `PublicEnd.next_tokens`.
    """
    past, behind = await model.forward(None, states, first, last)
    found: list[int] = []
    opened = np.zeros_like(gradients)  # the gradient behind the layers, as far as labels are known
    for place in reversed(range(len(states))):
        before = past.fork(place) if place else None
        below = await _jacobian(model, before, states[place], first, last)
        seen = gradients[place]
        if found:
            seen = seen - (await model.backward(past, opened, first, last))[place]
        token = end.next_token(seen, behind[place], below, scale=scale)
        opened[place] = end.gradient(behind[place], token, scale=scale)
        found.append(token)
    return found[::-1]


async def _jacobian(
    model: KnownLayers, before: StatePast | None, state: Array, first: int, last: int
) -> Array:
    """How what comes of `state` behind `before` changes with it, by moving it a little each way."""
    step = _STEP * float(np.linalg.norm(state)) / np.sqrt(len(state))
    moves = step * np.eye(len(state), dtype=np.float32)
    up = await model.alternatives(before, state + moves, first, last)
    down = await model.alternatives(before, state - moves, first, last)
    found: Array = ((up - down) / (2 * step)).T
    return found
