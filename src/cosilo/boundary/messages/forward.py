"""A model in two hands: states go up at a layer, what the LM's layers above make of them comes down,
and gradients go the same way.

    data owner: layers below ──Forward──▶ LM's owner: layers first … last ──Outputs──▶ layers above
                             ◀─Gradients──                                ◀──Backward──

A thread here is the states that were sent so far (its name is their hash), one for each position of a
text that the LM's owner never sees. Only positions that are new are sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS
from cosilo.boundary.messages.passages import Passage
from cosilo.boundary.messages.step import NAME
from cosilo.boundary.wire import logits, states
from cosilo.models.base import Shows

Positions = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Layer = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]


class StatesName:
    """What a thread of states is called: a hash of the layers that it is about and of the states."""

    def __init__(self, first: int, last: int | None) -> None:
        begin = f"{first} {last}|".encode()
        self._hash = hashlib.blake2b(begin, digest_size=NAME, person=b"cosilo states")

    def __bytes__(self) -> bytes:
        return self._hash.digest()

    def after(self, packed: bytes) -> StatesName:
        """The name when these states have been sent, too."""
        found = StatesName.__new__(StatesName)
        found._hash = self._hash.copy()
        found._hash.update(packed)
        return found


class Outputs(Message, frozen=True, kw_only=True):
    """What the LM's layers make of the states of a `Forward`.

    Attributes:
        count: how many positions, those of the request.
        packed: `boundary.wire.states.pack_scaled` of their states; where all layers were asked for
            `boundary.wire.logits.pack_few` of the likeliest next tokens behind each.
    """

    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 28
    count: Positions
    packed: bytes

    def passages(self) -> list[Passage]:
        return []  # numbers

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Outputs:
        """The states turned around; of likeliest tokens, the likeliest now the least likely."""
        if isinstance(request, Forward) and request.last is None:
            top = logits.unpack(self.packed)
            ends = top.logprobs.max(axis=1) + top.logprobs.min(axis=1)
            turned = logits.TopK(top.ids, ends[:, None] - top.logprobs, top.rest, top.size)
            return msgspec.structs.replace(self, packed=logits.pack_few(turned))
        return msgspec.structs.replace(self, packed=_turned(self.packed, self.count))

    def usage(self) -> tuple[int, int]:
        return self.count, 0


class Forward(Request[Outputs], frozen=True, kw_only=True):
    """States after the first layers, for the LM's own layers to go on from.

    Attributes:
        thread: the name of the states that these follow; empty where they are the first.
        first: how many layers they have been through.
        last: after how many layers the states are wanted; None for all, and what they predict.
        count: how many positions they are of.
        packed: `boundary.wire.states.pack_scaled` of them.
        top: how many of the likeliest tokens are wanted behind each position, where `last` is None.
    """

    reply: ClassVar[type[Message]] = Outputs
    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 28
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)] = b""
    first: Layer
    last: Layer | None = None
    count: Positions
    packed: bytes
    top: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 64

    def wants(self) -> Shows:
        return self.shows if self.last is not None else self.shows | Shows.LOGITS

    def passages(self) -> list[Passage]:
        return []  # none of it is text; see `legible`

    def legible(self) -> bool:
        return False

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Outputs):
            if reply.count != self.count:
                raise ValueError("another number of positions")
            if self.last is not None and len(reply.packed) != len(self.packed):
                raise ValueError("states of another width")

    def tokens_bound(self) -> tuple[int, int]:
        return self.count, 0

    def drawn(self, reply: Message | None = None) -> Drawn:
        if self.last is None:
            return Drawn(logits=self.count * self.top)
        return Drawn(states=self.count)

    def prompts(self) -> Sequence[object]:
        return () if self.thread else (self.packed,)

    def reply_bound(self, tokens: int) -> int:
        if self.last is None:
            return FIELDS + self.count * (32 + 16 * self.top)
        return FIELDS + len(self.packed)


class Gradients(Message, frozen=True, kw_only=True):
    """The gradient with respect to all states that were sent on a thread.

    Attributes:
        count: how many positions it has.
        packed: `boundary.wire.states.pack_scaled` of a gradient for each.
    """

    shows: ClassVar[Shows] = Shows.GRADIENTS
    largest: ClassVar[int] = 1 << 28
    count: Positions
    packed: bytes

    def passages(self) -> list[Passage]:
        return []  # numbers

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Gradients:
        """Downhill is uphill."""
        return msgspec.structs.replace(self, packed=_turned(self.packed, self.count))

    def usage(self) -> tuple[int, int]:
        return self.count, 0


class Backward(Request[Gradients], frozen=True, kw_only=True):
    """The gradient of a loss with respect to all states that came back on a thread.

    The LM's weights stay as they are.

    Attributes:
        thread: the name of the thread, of which states came back and no tokens.
        count: its positions.
        packed: `boundary.wire.states.pack_scaled` of a gradient for each.
    """

    reply: ClassVar[type[Message]] = Gradients
    shows: ClassVar[Shows] = Shows.GRADIENTS
    largest: ClassVar[int] = 1 << 28
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)]
    count: Positions
    packed: bytes

    def passages(self) -> list[Passage]:
        return []  # none of it is text; see `legible`

    def legible(self) -> bool:
        return False

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Gradients):
            there, here = (reply.count, len(reply.packed)), (self.count, len(self.packed))
            if there != here:
                raise ValueError("gradients of another shape")

    def tokens_bound(self) -> tuple[int, int]:
        return self.count, 0

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn(gradients=self.count)

    def prompts(self) -> Sequence[object]:
        return ()

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + len(self.packed)


def _turned(packed: bytes, count: int) -> bytes:
    return states.pack_scaled(np.negative(states.unpack_scaled(packed, count)))
