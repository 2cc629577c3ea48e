"""Multiple choice: lettered options, a letter as the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import pairwise
from string import ascii_uppercase
from typing import Literal

from cosilo.errors import DataError
from cosilo.labels import same
from cosilo.tasks.base import Example, Grade
from cosilo.tasks.files import absent, cell_text, check_text, lookup, number_text
from cosilo.tasks.kinds import Form, Given, Kept, Kind, RowItem, kinds
from cosilo.types import Chat, Sampling, Turn, last_user

_INSTRUCTIONS = (
    "Answer the multiple-choice question. "
    "Reply with the letter of the right option and nothing else."
)


@kinds.register("choice")
@dataclass(frozen=True, kw_only=True)
class Choice(Kind):
    """Options:
    options: the column that holds the list of options, or the columns that hold one each.
    target: what the target column holds: "letter", "position" (counting from 0) or "text" (of an
        option); what fits every row when it is left out.
    """

    options: str | tuple[str, ...] = "options"
    target: Literal["", "letter", "position", "text"] = ""

    def check(self, item: RowItem) -> None:
        choices = self._choices(item)
        ways = [_READINGS[self.target]] if self.target else _READINGS.values()
        if all(read(item.target, choices) is None for read in ways):
            raise _unknown(item, choices)

    def identity(self, item: RowItem) -> str:
        return "\n".join([item.text, *self._choices(item)])

    def form(self, given: Given) -> Form:
        every = [item for items in given.items.values() for item in items]
        choices = {item.id: self._choices(item) for item in every}
        if not choices:
            raise DataError("there are no items")
        letter = _reading(every, choices, self.target)
        letters = tuple(ascii_uppercase[: max(map(len, choices.values()))])
        grade = LetterGrade(choices)
        system = given.instructions or _INSTRUCTIONS
        return Form(
            chat=partial(self._chat, system),
            instructions=system,
            targets=lambda item: (letter(item),),
            grade=grade,
            readable=grade.readable,
            # "The correct answer is (C)." is about eight.
            sampling=Sampling(max_tokens=16, choices=letters),
            labels=letters,
        )

    def _chat(self, system: str, item: RowItem) -> Chat:
        if item.context:
            system = f"{system}\n\n{item.context}"
        lines = [f"{letter}. {text}" for letter, text in _lettered(self._choices(item))]
        return (Turn("system", system), Turn("user", "\n".join([item.text, *lines])))

    def grader(self, kept: Kept) -> Grade:
        return LetterGrade({e.id: _options(last_user(e.chat)) for e in kept.examples})

    def _choices(self, item: RowItem) -> tuple[str, ...]:
        if isinstance(self.options, str):
            cell = lookup(item.row.values, self.options)
            if not isinstance(cell, Sequence) or isinstance(cell, str):
                raise DataError(
                    f"{item.row.where}: column {self.options!r} holds no list of options"
                )
            found = ["" if absent(value) else str(value) for value in cell]
            for text in found:
                check_text(text, where=f"{item.row.where}: column {self.options!r}")
        else:
            found = [cell_text(item.row, column) for column in self.options]
        while found and not found[-1]:
            found.pop()
        if not 2 <= len(found) <= len(ascii_uppercase):
            raise DataError(f"{item.row.where}: {len(found)} options; 2 to 26 are possible")
        return tuple(found)


def _options(asked: str) -> tuple[str, ...]:
    """The options in a question as `_chat` writes it."""
    start = asked.rfind("\nA. ")
    found = []
    for letter, following in pairwise(ascii_uppercase):
        end = asked.find(f"\n{following}. ", start + 1)
        found.append(asked[start + len(f"\n{letter}. ") : end if end >= 0 else None])
        if end < 0:
            break
        start = end
    return tuple(found)


def _lettered(choices: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(ascii_uppercase, choices, strict=False))


def _position(target: object) -> int | None:
    """The whole number that a cell holds; in CSV every cell is text."""
    text = target if isinstance(target, str) else _number(target)
    written = re.fullmatch(r"\s*(\d{1,3})(?:\.0+)?\s*", text)
    return int(written[1]) if written else None


def _as_position(target: object, choices: Sequence[str]) -> str | None:
    at = _position(target)
    return ascii_uppercase[at] if at is not None and 0 <= at < len(choices) else None


def _as_text(target: object, choices: Sequence[str]) -> str | None:
    forms = (str(target).strip(), _number(target))
    found = next((form for form in forms if form and form in choices), None)
    return None if found is None else ascii_uppercase[choices.index(found)]


def _number(target: object) -> str:
    """The number that a cell holds, in one form; empty where it holds none."""
    if absent(target) or isinstance(target, bool) or not isinstance(target, int | float | Decimal):
        return ""
    return number_text(target)


def _as_letter(target: object, choices: Sequence[str]) -> str | None:
    letter = target.strip().strip("().").upper() if isinstance(target, str) else ""
    return letter if len(letter) == 1 and letter in ascii_uppercase[: len(choices)] else None


_READINGS: Mapping[str, Callable[[object, Sequence[str]], str | None]] = {
    "text": _as_text,
    "letter": _as_letter,
    "position": _as_position,
}


def _reading(
    items: Sequence[RowItem], choices: Mapping[str, Sequence[str]], wanted: str
) -> Callable[[RowItem], str]:
    """How the target column is to be read: in one way that fits every row, where there is one.

    Raises:
        DataError: several ways fit all rows and give different answers.
    """
    fits = {}
    for how, read in _READINGS.items():
        found = [read(item.target, choices[item.id]) for item in items]
        if None not in found and wanted in ("", how):
            fits[how] = found
    if len(set(map(tuple, fits.values()))) > 1:
        ways = " or ".join(f'"{how}"' for how in fits)
        raise DataError(
            f"the target column can be read in more than one way: say target = {ways} in "
            "[task.options]"
        )
    order = [*fits, *(how for how in _READINGS if how not in fits)]

    def letter(item: RowItem) -> str:
        for how in [wanted] if wanted else order:
            found = _READINGS[how](item.target, choices[item.id])
            if found is not None:
                return found
        raise _unknown(item, choices[item.id])

    return letter


def _unknown(item: RowItem, choices: Sequence[str]) -> DataError:
    return DataError(
        f"{item.row.where}: the target is neither a letter, a position from 0 nor the text of one "
        f"of the {len(choices)} options"
    )


class LetterGrade:
    """1.0 when the reply settles on the right letter, else 0.0.

    Args:
        choices: example id → its options.
    """

    def __init__(self, choices: Mapping[str, Sequence[str]]) -> None:
        self._choices = choices

    def __call__(self, example: Example, answer: str) -> float:
        return float(chosen_letter(answer, self._choices[example.id]) in example.targets)

    def readable(self, example: Example, answer: str) -> bool:
        return chosen_letter(answer, self._choices[example.id]) is not None


_SAID = re.compile(
    r"\b(?:answer|choice|option|correct one)\b(?:\s+(?:is|was|would be|should be))?\s*[:=]?\s*"
    r"(?:option\s+)?[*_`\"'(\[]*([A-Z])(?![A-Za-z0-9'])",
    re.IGNORECASE,
)
_LEADING = re.compile(r"\W*([A-Z])(?:[.):\]*]|\s*$|\s*\n)")
_MARKED = re.compile(r"\(([A-Z])\)")


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter `answer` settles on, or None.

    In this order: the last "the answer is X"; a letter in front ("C", "C. Paris"); the only letter
    in brackets; the only option whose text is the reply.
    """
    letters = ascii_uppercase[: len(choices)]
    said = [
        m.group(1)
        for m in _SAID.finditer(answer)
        # "the answer is a mixture": a small "a" followed by words is an article.
        if m.group(1).isupper() or not answer[m.end() :].strip(" .)]*_`\"'\n")
    ]
    said = [letter.upper() for letter in said if letter.upper() in letters]
    if said:
        return said[-1]
    marked = {letter for letter in _MARKED.findall(answer) if letter in letters}
    leading = _LEADING.match(answer)
    if leading is not None and leading.group(1) in letters and not marked - {leading.group(1)}:
        return str(leading.group(1))
    if len(answer.strip()) == 1 and answer.strip().upper() in letters:
        return answer.strip().upper()
    if len(marked) == 1:
        return str(marked.pop())
    at = same(answer, choices)
    return ascii_uppercase[at] if at is not None else None
