"""The party with the small model and the private data.

It has no `handle`: the data owner always speaks first, so nothing can be asked of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from cosilo.models.base import Embedder, TextModel
from cosilo.types import Chat, Chosen, Demonstration


class PrivateValue(NamedTuple):
    """A private value as it stands in a text, and what it is: "PERSON", "EMAIL_ADDRESS" …"""

    value: str
    kind: str


Finder = Callable[[Chat], Awaitable[tuple[PrivateValue, ...]]]
"""The private values of a chat, each once. It raises a PrivacyError where it cannot say; then nothing
may be sent that was made of that chat."""

Grader = Callable[[Demonstration, str], float]


def exact(example: Demonstration, answer: str) -> float:
    """1.0 when the answer is the target to the letter, else 0.0."""
    return float(answer.strip() == example.target)


@dataclass(frozen=True)
class DataOwner:
    """Everything the data owner holds.

    Attributes:
        model: the small model, trained on `private` when the plan says so.
        learned: ids of the examples that `model` was given to learn from; empty where it was not, or
            where nobody noted it.
        private: the training data with gold targets.
        chosen: which of the owner's records these are, see `accountant.sensitivity`.
        pool: private inputs without gold targets (empty targets), for labelling by the LM.
        public: inputs without targets that are nobody's private ones.
        calibration: data that neither the model nor any measure uses: strategies tune on it.
        grade: how this owner grades an answer, 0 (wrong) to 1 (right).
        embedder: turns text into vectors for routers and attacks on the own side.
        finds: looks for what is private in a chat, as the owner's defences do; a session gives it.
    """

    model: TextModel
    private: tuple[Demonstration, ...] = ()
    pool: tuple[Demonstration, ...] = ()
    public: tuple[Demonstration, ...] = ()
    calibration: tuple[Demonstration, ...] = ()
    grade: Grader = exact
    embedder: Embedder | None = None
    name: str = "data-owner"
    learned: frozenset[str] = frozenset()
    chosen: Chosen = "all"
    finds: Finder | None = None

    def taught(
        self, model: TextModel, lessons: Iterable[Demonstration], *, further: bool
    ) -> DataOwner:
        """The owner once `model` was trained on `lessons`.

        Args:
            further: the training began with the weights of the owner's model, so that what these
                had learned is in the new ones too.
        """
        before = self.learned if further else frozenset()
        return replace(self, model=model, learned=before | {lesson.id for lesson in lessons})

    def finding(self, finds: Finder) -> DataOwner:
        """The owner with this way of looking for what is private."""
        return replace(self, finds=finds)
