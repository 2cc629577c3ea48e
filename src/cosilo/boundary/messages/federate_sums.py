"""A round of a federation whose coordinator sees the sum of all updates and none of them.

    owner                                   coordinator
    Advertise(keys, commitment) ───────────▶ taken
    NextStep("shares") ────────────────────▶ held until the roster is fixed; then everybody's adverts
    HandShares(one sealed for each) ───────▶ taken
    NextStep("vector") ────────────────────▶ held until it is fixed who shared; then their names
    Masked(update + masks) ────────────────▶ taken
    NextStep("unmasking") ─────────────────▶ held until it is fixed who is left; then they, and shares
    Unmask(a share for each owner) ────────▶ taken; the sum is made when enough have come

See `federation.secure.sums` for what is in them. Every message can be sent again, as in `federate.py`;
one that comes when its step is over is late, and its owner drops out of the round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from cosilo.boundary.messages.base import Message, Request
from cosilo.boundary.messages.bounds import FIELDS
from cosilo.boundary.messages.federate import Contributed, Digest, Text, ToCoordinator
from cosilo.boundary.messages.passages import Passage
from cosilo.models.base import Shows
from cosilo.types import Amount, Count, Value

SHARE = 66
"""Bytes of a share of a secret."""

SEALED = 2 * SHARE + 16
"""Bytes of two of them, sealed."""

_EACH = 1024
"""Bytes that a reply has for each owner, at most: its name, its keys, what it sealed."""

Owner = Annotated[str, Meta(min_length=1, max_length=200)]
Owners = Annotated[tuple[Owner, ...], Meta(max_length=1 << 13)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Share = Annotated[bytes, Meta(min_length=SHARE, max_length=SHARE)]
Shares = Annotated[tuple[tuple[Owner, Share], ...], Meta(max_length=1 << 13)]
Seal = Annotated[bytes, Meta(min_length=SEALED, max_length=SEALED)]
Seals = Annotated[tuple[tuple[Owner, Seal], ...], Meta(max_length=1 << 13)]
Part = Literal["shares", "vector", "unmasking"]


class Advert(Value, frozen=True, kw_only=True):
    """What an owner says of itself first.

    Attributes:
        mask_key: the public key of the masks that it has in common with others.
        share_key: the public key that shares for it are sealed with.
        content: a commitment of the vector that it will mask, which tells nothing of it.
        own: a hash of its own mask's seed, for the coordinator to know it by.
    """

    owner: Owner
    mask_key: Bytes32
    share_key: Bytes32
    content: Bytes32
    own: Bytes32


class Unmasking(Value, frozen=True, kw_only=True):
    """An owner's shares for taking the masks away.

    Attributes:
        own: (survivor, a share of the seed of its own mask).
        keys: (owner that dropped out, a share of the private key of its common masks).
    """

    own: Shares = ()
    keys: Shares = ()


class _ToSum(ToCoordinator):
    """What all that an owner gives to a sum has in common: the federation's name, the round's number,
    from 1, and how often rounds had been taken back when it was made."""

    __slots__ = ()

    def passages(self) -> list[Passage]:
        return []  # numbers that nobody can tell from random ones, and owners' names

    def reply_bound(self, tokens: int) -> int:
        return FIELDS


class Advertise(_ToSum, Request[Contributed], frozen=True, kw_only=True):
    """An owner has its update, commits to it and says its keys."""

    reply: ClassVar[type[Message]] = Contributed
    shows: ClassVar[Shows] = Shows.NOTHING
    federation: Digest
    number: Count
    advert: Advert
    epoch: Count = 0


class HandShares(_ToSum, Request[Contributed], frozen=True, kw_only=True):
    """Shares of an owner's secrets, one sealed for each other owner of the roster."""

    reply: ClassVar[type[Message]] = Contributed
    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 22
    federation: Digest
    number: Count
    sealed: Seals
    epoch: Count = 0


class Masked(_ToSum, Request[Contributed], frozen=True, kw_only=True):
    """An owner's update under its masks: numbers modulo 2³² or 2⁶⁴, in little-endian order."""

    reply: ClassVar[type[Message]] = Contributed
    turn: ClassVar[str] = "round"
    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 28
    federation: Digest
    number: Count
    vector: bytes
    epoch: Count = 0


class Unmask(_ToSum, Request[Contributed], frozen=True, kw_only=True):
    """An owner's shares: of each survivor's own mask, of the key of each who dropped out."""

    reply: ClassVar[type[Message]] = Contributed
    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 22
    federation: Digest
    number: Count
    shares: Unmasking
    epoch: Count = 0


class SumState(Message, frozen=True, kw_only=True):
    """How a round's sum stands for one owner.

    Attributes:
        step: the one that was asked for, where it has come; "wait" before; "over" where this owner has
            no part in the sum any more, and why.
        adverts, threshold: for "shares": the roster's owners in the order of their names, and how many
            of them must be left at the end.
        owners: for "vector" those who shared; for "unmasking" those who are left.
        sealed: for "unmasking": what each who shared sealed for this owner.
        here, wanted: so many have done the step before of so many.
        left: seconds until it closes with what has come, or the federation fails.
    """

    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 23
    step: Literal["wait", "shares", "vector", "unmasking", "over"]
    adverts: Annotated[tuple[Advert, ...], Meta(max_length=1 << 13)] = ()
    threshold: Count = 0
    owners: Owners = ()
    sealed: Seals = ()
    why: Text = ""
    here: Count = 0
    wanted: Count = 0
    left: Amount = 0.0

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> SumState:
        """As it is: an owner refuses a second roster, and a first one that is not its own."""
        return self


class NextStep(ToCoordinator, Request[SumState], frozen=True, kw_only=True):
    """What is there for an owner's next step? It may be held until there is something.

    Attributes:
        federation: its name.
        number: the round, from 1.
        step: the one that it wants to do.
        among: how many owners there may be at most.
        patience: seconds after which it wants to be told to wait.
        epoch: how often rounds were taken back, as it was told.
    """

    reply: ClassVar[type[Message]] = SumState
    shows: ClassVar[Shows] = Shows.NOTHING
    federation: Digest
    number: Count
    step: Part
    among: Annotated[int, Meta(ge=0, le=1 << 13)]
    patience: Amount = 0.0
    epoch: Count = 0

    def passages(self) -> list[Passage]:
        return []

    def lasts(self, reply: Message) -> bool:
        """Not where it only says to wait."""
        return isinstance(reply, SumState) and reply.step != "wait"

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, SumState) and reply.step not in ("wait", "over", self.step):
            raise ValueError("a step that was not asked for")
        if isinstance(reply, SumState) and len(reply.adverts) > self.among:
            raise ValueError("more owners than was agreed")

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + _EACH * self.among
