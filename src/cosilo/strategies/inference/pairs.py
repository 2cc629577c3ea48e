"""Answers to a question two by two, and how alike two such pairs are.

(question, A, B) ~ (question', A', B')     with A and B, or A' and B', in each other's place: − as much
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEAR = 4.0  # how fast two texts stop being alike with the distance of their vectors
_OPTION = re.compile(r"^[ \t]*\(?([A-Z]|\d{1,2})[.):][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)


def option(label: str, question: str) -> str | None:
    """The text that `question` lists under `label` (`B. a refund`); None where it lists none."""
    found = [text for letter, text in _OPTION.findall(question) if letter == label]
    return found[-1] if found else None


@dataclass(frozen=True, eq=False)
class Answers:
    """The different answers to one question, in an order that does not tell who gave them.

    Attributes:
        question: its unit vector, shape (width,).
        vectors: unit vectors of the answers, shape (answers, width).
        shares: of those asked that gave each, above 0, shape (answers,).
        grades: of each, 0 to 1, shape (answers,); nothing where they are not known.
    """

    question: Floats
    vectors: Floats
    shares: Floats
    grades: Floats | None = None

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Answers two by two; the first of each is to be compared with the second.

    Attributes:
        questions, firsts, seconds: unit vectors, shape (pairs, width).
        votes: the logarithm of how many times as many gave the first, shape (pairs,).
    """

    questions: Floats
    firsts: Floats
    seconds: Floats
    votes: Floats

    def __len__(self) -> int:
        return len(self.votes)

    def of(self, places: NDArray[np.int64]) -> Pairs:
        return Pairs(*(part[places] for part in self.arrays()))

    def arrays(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.questions, self.firsts, self.seconds, self.votes

    @classmethod
    def among(cls, answers: Answers, places: Sequence[tuple[int, int]]) -> Pairs:
        first, second = (list(side) for side in zip(*places, strict=True))
        logs = np.log(answers.shares)
        question = np.repeat(answers.question[None], len(places), axis=0)
        return cls(
            question, answers.vectors[first], answers.vectors[second], logs[first] - logs[second]
        )

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        columns = zip(*(part.arrays() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


def kernels(one: Pairs, other: Pairs) -> tuple[Floats, Floats, Floats]:
    """Three kernels between pairs, each of which changes its sign where the two answers of a pair
    change their places; shapes (len(one), len(other)).

    Of the votes; of what is linear in the answers' vectors, alone and times the question's; and of both
    answers together, where the question is alike.
    """
    apart, others = one.firsts - one.seconds, other.firsts - other.seconds
    width = apart.shape[1]
    asked, asked_others = one.questions * apart, other.questions * others
    linear = apart @ others.T + width * asked @ asked_others.T
    linear += np.outer(asked.sum(axis=1), asked_others.sum(axis=1))
    straight = _alike(one.firsts, other.firsts) * _alike(one.seconds, other.seconds)
    crossed = _alike(one.firsts, other.seconds) * _alike(one.seconds, other.firsts)
    return (
        np.outer(one.votes, other.votes),
        linear,
        _alike(one.questions, other.questions) * (straight - crossed),
    )


def _alike(one: Floats, other: Floats) -> Floats:
    return np.asarray(np.exp(_NEAR * np.minimum(0.0, one @ other.T - 1)))
