"""Which tool call a piece of a streamed reply belongs to.

OpenAI numbers the calls, and says id and name once. Others leave the number out, give all calls 0, or
repeat id and name in each piece; what they mean is told apart by what a call has so far.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cosilo.types import ToolCallDelta


@dataclass
class ToolPiece:
    """A piece as it came; what it does not say is empty, and `index` None."""

    index: int | None
    id: str
    name: str
    arguments: str
    extra: str = ""
    legacy: bool = False


@dataclass
class _Call:
    index: int | None
    id: str
    name: str
    arguments: str


class ToolPieces:
    """The calls of one reply. Fed with their pieces, it numbers them and says id and name once."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def feed(self, pieces: Sequence[ToolPiece]) -> tuple[ToolCallDelta, ...]:
        alone = len(pieces) == 1
        return tuple(self._one(p, None if alone else i) for i, p in enumerate(pieces))

    def _one(self, piece: ToolPiece, place: int | None) -> ToolCallDelta:
        number = self._belongs(piece, place)
        if number is None:
            number = len(self._calls)
            self._calls.append(_Call(piece.index, "", "", ""))
        call = self._calls[number]
        id = "" if piece.id == call.id else piece.id
        name = "" if piece.name == call.name else piece.name
        call.id, call.name = call.id + id, call.name + name
        call.arguments += piece.arguments
        return ToolCallDelta(number, id, name, piece.arguments, piece.extra, piece.legacy)

    def _belongs(self, piece: ToolPiece, place: int | None) -> int | None:
        """The number of the call that `piece` continues; None when it begins one."""
        numbers = range(len(self._calls) - 1, -1, -1)
        if piece.index is not None:
            numbered = [n for n in numbers if self._calls[n].index == piece.index]
            found = next((n for n in numbered if self._calls[n].id == piece.id), None)
            found = found if found is not None else next(iter(numbered), None)
        elif piece.id:
            found = next((n for n in numbers if self._calls[n].id == piece.id), None)
            if found is None and self._calls and not self._calls[-1].id:
                found = numbers[0]
        elif piece.name or place is None:
            found = next(iter(numbers), None)
        else:  # several pieces that say nothing: in the order of the calls
            found = place if place < len(self._calls) else None
        return found if found is not None and _continues(self._calls[found], piece) else None


def _continues(call: _Call, piece: ToolPiece) -> bool:
    if piece.id and call.id and piece.id != call.id:
        return False
    if not piece.name or not call.name:
        return True
    # A name again: the same call said once more, unless that one is complete already.
    return piece.name == call.name and not (piece.arguments.strip() and _complete(call.arguments))


def _complete(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True
