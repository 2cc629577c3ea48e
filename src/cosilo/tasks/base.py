"""Examples, who holds them, and how an answer is graded.

Secrets are defined here, and nothing that talks (boundary, parties, strategies, defences, gateway)
may import this package, so no message can name a secret.

Splits, and what may read them:

    train         the small model learns from it (gold targets), or it is the unlabelled pool
    tune          strategies set thresholds and routers on it
    validation    points are compared on it: the front
    certificate   the certificate's tests, and nothing else
    test          read once, for the numbers that are reported
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from cosilo.types import Chat, Demonstration, Sampling

Split = Literal["train", "tune", "validation", "certificate", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Secret:
    """One private fact and the ground truth an attack is scored against."""

    id: str
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Example:
    """One item.

    Attributes:
        targets: every acceptable answer; the first is the one models are trained on.
        group: what the item belongs to (a database, a domain); empty when nothing.
        recorded: answers recorded in the data set's own columns: model → (text, seconds).
    """

    id: str
    chat: Chat
    targets: tuple[str, ...]
    secrets: tuple[Secret, ...] = ()
    group: str = ""
    recorded: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return self.targets[0]

    def demonstration(self) -> Demonstration:
        return Demonstration(self.id, self.chat, self.target)


Grade = Callable[[Example, str], float]
Readable = Callable[[Example, str], bool]


def says_something(example: Example, answer: str) -> bool:
    return bool(answer.strip())


@dataclass(frozen=True)
class Task:
    """A task with its data.

    Attributes:
        kind: the kind of grading, e.g. "classification".
        splits: the examples of each split; a split may be empty.
        public: questions without answers that are nobody's private ones; none stands in a split.
        grade: (example, answer text) → 0 … 1; what a model thought before it answered is left out.
        readable: (example, answer text) → whether an answer can be read in it, right or wrong.
        instructions: what stands in the system turn of every question; nobody's private text.
        sampling: how answers to this task are asked for.
        labels: the closed set of answers, where there is one.
        gold_secrets: False when `secrets` were detected, not given; reports say so.
        notes: what a reader of the results must know of the data: rows left out, and why.
    """

    name: str
    kind: str
    splits: Mapping[Split, tuple[Example, ...]]
    grade: Grade
    sampling: Sampling = Sampling()
    labels: tuple[str, ...] = ()
    gold_secrets: bool = True
    notes: tuple[str, ...] = ()
    public: tuple[Example, ...] = ()
    readable: Readable = says_something
    instructions: str = ""
