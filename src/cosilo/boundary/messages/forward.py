"""A model in two hands: states go up at a layer, what the LM's layers above make of them comes down,
and gradients go the same way.

    data owner: layers below ──Forward──▶ LM's owner: layers first … last ──Outputs──▶ layers above
                             ◀─Gradients──                                ◀──Backward──

A thread here is the states that were sent so far (its name is their hash), one for each position of a
text that the LM's owner never sees. Only positions that are new are sent. Where several texts go
together (`lengths`) it is all of them, and nothing follows but a `Backward`.

What is in them for whoever is curious: `Forward.arrays` are the states of each text, which say what its
tokens are to everybody who knows the layers that made them (`attacks.states`). `Backward.array` is
the gradient of a loss whose labels did not cross, and gives them to everybody who knows the layers
behind (`attacks.cut_labels`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS
from cosilo.boundary.messages.passages import Passage
from cosilo.boundary.messages.step import NAME
from cosilo.boundary.wire import logits, states
from cosilo.boundary.wire.codecs import codec as named
from cosilo.models.base import Shows
from cosilo.types import Many

Positions = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Layer = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
Codec = Annotated[str, msgspec.Meta(max_length=32)]
Width = Annotated[int, msgspec.Meta(ge=0, le=states.WIDEST)]
Version = Annotated[bytes, msgspec.Meta(max_length=20)]


class StatesName:
    """What a thread of states is called: a hash of the layers that it is about and of the states.

    Args:
        body: the version of the client's own adapter on these layers, where it has one.
        form: how the states are written and of how many texts, where not as `pack_scaled` and of one.
    """

    def __init__(self, first: int, last: int | None, *, body: bytes = b"", form: str = "") -> None:
        begin = f"{first} {last}|".encode()
        if body or form:
            begin = f"{first} {last} {body.hex()} {form}|".encode()
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
        packed: `boundary.wire.states.pack_by` of their states, by the codec that was asked for; where
            all layers were asked for `boundary.wire.logits.pack_few` of the likeliest next tokens
            behind each.
    """

    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 28
    count: Positions
    packed: bytes

    def passages(self) -> list[Passage]:
        return []  # numbers

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Outputs:
        """The states turned around; of likeliest tokens, the likeliest now the least likely."""
        if not isinstance(request, Forward):
            return self
        if request.last is None:
            top = logits.unpack(self.packed)
            ends = top.logprobs.max(axis=1) + top.logprobs.min(axis=1)
            turned = logits.TopK(top.ids, ends[:, None] - top.logprobs, top.rest, top.size)
            return msgspec.structs.replace(self, packed=logits.pack_few(turned))
        packed = _turned(self.packed, self.count, request.width, request.back)
        return msgspec.structs.replace(self, packed=packed)

    def usage(self) -> tuple[int, int]:
        return self.count, 0


class Forward(Request[Outputs], frozen=True, kw_only=True):
    """States after the first layers, for the LM's own layers to go on from.

    Attributes:
        thread: the name of the states that these follow; empty where they are the first.
        first: how many layers they have been through.
        last: after how many layers the states are wanted; None for all, and what they predict.
        count: how many positions they are of.
        packed: `boundary.wire.states.pack_by` of them.
        top: how many of the likeliest tokens are wanted behind each position, where `last` is None.
        lengths: how many of the positions are of each text, where several texts begin here; empty for
            one. Each is read by itself.
        codec: what `packed` is packed by (`boundary.wire.codecs`); empty for `pack_scaled`.
        back: what the states that come back are to be packed by.
        width: numbers of a state; 0 where both codecs are empty.
        body: the version of this client's own adapter on the LM's layers (`OpenBody`) that they are to
            go through; empty for the weights as they are.
    """

    reply: ClassVar[type[Message]] = Outputs
    turn: ClassVar[str] = "step"
    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 28
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)] = b""
    first: Layer
    last: Layer | None = None
    count: Positions
    packed: bytes
    top: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 64
    lengths: Many[Positions] = ()
    codec: Codec = ""
    back: Codec = ""
    width: Width = 0
    body: Version = b""

    def check(self) -> None:
        _check_codecs(self.codec, self.back, self.width)
        if self.lengths and (sum(self.lengths) != self.count or self.thread or self.last is None):
            raise ValueError("lengths")

    @property
    def opening(self) -> StatesName:
        """What the thread is called that this opens, before the states are counted in."""
        form = f"{self.lengths} {self.codec}" if self.lengths or self.codec else ""
        return StatesName(self.first, self.last, body=self.body, form=form)

    def arrays(self) -> list[states.Floats]:
        """The states of each text, shapes (positions, width).

        Raises:
            UnexpectedReplyError: `packed` is something else.
        """
        whole = states.unpack_by(self.codec, self.packed, self.count, self.width)
        return states.parted(whole, self.lengths)

    def question(self) -> Mapping[str, object] | None:
        # What follows needs an owner that has it, and an adapter that was trained now.
        return None if self.lengths or self.body else super().question()

    def runs(self) -> int:
        return max(1, len(self.lengths))

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
            if self.last is not None and len(reply.packed) != _bytes_back(self):
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
        return FIELDS + _bytes_back(self)


