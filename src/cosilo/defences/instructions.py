"""Words that whoever set a task up wrote for the model to read: they are no private values.

A detector takes "Extract" for an organisation and "Due Date" for a person; with these hidden a model no
longer knows what it is asked. So names found by a model or by the words around them do not count in
lines of a system turn that are the task's own. What counts there all the same: anything with a form of
its own (an e-mail address, a card's number), and any value that was found elsewhere in the
conversation, where it is written the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from cosilo.boundary.messages.passages import Passage
from cosilo.defences.detection import Span

_GUESSED = frozenset(
    {"PERSON", "PLACE", "ORG", "NUMBER", "COUNT", "DAY", "MONTH", "YEAR", "DATE", "TIME"}
)
"""Kinds that are told by the words, or found because they are numbers and dates of a question."""

Range = tuple[int, int]


class Instructions:
    """The lines of `texts`, wherever they stand in a system turn."""

    def __init__(self, texts: Iterable[str]) -> None:
        lines = (line.strip() for text in texts for line in text.splitlines())
        self._lines = frozenset(line for line in lines if line)

    def ranges(self, passages: Sequence[Passage], texts: Sequence[str]) -> list[list[Range]]:
        """Where the task's own lines stand in each of `texts`, which are those of `passages`."""
        if not self._lines:
            return [[] for _ in texts]
        systems = {p.text for p in passages if p.what == "said" and p.by == "system"}
        return [self._own(text) if text in systems else [] for text in texts]

    def _own(self, text: str) -> list[Range]:
        found: list[Range] = []
        start = 0
        for line in text.splitlines(keepends=True):
            end = start + len(line)
            if not line.strip():
                pass
            elif line.strip() not in self._lines:
                found.append((-1, -1))  # what is above and what is below do not touch
            elif found and found[-1][1] >= 0:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
            start = end
        return [own for own in found if own[1] >= 0]


def guessed(span: Span, own: Sequence[Range]) -> bool:
    """Whether `span` is a name, a number or a date within the task's own lines."""
    if span.kind not in _GUESSED:
        return False
    last = bisect_right(own, span.start, key=lambda lines: lines[0]) - 1
    return last >= 0 and span.end <= own[last][1]
