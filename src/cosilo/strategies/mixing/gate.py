"""How much to believe the large model at a place, learned from replies that were right.

    what both say there ──▶ a few numbers ──▶ layer of `HIDDEN` ──▶ w      (both are asked)
    what home says there ─▶ a few numbers ──▶ linear ─────────────▶ w      (before the LM is asked)

Both maximise the marginal likelihood of the reply, Σ log(w p_LM + (1 − w) p_home), as Co-LLM does
(Shen et al., arXiv 2403.03870). The numbers say how sure each is and how far they agree: the whole
logits, which CoGenesis' gate reads (arXiv 2403.03129), do not cross, and a model in llama.cpp shows no
states, which Co-LLM's head reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.strategies.mixing.numbers import Row

Floats = NDArray[np.float64]

HIDDEN = 8
LIKELIEST = 4  # of a model's tokens that are looked at one by one
OF_BOTH, AT_HOME = 7, 1 + LIKELIEST  # numbers

_STEPS, _RATE, _DECAY = 400, 0.05, 1e-3


def seen_at_home(small: Row) -> Floats:
    """How sure a model is: its entropy, and the log-probabilities of its likeliest tokens."""
    top = np.sort(np.partition(small, -LIKELIEST)[-LIKELIEST:])[::-1]
    return np.array([_entropy(small), *np.maximum(top, -30.0)])


def seen_of_both(large: Row, small: Row) -> Floats:
    """How sure both are, what each makes of the other's likeliest token, and how much they share."""
    one, two = int(np.argmax(large)), int(np.argmax(small))
    told = [large[one], small[two], small[one], large[two]]
    shared = float(np.exp(np.minimum(large, small)).sum())
    return np.array([_entropy(large), _entropy(small), *np.maximum(told, -30.0), shared])


def _entropy(row: Row) -> float:
    p = np.exp(row)
    return -float(p @ np.where(p > 0, row, 0.0))


@dataclass(frozen=True, eq=False)
class Gate:
    """A learned share of the large model.

    Attributes:
        numbers: its parameters in a row: means and scales of what is seen, then the weights.
        seen: how many numbers it looks at.
        hidden: the width of its layer; 0 for a linear one.
    """

    numbers: tuple[float, ...]
    seen: int
    hidden: int

    def __post_init__(self) -> None:
        if len(self.numbers) != _size(self.seen, self.hidden):
            raise ValueError(
                f"a gate of {self.seen} numbers has not {len(self.numbers)} parameters"
            )

    def __call__(self, seen: Floats) -> Floats:
        """The share at each place: (n, numbers) → (n,)."""
        flat = np.array(self.numbers)
        mean, scale = flat[: self.seen], flat[self.seen : 2 * self.seen]
        return _sigmoid(_score(flat[2 * self.seen :], (seen - mean) / scale, self.hidden)[0])


@dataclass(frozen=True, eq=False)
class GateLesson:
    """Places of right replies.

    Attributes:
        seen: what the gate looks at, (n, numbers).
        large, small: the probability that each gives the token that stands there, (n,).
    """

    seen: Floats
    large: Floats
    small: Floats


def learned(lesson: GateLesson, hidden: int, *, seed: int = 0) -> Gate:
    """The gate that makes what is right likeliest (Adam on all places at once; weights decay)."""
    mean, scale = lesson.seen.mean(axis=0), lesson.seen.std(axis=0) + 1e-6
    x = (lesson.seen - mean) / scale
    flat = np.random.default_rng(seed).normal(size=_size(x.shape[1], hidden) - 2 * x.shape[1]) * 0.1
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    for step in range(1, _STEPS + 1):
        gradient = slope(lesson, x, flat, hidden) + _DECAY * flat
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        ahead = first / (1 - 0.9**step)
        flat = flat - _RATE * ahead / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return Gate((*mean.tolist(), *scale.tolist(), *flat.tolist()), x.shape[1], hidden)


def loss(lesson: GateLesson, x: Floats, flat: Floats, hidden: int) -> float:
    """Nats of a token, on average."""
    w = _sigmoid(_score(flat, x, hidden)[0])
    return -float(np.log(w * lesson.large + (1 - w) * lesson.small + 1e-12).mean())


def slope(lesson: GateLesson, x: Floats, flat: Floats, hidden: int) -> Floats:
    """The gradient of `loss` with respect to the weights."""
    score, layer = _score(flat, x, hidden)
    w = _sigmoid(score)
    mixed = w * lesson.large + (1 - w) * lesson.small + 1e-12
    back = -(lesson.large - lesson.small) * w * (1 - w) / mixed / len(x)
    if not hidden:
        return np.concatenate([back @ x, [back.sum()]])
    out = flat[hidden * x.shape[1] + hidden : -1]
    behind = np.outer(back, out) * (1 - layer**2)
    return np.concatenate([(behind.T @ x).ravel(), behind.sum(axis=0), back @ layer, [back.sum()]])


def _score(flat: Floats, x: Floats, hidden: int) -> tuple[Floats, Floats]:
    if not hidden:
        return x @ flat[:-1] + flat[-1], x
    cut = hidden * x.shape[1]
    layer = np.tanh(x @ flat[:cut].reshape(hidden, -1).T + flat[cut : cut + hidden])
    return layer @ flat[cut + hidden : -1] + flat[-1], layer


def _sigmoid(score: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(score / 2)))


def _size(seen: int, hidden: int) -> int:
    return 2 * seen + (hidden * (seen + 2) + 1 if hidden else seen + 1)


def quantile(gate: Gate, seen: Sequence[Floats], share: float) -> float:
    """The threshold above which the gate lies at that share of places, never at more."""
    shares = np.sort(np.concatenate([gate(each) for each in seen]))[::-1]
    asked = int(share * len(shares))
    if not asked:
        return 1.0
    return float(shares[asked]) if asked < len(shares) else 0.0
