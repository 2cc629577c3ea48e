"""A request to forget, and the steps it takes: values that `Lineage` keeps.

A step goes from `planned` over `doing` to `done`. One whose end others decide is `open` until a
deadline, one that nobody can do is `unreachable`, and one that another party can do only nearly is
`approximate`. A request is *erased* when every step is done, and
not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StepState(StrEnum):
    PLANNED = "planned"
    DOING = "doing"
    DONE = "done"
    OPEN = "open"
    """Asked of another party, or waiting for something that only the owner can start."""
    UNREACHABLE = "cannot be reached"
    APPROXIMATE = "approximate"
    """Done by another party as well as it can be, which is not as if it had never had the record."""


class Method(StrEnum):
    """By what an artifact no longer holds a record."""

    DELETE = "deleted"
    RETRAIN = "retrained exactly"
    RECHOOSE = "chosen again"
    SHRED = "crypto-shredded"
    UNLEARN = "unlearned"
    WITHDRAW = "withdrawn"
    TAKE_DOWN = "taken down"
    ASK = "asked of another party"
    VERIFY = "verified"
    NONE = "cannot be reached"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a step did, which a certificate of erasure repeats.

    Attributes:
        what: in a few words, without text or names of records.
        count: of how many (files, rows, entries, rounds).
        digest: SHA-256 in hex of what is left, where something is; a key to check it later.
    """

    what: str
    count: int = 0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class ForgetStep:
    """One thing to do for a request.

    Attributes:
        artifact: the id of what it undoes; empty where it is about no artifact.
        kind: of the artifact, as `ArtifactKind` writes it.
        place: of the artifact, when the step was planned.
        note: what a reader should know: why it cannot be reached, whom to ask.
        deadline: until when it may stay open, in seconds of the machine's clock; 0 for no deadline.
    """

    method: Method
    artifact: str = ""
    kind: str = ""
    place: str = ""
    note: str = ""
    state: StepState = StepState.PLANNED
    deadline: float = 0.0
    evidence: Evidence | None = None

    @property
    def settled(self) -> bool:
        """Nothing is left to do here; it may still stand elsewhere."""
        return self.state in (StepState.DONE, StepState.UNREACHABLE, StepState.APPROXIMATE)


@dataclass(frozen=True, kw_only=True)
class ForgetRequest:
    """A request to forget some records.

    Attributes:
        id: 128 random bits in hex, which other parties are told in place of any content.
        at: when it began, in seconds of the machine's clock.
        records: how many it names.
    """

    id: str
    at: float
    records: int
    steps: tuple[ForgetStep, ...]

    @property
    def standing(self) -> tuple[ForgetStep, ...]:
        """The steps that are not done."""
        return tuple(step for step in self.steps if step.state is not StepState.DONE)

    @property
    def erased(self) -> bool:
        return not self.standing
