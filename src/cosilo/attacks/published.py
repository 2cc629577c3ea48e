"""Was this record among those that a published model was trained on?

The attacker holds the trained small model (the view's `published`), because its owner gives it away
or sells its answers, and texts with their labels, of which a half were trained on. Shokri et al.,
"Membership Inference Attacks against Machine Learning Models" (arXiv 1610.05820); Carlini et al.,
"Membership Inference Attacks From First Principles" (arXiv 2112.03570); Shi et al., "Detecting
Pretraining Data from Large Language Models" (arXiv 2310.16789); Carlini et al., "Extracting Training
Data from Large Language Models" (arXiv 2012.07805).

A split may be guessable without any training: put the same attack to a model that was trained on none
of the texts, and read its success as the base rate.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.errors import RejectedError
from cosilo.models.base import Array, Classifier, Embedder, Tokens
from cosilo.models.encoder.head import PACKAGES, TrainedHead, train
from cosilo.registry import Loads
from cosilo.types import Chat, Demonstration, last_user

Floats = NDArray[np.float64]

_LOWEST = 0.2  # of a reply's tokens, for Min-K%
_BATCH = 16


Reply = tuple[Chat, str]


@runtime_checkable
class Scoring(Protocol):
    """The members of a `LogitModel` that scoring a reply needs."""

    def tokenize(self, chat: Chat, reply: str) -> Tokens: ...
    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]: ...


@runtime_checkable
class KnownScores(Protocol):
    """A model whose scores of replies are known already."""

    async def logprobs(self, replies: Sequence[Reply]) -> list[Floats]:
        """The log-probability of each token of each reply, given its chat."""


class Learner(Protocol):
    """Trains copies of what the attacker takes the published model to be."""

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Classifier: ...


class _OnModel:
    about: ClassVar[str] = "published"

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        """One number per target, the higher the more likely trained on; None where this attack does
        not apply to the published model."""
        raise NotImplementedError

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        found = await self.scores(view, targets) if view.published is not None and targets else None
        if found is None:
            return [Guess(t.id, "", 0.5) for t in targets]
        return [
            Guess(t.id, "record", 0.5 + math.atan(float(s)) / math.pi)
            for t, s in zip(targets, found, strict=True)
        ]


@attacks.register("loss")
class Loss(_OnModel):
    """The surer the model is of the label, the more likely it has seen it."""

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        if isinstance(view.published, Classifier):
            return _margins(view.published, targets)
        found = await _logprobs(view.published, targets)
        return None if found is None else _each(found, np.mean)


@attacks.register("confidence")
class Confidence(_OnModel):
    """The surer the model is of whatever it says, the more likely: the label need not be known."""

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        if not isinstance(view.published, Classifier):
            return None
        rows = view.published.probabilities([last_user(t.chat) for t in targets])
        top = np.clip(rows.max(axis=1).astype(np.float64), 1e-6, 1 - 1e-6)
        found: Floats = np.log(top) - np.log1p(-top)
        return found


@attacks.register("min_k")
class MinK(_OnModel):
    """The mean of the least likely fifth of the reply's tokens; for models that show logits."""

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        found = await _logprobs(view.published, targets)
        if found is None:
            return None
        return _each(found, lambda x: np.sort(x)[: max(1, round(_LOWEST * len(x)))].mean())


@attacks.register("zlib")
class Zlib(_OnModel):
    """The surer the model is of the reply for how much there is in it: its log-probability by the
    length that zlib makes of it; for models that show logits."""

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        found = await _logprobs(view.published, targets)
        if found is None:
            return None
        sizes = [len(zlib.compress(t.label.encode())) for t in targets]
        return _each(
            [x / size for x, size in zip(found, sizes, strict=True)], lambda x: float(x.sum())
        )


@attacks.register("reference")
class Reference(_OnModel):
    """How much surer the model is of the reply than the public one that it was trained from."""

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        found = await _logprobs(view.published, targets)
        before = await _logprobs(view.untrained, targets)
        if found is None or before is None:
            return None
        gained = [
            x - y if len(x) == len(y) else np.zeros(0) for x, y in zip(found, before, strict=True)
        ]
        return _each(gained, np.mean)


