"""Extraction: values or named fields out of a text, graded by micro F1 over (field, value) pairs.

A target is a list of values, an object of fields (a value, or a list of values, each), or the JSON
text of either.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from cosilo.errors import DataError
from cosilo.tasks.base import SPLITS, Grade
from cosilo.tasks.kinds import Form, Given, Kept, Kind, RowItem, ask, best, kinds
from cosilo.types import Sampling

_VALUES = (
    "Extract what is asked from the user's text, word for word. Reply with a JSON list of texts."
)
_FIELDS = (
    "Extract these fields from the user's text, word for word. Reply with a JSON object; leave out "
    "a field the text does not give."
)


@kinds.register("extraction")
@dataclass(frozen=True, kw_only=True)
class Extraction(Kind):
    """Options:
    fields: the fields to ask for; those of the first split's targets when empty.
    max_tokens: the longest reply.
    """

    fields: tuple[str, ...] = ()
    max_tokens: int = 256

    def check(self, item: RowItem) -> None:
        _target(item)

    def form(self, given: Given) -> Form:
        fields = tuple(self.fields) or _fields(given)
        system = given.instructions or (_FIELDS if fields else _VALUES)
        if fields:
            system += "\n\nFields:\n" + "\n".join(f"- {name}" for name in fields)
        return Form(
            chat=partial(ask, system),
            targets=lambda item: (_canonical(item),),
            grade=best(span_f1),
            instructions=system,
            sampling=Sampling(max_tokens=self.max_tokens),
        )

    def grader(self, kept: Kept) -> Grade:
        return best(span_f1)


def _fields(given: Given) -> tuple[str, ...]:
    first = next(split for split in SPLITS if given.items.get(split))
    targets = [_target(item) for item in given.items[first]]
    return tuple(sorted({name for t in targets if isinstance(t, Mapping) for name in t}))


def _target(item: RowItem) -> object:
    found = item.target
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, list | Mapping):
        raise DataError(
            f"{item.row.where}: the target is neither a list of values nor an object of fields"
        )
    return found


def _canonical(item: RowItem) -> str:
    return json.dumps(_target(item), ensure_ascii=False)


def span_f1(target: str, answer: str) -> float:
    """F1 between the (field, value) pairs of two JSON texts; 1 when both hold none.

    A pair that occurs twice counts twice. Case, outer signs and runs of white space do not matter.
    """
    wanted, found = Counter(_pairs(target)), Counter(_pairs(answer))
    total = wanted.total() + found.total()
    return 2 * (wanted & found).total() / total if total else 1.0


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    value = first_json(text)
    if value is None:  # no JSON: one value, or one "field: value", a line
        for line in text.splitlines():
            name, colon, rest = line.strip().lstrip("-*• ").partition(":")
            yield from _flat("", rest if colon else name) if not colon else _flat(name, rest)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(str(name), inner)
    else:
        yield from _flat("", value)


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for inner in value:
            yield from _flat(name, inner)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif value is not None and (plain := _plain(str(value))):
        yield _plain(name), plain


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" \t\n.,;:!?\"'`").casefold()


def first_json(text: str) -> object:
    """The first JSON list or object in `text`; None when there is none."""
    decoder = json.JSONDecoder()
    for start in re.finditer(r"[\[{]", text):
        try:
            return decoder.raw_decode(text, start.start())[0]
        except (ValueError, RecursionError):
            continue
    return None
