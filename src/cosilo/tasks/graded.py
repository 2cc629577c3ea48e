"""Data that hold no answers, only how good each recorded answer was (0 to 1, or true and false).

Then the recorded "answer" of a model *is* its grade: `recorded = {gpt-4 = "large_correct"}` replays
it, and the grade of an answer is the number it states. Routers are compared on such data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cosilo.errors import DataError
from cosilo.tasks.base import Example, Grade
from cosilo.tasks.kinds import Form, Given, Kept, Kind, ask, kinds
from cosilo.types import Sampling


@kinds.register("graded")
@dataclass(frozen=True, kw_only=True)
class Graded(Kind):
    has_targets = False

    def form(self, given: Given) -> Form:
        for items in given.items.values():
            for item in items:
                if not item.recorded:
                    raise DataError("a 'graded' task needs recorded models: columns.recorded")
                for model, (text, _) in item.recorded.items():
                    if _number(text) is None:
                        raise DataError(
                            f"{item.row.where}: the recorded grade of {model!r} is not a number "
                            "from 0 to 1, true or false"
                        )
        system = given.instructions or "Answer the question."
        return Form(
            chat=partial(ask, system),
            instructions=system,
            targets=lambda item: ("true",),
            grade=stated_grade,
            readable=lambda example, answer: _number(answer) is not None,
            sampling=Sampling(max_tokens=1),
        )

    def grader(self, kept: Kept) -> Grade:
        return stated_grade


def stated_grade(example: Example, answer: str) -> float:
    """The grade that a recorded answer states; 0 when it states none."""
    return _number(answer) or 0.0


def _number(text: str) -> float | None:
    word = text.strip().casefold()
    if word in ("true", "false"):
        return float(word == "true")
    try:
        number = float(word)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