@attacks.register("calibrated", loads=Loads(packages=PACKAGES))
class Calibrated(_OnModel):
    """LiRA: the model's margin, against the margins of models trained with the text and without it.

    The attacker trains `shadows` models on random halves of its own texts. Each text is then in about
    half of them; the margins of both halves are taken as Gaussians with each text's own means and a
    common spread, as the paper does where shadows are few.

    Args:
        shadows: how many.
        learner: what trains them; by default a head on the view's encoder.
    """

    def __init__(self, shadows: int = 16, learner: Learner | None = None) -> None:
        if shadows < 4:
            raise ValueError(f"shadows = {shadows!r}: too few to tell in from out; 4 or more")
        self.shadows = shadows
        self.learner = learner

    async def scores(self, view: View, targets: Sequence[Target]) -> Floats | None:
        learner = self.learner or (_Heads(view.embedder) if view.embedder is not None else None)
        if not isinstance(view.published, Classifier) or learner is None:
            return None
        rng = np.random.default_rng(0)
        order = np.array([rng.permutation(len(targets)) for _ in range((self.shadows + 1) // 2)])
        # Halves and their complements: every text is in exactly half of the shadows.
        inside = np.concatenate([order < len(targets) / 2, order >= len(targets) / 2])
        inside = inside[: self.shadows]
        margins = np.array(
            [
                _margins(learner.fit(_examples(targets, row), seed=i), targets)
                for i, row in enumerate(inside)
            ]
        )
        return _ratios(_margins(view.published, targets), margins, inside)


def _ratios(margins: Floats, shadow: Floats, inside: NDArray[np.bool_]) -> Floats:
    """log N(margin; in) − log N(margin; out), shapes (n,), (shadows, n), (shadows, n)."""
    means, spreads = [], []
    for mask in (inside, ~inside):
        count = np.maximum(mask.sum(axis=0), 1)
        mean = np.where(mask, shadow, 0).sum(axis=0) / count
        left = np.where(mask, shadow - mean, 0)
        means.append(mean)
        spreads.append(max(1e-3, math.sqrt((left**2).sum() / max(1, mask.sum() - len(mean)))))
    (m_in, m_out), (s_in, s_out) = means, spreads
    found: Floats = (
        (margins - m_out) ** 2 / (2 * s_out**2)
        - (margins - m_in) ** 2 / (2 * s_in**2)
        + math.log(s_out / s_in)
    )
    return found


def _margins(model: Classifier, targets: Sequence[Target]) -> Floats:
    """log p/(1 − p) of each target's label; the floor where the model does not know the label."""
    rows = model.probabilities([last_user(t.chat) for t in targets])
    column = {label: i for i, label in enumerate(model.labels)}
    p = np.array(
        [
            row[column[t.label]] if t.label in column else 0.0
            for row, t in zip(rows, targets, strict=True)
        ],
        dtype=np.float64,
    )
    p = np.clip(p, 1e-6, 1 - 1e-6)
    found: Floats = np.log(p) - np.log1p(-p)
    return found


def _examples(targets: Sequence[Target], mask: NDArray[np.bool_]) -> list[Demonstration]:
    return [
        Demonstration(t.id, t.chat, t.label)
        for t, taken in zip(targets, mask, strict=True)
        if taken
    ]


def _each(found: Sequence[Floats], score: Callable[[Floats], Any]) -> Floats:
    """The score of each entry of `found`. An entry that the model could not read gets the median of
    the others, which says nothing either way.
    """
    scores = np.array([score(x) if len(x) else np.nan for x in found], dtype=np.float64)
    if np.isnan(scores).any():
        known = scores[~np.isnan(scores)]
        scores[np.isnan(scores)] = np.median(known) if len(known) else 0.0
    return scores


async def _logprobs(model: object, targets: Sequence[Target]) -> list[Floats] | None:
    """The log-probabilities of each target's label, token by token; None from a model that shows
    none.
    """
    replies = [(t.chat, t.label) for t in targets]
    if isinstance(model, KnownScores):
        return await model.logprobs(replies)
    return await reply_logprobs(model, replies) if isinstance(model, Scoring) else None


async def reply_logprobs(model: Scoring, replies: Sequence[Reply]) -> list[Floats]:
    """The log-probability of each token of each reply, given its chat; empty where the model takes
    no text of that length."""
    found: list[Floats] = []
    for start in range(0, len(replies), _BATCH):
        tokens = [model.tokenize(*reply) for reply in replies[start : start + _BATCH]]
        try:
            every: list[Array | None] = list(await model.logits(tokens))
        except RejectedError:
            every = [await _logits(model, sequence) for sequence in tokens]
        for sequence, logits in zip(tokens, every, strict=True):
            if logits is None:
                found.append(np.zeros(0))
                continue
            wide = logits.astype(np.float64)
            wide -= wide.max(axis=1, keepdims=True)
            said = sequence.ids[sequence.start :]
            picked = wide[np.arange(len(said)), said]
            found.append(picked - np.log(np.exp(wide).sum(axis=1)))
    return found


async def _logits(model: Scoring, sequence: Tokens) -> Array | None:
    try:
        return (await model.logits([sequence]))[0]
    except RejectedError:
        return None


class _Heads:
    """Linear heads on the attacker's encoder."""

    def __init__(self, encoder: Embedder) -> None:
        self._encoder = encoder

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Classifier:
        texts, labels = [last_user(e.chat) for e in examples], [e.target for e in examples]
        return _Headed(self._encoder, train(self._encoder.embed(texts), texts, labels, seed=seed))


class _Headed:
    def __init__(self, encoder: Embedder, head: TrainedHead) -> None:
        self._encoder, self._head = encoder, head
        self.labels = head.labels

    def probabilities(self, texts: Sequence[str]) -> Array:
        return self._head.probabilities(self._encoder.embed(texts), texts)
