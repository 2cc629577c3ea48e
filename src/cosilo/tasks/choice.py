"""Multiple choice: lettered options, a letter as the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase

from cosilo.errors import DataError
from cosilo.tasks.base import Example
from cosilo.tasks.classification import normalised
from cosilo.tasks.files import cell_text, check_text, lookup
from cosilo.tasks.kinds import Form, Given, Item, Kind, kinds
from cosilo.types import Chat, Sampling, Turn

_INSTRUCTIONS = (
    "Answer the multiple-choice question. "
    "Reply with the letter of the right option and nothing else."
)


@kinds.register("choice")
@dataclass(frozen=True, kw_only=True)
class Choice(Kind):
    """Options:
    options: the column that holds the list of options, or the columns that hold one each.

    The target may be a letter, a position counting from 0, or an option's text.
    """

    options: str | tuple[str, ...] = "options"

    def identity(self, item: Item) -> str:
        return "\n".join([item.text, *self._choices(item)])

    def form(self, given: Given) -> Form:
        every = [item for items in given.items.values() for item in items]
        choices = {item.id: self._choices(item) for item in every}
        if not choices:
            raise DataError("there are no items")
        letters = tuple(ascii_uppercase[: max(map(len, choices.values()))])
        grade = LetterGrade(choices)
        return Form(
            chat=partial(_chat, given.instructions or _INSTRUCTIONS, choices),
            targets=lambda item: (_letter(item, choices[item.id]),),
            grade=grade,
            readable=grade.readable,
            # "The correct answer is (C)." is about eight.
            sampling=Sampling(max_tokens=16, choices=letters),
            labels=letters,
        )

    def _choices(self, item: Item) -> tuple[str, ...]:
        if isinstance(self.options, str):
            cell = lookup(item.row.values, self.options)
            if not isinstance(cell, Sequence) or isinstance(cell, str):
                raise DataError(
                    f"{item.row.where}: column {self.options!r} holds no list of options"
                )
            found = [str(value) for value in cell]
            for text in found:
                check_text(text, where=f"{item.row.where}: column {self.options!r}")
        else:
            found = [cell_text(item.row, column) for column in self.options]
            while found and not found[-1]:
                found.pop()
        if not 2 <= len(found) <= len(ascii_uppercase):
            raise DataError(f"{item.row.where}: {len(found)} options; 2 to 26 are possible")
        return tuple(found)


def _chat(system: str, choices: Mapping[str, Sequence[str]], item: Item) -> Chat:
    if item.context:
        system = f"{system}\n\n{item.context}"
    lines = [f"{letter}. {text}" for letter, text in _lettered(choices[item.id])]
    return (Turn("system", system), Turn("user", "\n".join([item.text, *lines])))


def _lettered(choices: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(ascii_uppercase, choices, strict=False))


def _letter(item: Item, choices: Sequence[str]) -> str:
    target = item.target
    if isinstance(target, int) and not isinstance(target, bool):
        if 0 <= target < len(choices):
            return ascii_uppercase[target]
    elif isinstance(target, str):
        wanted = target.strip()
        if wanted in choices:
            return ascii_uppercase[choices.index(wanted)]
        letter = wanted.strip("().").upper()
        if len(letter) == 1 and letter in ascii_uppercase[: len(choices)]:
            return letter
    raise DataError(
        f"{item.row.where}: the target is neither a letter, a position nor the text of one of the "
        f"{len(choices)} options"
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
    texts = [normalised(text) for text in choices]
    plain = normalised(answer)
    if plain and texts.count(plain) == 1:
        return ascii_uppercase[texts.index(plain)]
    return None
