"""Classification: one label of a closed set.

The system turn lists the labels; the user turn holds exactly the item's text, so that a classifier
can read the last user turn and a generative model sees the same chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from cosilo.errors import DataError
from cosilo.labels import named, written
from cosilo.tasks.base import SPLITS, Example, Grade
from cosilo.tasks.files import absent, number_text
from cosilo.tasks.kinds import Form, Given, Kept, Kind, RowItem, ask, kinds
from cosilo.types import Sampling

_LONGEST_LABEL = 100
_INSTRUCTIONS = "Classify the user's text. Reply with exactly one of the labels and nothing else."


@kinds.register("classification")
@dataclass(frozen=True, kw_only=True)
class Classification(Kind):
    """Options:
    descriptions: label → what it means, shown to the model beside the label.
    """

    descriptions: Mapping[str, str] = field(default_factory=dict)

    def check(self, item: RowItem) -> None:
        label_of(item)

    def form(self, given: Given) -> Form:
        _refuse_prose(given)
        labels = given.labels or _labels(given)
        if given.labels:
            _refuse_unknown(given, labels)
        check_labels(labels)
        for label in self.descriptions:
            if label not in labels:
                raise DataError(f"descriptions: {label!r} is not a label (labels: {_list(labels)})")
        system = f"{given.instructions or _INSTRUCTIONS}\n\nLabels:\n" + "\n".join(
            f"- {label}: {self.descriptions[label]}" if label in self.descriptions else f"- {label}"
            for label in labels
        )
        grade = LabelGrade(labels)
        # A label's token holds at least one byte, usually several; a few words may stand before it.
        most = max(16, *(len(label.encode()) + 4 for label in labels))
        return Form(
            chat=partial(ask, system),
            targets=label_of,
            grade=grade,
            readable=lambda example, answer: grade.label(answer) is not None,
            sampling=Sampling(max_tokens=most, choices=labels),
            labels=labels,
            instructions=system,
            stratum=lambda item: label_of(item)[0],
        )

    def grader(self, kept: Kept) -> Grade:
        return LabelGrade(kept.labels)


def label_of(item: RowItem) -> tuple[str, ...]:
    """The label, or the labels, an item accepts.

    Raises:
        DataError: the cell holds no text.
    """
    found = item.target if isinstance(item.target, list) else [item.target]
    texts = tuple(_plain(value) for value in found)
    if not texts or not all(texts):
        raise DataError(f"{item.row.where}: the target column is empty or holds no label")
    return tuple(dict.fromkeys(texts))


def _plain(value: object) -> str:
    if absent(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return number_text(value)
    return value.strip() if isinstance(value, str) else ""


def _labels(given: Given) -> tuple[str, ...]:
    """The labels of the training data, or of the first split that has any, in sorted order."""
    first = next(split for split in SPLITS if given.items.get(split))
    learned = {label for item in given.items[first] for label in label_of(item)}
    for split in SPLITS:
        met = {label for item in given.items.get(split, ()) for label in label_of(item)}
        if unknown := sorted(met - learned):
            raise DataError(
                f"labels in the {split!r} split that {first!r} lacks: {_list(unknown)}; "
                "add examples of them, or name all labels in the plan ('labels = [...]')"
            )
    return tuple(sorted(learned))


def _refuse_prose(given: Given) -> None:
    """Labels may be named in messages; a column of free text, mapped by mistake, may not."""
    found = [label for items in given.items.values() for item in items for label in label_of(item)]
    distinct = len(set(found))
    if distinct > max(20, len(found) / 2) or max(map(len, found)) > _LONGEST_LABEL:
        raise DataError(
            f"the target column holds {distinct} different values in {len(found)} rows, "
            f"the longest {max(map(len, found))} characters: these are not labels"
        )


def _refuse_unknown(given: Given, labels: Sequence[str]) -> None:
    for items in given.items.values():
        for item in items:
            for label in label_of(item):
                if label not in labels:
                    raise DataError(
                        f"{item.row.where}: {label!r} is not one of the plan's labels "
                        f"({_list(labels)})"
                    )


def check_labels(labels: Sequence[str]) -> None:
    """Refuse a set of labels that cannot be told apart.

    Raises:
        DataError: fewer than two labels, or two that no reply could tell apart.
    """
    if len(labels) < 2:
        raise DataError(
            f"only one class: every target is {labels[0]!r}" if labels else "there are no labels"
        )
    seen: dict[str, str] = {}
    for label in labels:
        told = written(label)
        if not told:
            raise DataError(f"label {label!r} holds nothing that a reply could name")
        if told in seen:
            raise DataError(
                f"labels {seen[told]!r} and {label!r} differ only in case, spaces or punctuation"
            )
        seen[told] = label
    for label in labels:
        whole = re.sub(r"\.0+$", "", label)
        if whole != label and whole in labels:
            raise DataError(f"labels {whole!r} and {label!r} are the same number: write it one way")


def _list(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:20])
    return shown + (", …" if len(labels) > 20 else "")


class LabelGrade:
    """1.0 when the reply names an acceptable label, else 0.0."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)

    def __call__(self, example: Example, answer: str) -> float:
        return float(self.label(answer) in example.targets)

    def label(self, answer: str) -> str | None:
        """The label that `answer` names, or None when it names none or several."""
        return named(answer, self._labels)