class Gradients(Message, frozen=True, kw_only=True):
    """The gradient with respect to all states that were sent on a thread.

    Attributes:
        count: how many positions it has.
        packed: `boundary.wire.states.pack_by` of a gradient for each, by the codec that was asked for.
    """

    shows: ClassVar[Shows] = Shows.GRADIENTS
    largest: ClassVar[int] = 1 << 28
    count: Positions
    packed: bytes

    def passages(self) -> list[Passage]:
        return []  # numbers

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Gradients:
        """Downhill is uphill."""
        if not isinstance(request, Backward):
            return self
        packed = _turned(self.packed, self.count, request.width, request.back)
        return msgspec.structs.replace(self, packed=packed)

    def usage(self) -> tuple[int, int]:
        return self.count, 0


class Backward(Request[Gradients], frozen=True, kw_only=True):
    """The gradient of a loss with respect to all states that came back on a thread.

    The LM's weights stay as they are. Where `body` names a version of the client's own adapter, that
    takes a step downhill, at a pace that the LM's owner decides, and is `BodyVersion.after` this then.

    Attributes:
        thread: the name of the thread, of which states came back and no tokens.
        count: its positions.
        packed: `boundary.wire.states.pack_by` of a gradient for each.
        codec, back, width: as in `Forward`.
        body: the version that the thread is about; empty to train nothing.
    """

    reply: ClassVar[type[Message]] = Gradients
    shows: ClassVar[Shows] = Shows.GRADIENTS
    largest: ClassVar[int] = 1 << 28
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)]
    count: Positions
    packed: bytes
    codec: Codec = ""
    back: Codec = ""
    width: Width = 0
    body: Version = b""

    def check(self) -> None:
        _check_codecs(self.codec, self.back, self.width)

    def array(self) -> states.Floats:
        """The gradient, shape (count, width).

        Raises:
            UnexpectedReplyError: `packed` is something else.
        """
        return states.unpack_by(self.codec, self.packed, self.count, self.width)

    def question(self) -> Mapping[str, object] | None:
        # A recorded reply would leave the adapter where it was.
        return None if self.body or self.codec else super().question()

    def passages(self) -> list[Passage]:
        return []  # none of it is text; see `legible`

    def legible(self) -> bool:
        return False

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Gradients):
            there, here = (reply.count, len(reply.packed)), (self.count, _bytes_back(self))
            if there != here:
                raise ValueError("gradients of another shape")

    def tokens_bound(self) -> tuple[int, int]:
        return self.count, 0

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn(gradients=self.count)

    def prompts(self) -> Sequence[object]:
        return ()

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + _bytes_back(self)


def _bytes_back(message: Forward | Backward) -> int:
    if not message.width:
        return len(message.packed)
    return states.size_by(message.back, message.count, message.width)


def _check_codecs(codec: str, back: str, width: int) -> None:
    if bool(codec or back) != bool(width):
        raise ValueError("width")
    for name in filter(None, (codec, back)):
        named(name)


def _turned(packed: bytes, count: int, width: int, codec: str) -> bytes:
    return states.pack_by(codec, np.negative(states.unpack_by(codec, packed, count, width)))
