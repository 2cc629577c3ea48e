"""Was this record among those that a strategy learned from? Two readers of what preparing sent up.

The attacker holds texts with their labels, some of which were records and some of which were not, knows
the method, the label set and the sentence encoder, and does not know the other records. Scores are
ordered: the higher, the more likely a record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.record import texts, upstream
from cosilo.models.base import Array, Embedder
from cosilo.types import last_user

Floats = NDArray[np.float64]

_LEAST = 8  # characters of a text that can be told from a chance find
_NOISES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
_PRIOR = 0.5  # share of the attacker's texts that are records


@attacks.register("nearest_text")
class NearestText:
    """The nearer a text that went up, the more likely: a record that was sent itself is found."""

    about: ClassVar[str] = "members"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        sent = sorted({text for _, pieces in upstream(view) for text in pieces})
        if not sent or view.embedder is None or not targets:
            return [_unsure(t) for t in targets]
        near = view.embedder.embed([last_user(t.chat) for t in targets])
        found = (near @ view.embedder.embed(sent).T).max(axis=1)
        return [_guess(t, float(s)) for t, s in zip(targets, found, strict=True)]


@attacks.register("votes")
class Votes:
    """Which candidates went back to the LM, against who would have voted for them.

    For private evolution, and for all that sends the LM's own texts back to it by how near they are to
    records. A record votes for the nearest candidate of its label in each round. The attacker knows how
    many of its texts would vote for each candidate, of which a half are records, and sees which
    candidates were chosen; the noise and how many votes were enough it fits to that. Its score is the
    log-likelihood ratio of "its nearest was chosen, or not, with its vote" against "without".
    """

    about: ClassVar[str] = "members"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        labels = sorted({t.label for t in targets})
        found = rounds(view, labels)
        if not found or view.embedder is None or not targets:
            return [_unsure(t) for t in targets]
        polls = [
            each for round_ in found for each in _polls(round_, targets, labels, view.embedder)
        ]
        scores = likelihood_ratios(polls, len(targets))
        return [_guess(t, float(s)) for t, s in zip(targets, scores, strict=True)]


@dataclass
class Round:
    """What the LM had written when a vote was held, and which of it came back.

    Attributes:
        candidates: text → the label it was asked for; "" where the prompt named none.
        chosen: those that stood in what went up next.
    """

    candidates: dict[str, str] = field(default_factory=dict)
    chosen: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Poll:
    """One vote over the candidates of one label, as the attacker knows it.

    Attributes:
        votes: how many of the attacker's texts have each candidate as their nearest.
        chosen: which went up again, 1 or 0.
        nearest: each text's candidate, as an index.
    """

    votes: NDArray[np.int64]
    chosen: NDArray[np.int64]
    nearest: NDArray[np.int64]

    def fitted(self, sigma: float) -> tuple[float, float]:
        """(the threshold that explains best what was chosen, its log-likelihood)."""
        most = int(self.votes.max(initial=0))
        chance = _chances(sigma, most, 0)[self.votes]
        fits = np.where(self.chosen[:, None] == 1, np.log(chance), np.log1p(-chance)).sum(axis=0)
        best = int(fits.argmax())
        return float(_thresholds(most)[best]), float(fits[best])

    def ratios(self, sigma: float, threshold: float) -> Floats:
        """Per text: log P(what became of its candidate | it voted) − log P(… | it did not)."""
        most = int(self.votes.max(initial=0))
        column = int(np.abs(_thresholds(most) - threshold).argmin())
        others = np.maximum(self.votes - 1, 0)
        with_ = _chances(sigma, most, 1)[others, column]
        without = _chances(sigma, most, 0)[others, column]
        chosen = np.log(with_) - np.log(without)
        passed = np.log1p(-with_) - np.log1p(-without)
        each = np.where(self.chosen == 1, chosen, passed)
        found: Floats = each[self.nearest]
        return found


def likelihood_ratios(polls: Sequence[tuple[NDArray[np.int64], Poll]], count: int) -> Floats:
    """The score of each of `count` texts over all votes, each with the texts that took part in it.

    One noise is fitted to all votes, a threshold to each.
    """
    scores = np.zeros(count)
    noise = max(_NOISES, key=lambda sigma: sum(poll.fitted(sigma)[1] for _, poll in polls))
    for rows, poll in polls:
        scores[rows] += poll.ratios(noise, poll.fitted(noise)[0])
    return scores


def rounds(view: View, labels: Sequence[str]) -> list[Round]:
    """The votes on record, in order: what had come down, and which of it went up again.

    Messages whose requests differ in their last part only ("evolve/2/0", "evolve/2/7") are of one
    round.
    """
    found: list[Round] = []
    known: dict[str, str] = {}  # the candidates of the next vote
    came: dict[str, str] = {}
    asked: dict[str, str] = {}  # request → the label it asked for
    group: str | None = None
    for entry in view.entries():
        name = entry.request.rpartition("/")[0]
        pieces = texts(entry.message)
        if entry.direction == "down":
            label = asked.get(entry.request, "")
            came.update((line, label) for text in pieces for line in _lines(text))
            continue
        if name != group:
            known, came, group = {**_returned(found), **came}, {}, name
            found.append(Round(known))
        asked[entry.request] = _label(" ".join(pieces), labels)
        for text in pieces:
            found[-1].chosen.update(c for c in known if _shows(text, c))
    return [r for r in found if r.chosen]


def _returned(found: Sequence[Round]) -> dict[str, str]:
    """The texts that were chosen in the last round; they are candidates in the next one as well."""
    return {c: found[-1].candidates[c] for c in found[-1].chosen} if found else {}


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        plain = line.strip().lstrip("-*•0123456789.) ").strip("\"'“”‘’` ")
        if len(plain) >= _LEAST:
            yield plain


def _label(prompt: str, labels: Sequence[str]) -> str:
    named = [x for x in labels if x and (x in prompt or x.replace("_", " ") in prompt)]
    return max(named, key=len, default="")


def _shows(text: str, candidate: str) -> bool:
    """Whether `text` contains `candidate`, or is `candidate` with some words blanked out."""
    if candidate in text:
        return True
    shown, words = text.split(), candidate.split()
    return (
        "_" in shown
        and len(shown) == len(words)
        and all(a in ("_", b) for a, b in zip(shown, words, strict=True))
    )


def _polls(
    round_: Round, targets: Sequence[Target], labels: Sequence[str], embedder: Embedder
) -> Iterator[tuple[NDArray[np.int64], Poll]]:
    """Per label: which targets have it, and the vote among its candidates."""
    for label in labels:
        rows = np.array([i for i, t in enumerate(targets) if t.label == label])
        texts_ = sorted(c for c, named in round_.candidates.items() if named in (label, ""))
        if not texts_ or not len(rows):
            continue
        mine = embedder.embed([last_user(targets[i].chat) for i in rows])
        yield rows, poll(mine, embedder.embed(texts_), [c in round_.chosen for c in texts_])


def poll(voters: Array, candidates: Array, chosen: Sequence[bool]) -> Poll:
    """The vote of `voters` (unit vectors) among `candidates`, some of which were `chosen`."""
    nearest = (voters @ candidates.T).argmax(axis=1)
    votes = np.bincount(nearest, minlength=len(candidates))
    return Poll(votes, np.array(chosen, dtype=np.int64), nearest)


def _thresholds(most: int) -> Floats:
    """The numbers of votes that may have been enough, where no candidate can have more than `most`."""
    found: Floats = np.arange(-1.0, most + 2.0, 0.5)
    return found


@lru_cache(maxsize=1024)
def _chances(sigma: float, most: int, own: int) -> Floats:
    """P(a candidate passes) when each of v others voted with probability ½ and `own` votes are sure.

    Shape (most + 1, thresholds): one row for each v.
    """
    passes = np.array(
        [
            [0.5 * math.erfc((t - k - own) / (sigma * math.sqrt(2))) for t in _thresholds(most)]
            for k in range(most + 1)
        ]
    )
    voted = np.array(
        [
            [math.comb(v, k) * _PRIOR**k * (1 - _PRIOR) ** (v - k) for k in range(most + 1)]
            for v in range(most + 1)
        ]
    )
    found: Floats = np.clip(voted @ passes, 1e-6, 1 - 1e-6)
    return found


def _unsure(target: Target) -> Guess:
    return Guess(target.id, "", 0.5)


def _guess(target: Target, score: float) -> Guess:
    """A guess whose score keeps the order of `score`, between 0 and 1."""
    return Guess(target.id, "record", 0.5 + math.atan(score) / math.pi)
