"""The party with the small model and the private data.

It has no `handle`: the data owner always speaks first, so nothing can be asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cosilo.models.base import Embedder, TextModel
from cosilo.types import Chosen, Demonstration

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
