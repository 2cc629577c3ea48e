"""Which tool call a piece of a streamed reply belongs to.

OpenAI numbers the calls, and says id and name once. Others leave the number out, give all calls 0,
repeat id and name in each piece or whole calls at the end, or give no id or the same to all; what they
mean is told apart by what a call has so far. A client answers a call by its id, so each gets one of its
own: the endpoint's where it is, else one that is made here.
"""

from __future__ import annotations

import json
import secrets
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
    told: str = ""  # its id, as the client knows it
    legacy: bool = False


class ToolPieces:
    """The calls of one reply. Fed with their pieces, it numbers them and says id and name once."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def feed(self, pieces: Sequence[ToolPiece]) -> tuple[ToolCallDelta, ...]:
        alone = len(pieces) == 1
        told = (self._one(p, None if alone else i) for i, p in enumerate(pieces))
        return tuple(piece for piece in told if piece is not None)

    def end(self) -> tuple[ToolCallDelta, ...]:
        """Ids for the calls that have none by now; no more pieces will come."""
        return tuple(
            ToolCallDelta(number, self._tell(call, _new_id()))
            for number, call in enumerate(self._calls)
            if not call.told and not call.legacy
        )

    def _one(self, piece: ToolPiece, place: int | None) -> ToolCallDelta | None:
        if any(_repeats(call, piece) for call in self._calls):
            return None
        number = self._belongs(piece, place)
        if number is None:
            number = len(self._calls)
            self._calls.append(_Call(piece.index, "", "", "", legacy=piece.legacy))
        call = self._calls[number]
        call.id = piece.id or call.id
        name = "" if piece.name == call.name else piece.name
        call.name += name
        call.arguments += piece.arguments
        id = ""
        if not call.told and not call.legacy and (piece.id or (piece.arguments and call.name)):
            id = self._tell(call, piece.id or _new_id())
        return ToolCallDelta(number, id, name, piece.arguments, piece.extra, piece.legacy)

    def _tell(self, call: _Call, id: str) -> str:
        """The id that `call` is known by from now on: `id`, unless another call is."""
        taken = {other.told for other in self._calls}
        call.told = id if id not in taken else f"{id}_{_new_id()}"
        return call.told

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
    if piece.name != call.name:  # the name's next piece, where nothing says that it is another call
        return piece.index is not None and not piece.id and not call.arguments
    # A name again: the same call said once more, unless that one is complete already.
    return not (piece.arguments.strip() and _complete(call.arguments))


def _repeats(call: _Call, piece: ToolPiece) -> bool:
    """Whether `piece` is all of `call` once more, and not a call of its own that asks the same."""
    same = piece.id == call.id and piece.name == call.name and piece.arguments == call.arguments
    return same and piece.id not in ("", piece.name) and _complete(call.arguments)


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _complete(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True
