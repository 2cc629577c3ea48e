"""A lossy emulator of the LM comes down, part by part; adapters that were tuned through it go up.

    data owner: ──Lend──▶ LM's owner      its first and last layers, and a poorer middle
                ◀──Lent──
                ──PlugIn──▶               what was tuned of the first and last layers
                ◀──PluggedIn──            the name to ask the LM by from now on: Ask(adapter=name)

An adapter is the data owner's alone: nobody else is answered with it, whatever name they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, TURN
from cosilo.boundary.messages.passages import Passage
from cosilo.models.base import Shows
from cosilo.types import Count, Value

PART = 8 << 20
"""Bytes of an emulator in one message."""

_MOST = 1 << 36  # bytes of an emulator
_WORDS = 1 << 16  # bytes of what describes it

AdapterName = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{32})?\Z")]
"""What an adapter is called that was plugged in: a hash. Empty for none."""

Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16,64}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Nats = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Described(Value, frozen=True, kw_only=True):
    """What an emulator is, beside its weights.

    Attributes:
        config: what it is built by, as JSON.
        base: a digest of the LM and its tokeniser, to be said when adapters come back.
        kept: which of the LM's layers are in it.
        ends: how many of the first, and of the last, are to be tuned.
        whole, alone: nats per token of the owner's public text, as the owner says: the LM's, and the
            emulator's by itself.
    """

    config: Annotated[str, msgspec.Meta(max_length=_WORDS)]
    base: Digest
    kept: Annotated[tuple[Count, ...], msgspec.Meta(max_length=1 << 10)]
    ends: Annotated[int, msgspec.Meta(ge=1, le=1 << 9)]
    whole: Nats
    alone: Nats


class Lent(Message, frozen=True, kw_only=True):
    """A part of an emulator.

    Attributes:
        part, parts: which of how many, from 0.
        size, digest: bytes of all parts together, and their SHA-256.
        packed: this part of `boundary.wire.weights.pack_weights` of its tensors; where it was aligned,
            of those that changed.
        about: in the first part, what it is.
    """

    shows: ClassVar[Shows] = Shows.EMULATOR
    largest: ClassVar[int] = PART + 2 * _WORDS
    part: Count
    parts: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    size: Size
    digest: Digest
    packed: bytes
    about: Described | None = None

    def passages(self) -> list[Passage]:
        return []  # numbers, and what they are called

    def check(self) -> None:
        if not self.part < self.parts or (self.about is None) != (self.part > 0):
            raise ValueError("part")

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Lent:
        """Bytes turned around: what is built of it, if anything is, is no emulator."""
        return msgspec.structs.replace(self, packed=self.packed[::-1])


class Lend(Request[Lent], frozen=True, kw_only=True):
    """Asks for a part of an emulator of the LM.

    Attributes:
        part: which; all of them have `PART` bytes but the last.
        most: bytes of a whole one that is still taken; a larger one is refused, and none of it sent.
        vocabulary: a hash of the tokeniser that it is to be tuned with.
        aligned_to: an adapter that was plugged in, to which the emulator is to be aligned; of that one
            only what changed is sent.
    """

    reply: ClassVar[type[Message]] = Lent
    shows: ClassVar[Shows] = Shows.EMULATOR
    largest: ClassVar[int] = 1 << 16
    part: Count = 0
    most: Size
    vocabulary: Digest
    aligned_to: AdapterName = ""

    def passages(self) -> list[Passage]:
        return []  # hashes

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + Lent.largest

    def drawn(self, reply: Message | None = None) -> Drawn | None:
        # Weights: no number of logits or states says how much that is, so whoever limits those does
        # not lend.
        return None

    def prompts(self) -> Sequence[object]:
        return ()

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Lent):
            if reply.part != self.part:
                raise ValueError("another part")
            if reply.size > self.most:
                raise ValueError("more than is taken")
            if len(reply.packed) != part_size(reply.size, self.part):
                raise ValueError("a part of another size")
            if reply.parts != parts_of(reply.size):
                raise ValueError("another number of parts")


class PluggedIn(Message, frozen=True, kw_only=True):
    """An adapter was taken.

    Attributes:
        name: what to ask by.
    """

    shows: ClassVar[Shows] = Shows.EMULATOR
    largest: ClassVar[int] = 1 << 16
    name: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]

    def passages(self) -> list[Passage]:
        return []  # a hash

    def tampered(self, request: Message, lie: Callable[[str], str]) -> PluggedIn:
        return self  # whatever name it is, what answers by it is looked at


class PlugIn(Request[PluggedIn], frozen=True, kw_only=True):
    """Adapters of the LM's first and last layers, tuned through its emulator.

    Attributes:
        base: what the emulator was of, as its owner had said.
        rank, alpha: of the matrices, and what their products are scaled by, times the rank.
        packed: `boundary.wire.tensors.pack` of them, named as the LM's layers are.
        again: they were plugged in before, and the owner has them no longer; so whatever is on record
            is no answer to this.
    """

    reply: ClassVar[type[Message]] = PluggedIn
    turn: ClassVar[str] = "round"
    shows: ClassVar[Shows] = Shows.EMULATOR
    largest: ClassVar[int] = 1 << 28
    base: Digest
    rank: Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
    alpha: Annotated[float, msgspec.Meta(ge=0, le=1e6)]
    packed: bytes
    again: bool = False

    def passages(self) -> list[Passage]:
        return []  # none of it is text; see `legible`

    def legible(self) -> bool:
        return False  # made of private texts

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def reply_bound(self, tokens: int) -> int:
        return FIELDS

    def question(self) -> Mapping[str, object] | None:
        return None if self.again else super().question()

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return ()


def parts_of(size: int) -> int:
    """In how many parts so many bytes come; one at least."""
    return max(1, -(-size // PART))


def part_size(size: int, part: int) -> int:
    """How many bytes of so many are in that part."""
    return max(0, min(PART, size - part * PART))
