"""What the votes of several models are worth, learned from items whose answer is known.

    item ─▶ north "refund"  ─▶ log P(says "refund" | the answer is …)  ┐
         ─▶ south "billing" ─▶ log P(says "billing" | the answer is …) ├▶ Σ ─▶ P(answer | votes)
         ─▶ small model     ─▶ its own log P(answer | item)            ┘

Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm"
(Applied Statistics 28, 1979): each annotator has a matrix of what it says when the answer is what. They
estimate it together with unknown answers; here the answers are the owner's, so that counting is
enough. Annotators that err together would count twice, so their evidence has one common weight, and
the small model's a second; both, and how far rows are drawn towards "right with one probability, else
anything", are those that predict each item best from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.strategies.saved import reading

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ABSENT = -1
"""The vote of a model that was not asked, or did not answer: it says nothing either way."""


@dataclass(frozen=True, eq=False)
class Ballot:
    """What models said about items, of `labels` possible answers.

    Attributes:
        votes: shape (items, models): the number of a label, `labels` where a reply names none, or
            `ABSENT`.
        view: the small model's log-probabilities, shape (items, labels); zeros where it has no view.
    """

    votes: Ints
    view: Floats
    labels: int

    def __len__(self) -> int:
        return len(self.view)

    def of(self, items: Ints) -> Ballot:
        """The same of some items."""
        return Ballot(self.votes[items], self.view[items], self.labels)

    def among(self, models: Sequence[int]) -> Ballot:
        """The same with some models only."""
        return Ballot(self.votes[:, list(models)], self.view, self.labels)


_PRIORS = (1.0, 4.0, 16.0)
_VOTES = (1.0, 0.5, 0.25)
_VIEWS = (0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """Each model's matrix of errors.

    Attributes:
        evidence: log P(vote | label), shape (models, labels, labels + 1).
        votes, view: the weights of the models' evidence, and of the small model's view.
        prior: log of the labels' shares, shape (labels,); a view has them in it already.
    """

    evidence: Floats
    votes: float
    view: float
    prior: Floats

    file: ClassVar[str] = "dawid_skene.npz"

    def posterior(self, ballot: Ballot) -> Floats:
        found = self.view * ballot.view + self.votes * _summed(self.evidence, ballot.votes)
        return normalised(found + (0.0 if self.view else self.prior))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = np.array([self.votes, self.view])
        np.savez(folder / self.file, evidence=self.evidence, weights=weights, prior=self.prior)

    @classmethod
    def load(cls, folder: Path) -> DawidSkene:
        """What `save` wrote.

        Raises:
            ConfigError: it is not there, or none.
        """
        held = arrays_of(folder / cls.file, ("evidence", "weights", "prior"))
        votes, view = held["weights"].tolist()
        return cls(held["evidence"], votes, view, held["prior"])

    @classmethod
    def fit(cls, ballot: Ballot, targets: Ints) -> DawidSkene:
        """From items with known answers, shape (items,)."""
        found, weights, prior = max(
            (_choice(ballot, targets, strength) for strength in _PRIORS), key=lambda c: c[0][0]
        )
        return cls(_evidence(ballot, targets, found[1]), *weights, np.log(prior))


def _choice(
    ballot: Ballot, targets: Ints, strength: float
) -> tuple[tuple[float, float], tuple[float, float], Floats]:
    """((how well items are predicted from the others, strength), the best weights, labels' shares)."""
    prior = (np.bincount(targets, minlength=ballot.labels) + 1) / (len(targets) + ballot.labels)
    summed = _left_out(ballot, targets, strength)
    has_view = bool(ballot.view.any())
    best: tuple[float, tuple[float, float]] = (-np.inf, (1.0, 0.0))
    for votes, view in product(_VOTES, _VIEWS if has_view else (0.0,)):
        found = view * ballot.view + votes * summed + (0.0 if has_view else np.log(prior))
        likelihood = float(np.log(normalised(found)[np.arange(len(targets)), targets]).mean())
        if likelihood > best[0] + 1e-9:
            best = likelihood, (votes, view)
    return (best[0], strength), best[1], prior


def _counts(ballot: Ballot, targets: Ints) -> Floats:
    """How often each model said what when the answer was what, shape (models, labels, labels + 1)."""
    models = ballot.votes.shape[1]
    counts = np.zeros((models, ballot.labels, ballot.labels + 1))
    for model in range(models):
        there = ballot.votes[:, model] != ABSENT
        np.add.at(counts[model], (targets[there], ballot.votes[there, model]), 1)
    return counts


def _drawn(counts: Floats, strength: float) -> Floats:
    """Probabilities of votes, drawn towards a matrix with one probability of being right."""
    labels = counts.shape[1]
    right = counts[:, range(labels), range(labels)].sum(axis=1)
    said = counts.sum(axis=(1, 2))
    nothing = (counts[:, :, labels].sum(axis=1) + 0.5) / (said + 1)
    share = (right + 1) / (said + 2)
    share = np.minimum(share, 1 - nothing)
    even = np.empty_like(counts)
    even[:, :, :labels] = ((1 - share - nothing) / max(1, labels - 1))[:, None, None]
    even[:, range(labels), range(labels)] = share[:, None]
    even[:, :, labels] = nothing[:, None]
    even = np.maximum(even, 1e-3)
    drawn = counts + strength * even
    return np.asarray(drawn / drawn.sum(axis=2, keepdims=True), dtype=np.float64)


def _evidence(ballot: Ballot, targets: Ints, strength: float) -> Floats:
    return np.log(_drawn(_counts(ballot, targets), strength))


def _left_out(ballot: Ballot, targets: Ints, strength: float) -> Floats:
    """Each item's summed evidence from matrices that were counted without it, shape (items, labels)."""
    counts = _counts(ballot, targets)
    summed = np.zeros((len(ballot), ballot.labels))
    models = range(ballot.votes.shape[1])
    for item, (row, target) in enumerate(zip(ballot.votes, targets, strict=True)):
        there = [m for m in models if row[m] != ABSENT]
        for m in there:
            counts[m, target, row[m]] -= 1
        if there:
            drawn = _drawn(counts[there], strength)
            summed[item] = np.log(drawn[range(len(there)), :, row[there]]).sum(axis=0)
        for m in there:
            counts[m, target, row[m]] += 1
    return summed


def _summed(evidence: Floats, votes: Ints) -> Floats:
    """Σ over models of the evidence of its vote, shape (items, labels)."""
    summed = np.zeros((len(votes), evidence.shape[1]))
    for model in range(evidence.shape[0]):
        there = votes[:, model] != ABSENT
        summed[there] += evidence[model][:, votes[there, model]].T
    return summed


def normalised(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)


def arrays_of(file: Path, names: Sequence[str]) -> dict[str, Floats]:
    with reading(file, "votes' worth") as held:
        return {name: np.asarray(held[name], dtype=np.float64) for name in names}


def affordable(
    ballot: Ballot, targets: Ints, prices: Sequence[float], limit: float | None
) -> list[int]:
    """Which models to ask, in order: the next one is always that whose votes help most.

    Args:
        prices: of one question to each model, in the unit of `limit`.
        limit: of all of them together; None for no limit.

    Returns:
        One model at least, unless each of them is above `limit`: then none.
    """
    chosen: list[int] = []
    best = -np.inf
    while True:
        spent = sum(prices[m] for m in chosen)
        left = [
            m
            for m in range(ballot.votes.shape[1])
            if m not in chosen and (limit is None or spent + prices[m] <= limit + 1e-12)
        ]
        tried = [(_predicted(ballot.among([*chosen, m]), targets), -prices[m], m) for m in left]
        if not tried:
            return chosen
        likelihood, _, model = max(tried)
        if chosen and likelihood <= best:
            return chosen
        chosen, best = [*chosen, model], likelihood


def _predicted(ballot: Ballot, targets: Ints) -> float:
    return max(_choice(ballot, targets, strength)[0][0] for strength in _PRIORS)
