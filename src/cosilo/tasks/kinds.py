"""What a kind of task is: how its items become chats, and how an answer is graded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cosilo.errors import DataError
from cosilo.registry import Registry
from cosilo.tasks.base import Example, Grade, Readable, Split, says_something
from cosilo.tasks.files import FileRow
from cosilo.types import Chat, Sampling, Turn


@dataclass(frozen=True, slots=True)
class RowItem:
    """One row as the plan's columns read it.

    Attributes:
        target: the target cell as it stood in the file (text, number, list or object).
        context: text for the system turn: a glossary, a document.
    """

    id: str
    text: str
    target: object
    row: FileRow
    context: str = ""
    group: str = ""
    recorded: Mapping[str, tuple[str, float]] | None = None


@dataclass(frozen=True)
class Given:
    """The data and settings that a kind is given to make a task of.

    Attributes:
        items: every item of every split, before any sampling.
        instructions: the owner's own; empty for the kind's default.
        labels: the closed set of answers when the plan names it.
        folder: where relative paths start.
    """

    items: Mapping[Split, tuple[RowItem, ...]]
    instructions: str = ""
    labels: tuple[str, ...] = ()
    folder: Path = Path()


def nothing(item: RowItem) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True)
class Form:
    """How items of one task are asked and graded.

    Attributes:
        chat: what the models are given; the last user turn holds the item's text and no more.
        targets: every acceptable answer, the one to train on first; raises DataError.
        readable: (example, answer) → whether an answer can be read in it.
        instructions: what stands in the system turn of every question, the items' own text apart.
        secrets: (kind, value) pairs this kind knows to be private beyond the plan's columns.
        stratum: the class an item is sampled by, so that a sample keeps the shares.
    """

    chat: Callable[[RowItem], Chat]
    targets: Callable[[RowItem], tuple[str, ...]]
    grade: Grade
    sampling: Sampling
    labels: tuple[str, ...] = ()
    readable: Readable = says_something
    instructions: str = ""
    secrets: Callable[[RowItem], Iterable[tuple[str, str]]] = nothing
    stratum: Callable[[RowItem], str] = lambda item: item.group
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What a run keeps of a task: enough to grade answers where its data files are not at hand.

    Attributes:
        examples: every example of every split.
        folder: where relative paths start.
    """

    examples: tuple[Example, ...]
    labels: tuple[str, ...] = ()
    folder: Path = Path()


class Kind(ABC):
    """One kind of grading; its fields are the plan's `[task.options]`."""

    def identity(self, item: RowItem) -> str:
        """The text that makes two items the same question, so that both go into one split."""
        return item.text

    has_targets: ClassVar[bool] = True
    """Whether the target column is read."""

    def check(self, item: RowItem) -> None:  # noqa: B027 — most kinds have something to check
        """Refuse what is wrong with one item whatever the others are.

        Raises:
            DataError: with its row.
        """

    @abstractmethod
    def form(self, given: Given) -> Form:
        """How these items are asked and graded.

        Raises:
            DataError: the items do not fit this kind.
        """

    def grader(self, kept: Kept) -> Grade:
        """The same grading function as in `form`, made from what a run keeps of the task.

        Raises:
            DataError: the data files are needed.
        """
        raise DataError("answers to this kind of task can be graded only with its data files")


kinds: Registry[Kind] = Registry("task")


def ask(system: str, item: RowItem) -> Chat:
    """The system turn, the item's context at its end, then a user turn with exactly its text."""
    if item.context:
        system = f"{system}\n\n{item.context}"
    return (Turn("system", system), Turn("user", item.text))


def best(score: Callable[[str, str], float]) -> Grade:
    """A grade: the best `score(target, answer)` over the acceptable targets."""

    def grade(example: Example, answer: str) -> float:
        return max(score(target, answer) for target in example.targets)

    return grade
