"""Both sides compute one program on arrays of theirs that the other does not see.

    data owner: ──AskJoint──▶ LM's owner        what would be computed with it
                ◀──JointOffered──               sizes, and the most that it takes
                ──OpenJoint──▶                  what this side would run, and where it listens
                ◀──JointOpened──                the same of the other side
                ──Joint──▶  ═══ engines, over proxies of their own ═══  ◀──JointSpent──
                ──CloseJoint──▶ ◀──JointClosed──

Messages agree on what is run and say what it took. What is computed on crosses beside them, as shares
that say nothing to whoever has those of one party: its bytes are counted by the proxies of all sides,
and stand with the messages (`beside`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from cosilo.boundary.messages.base import Beside, Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, TURN
from cosilo.boundary.messages.passages import Passage
from cosilo.models.base import Shows
from cosilo.models.joint import ProgramName, Tells, TokenId, Wanted
from cosilo.types import Amount, Count

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""A SHA-256."""

RunId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]

Bytes = Annotated[int, Meta(ge=0, le=1 << 48)]

SHAPE = 1 << 16
"""Characters that the sizes of a program may have, as JSON."""

_LABELS = 1 << 12
_DEEP = 4  # lists in lists, of a program's sizes
_LONG = 1 << 12  # entries of one of them


class Address(msgspec.Struct, frozen=True):
    """Where the proxy of a party listens for that of another.

    Attributes:
        host: its name, or its number.
        port: from 1 on.
    """

    host: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9.:-]{1,253}\Z")]
    port: Annotated[int, Meta(ge=1, le=65535)]


class JointLink(msgspec.Struct, frozen=True):
    """What one party sent another, by its rank: 0 the LM's owner, 1 the data owner, 2 a helper.

    Attributes:
        bytes: of payload, as the proxies on both ends counted them.
        messages: whole frames of the engines' protocol.
    """

    sender: Annotated[int, Meta(ge=0, le=2)]
    receiver: Annotated[int, Meta(ge=0, le=2)]
    bytes: Bytes
    messages: Bytes = 0


class _Asks:
    """What all requests here have in common: their replies are of the moment and show no text."""

    def passages(self) -> list[Passage]:
        return []  # numbers and names of public things

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def reply_bound(self, tokens: int) -> int:
        return FIELDS

    def question(self) -> Mapping[str, object] | None:
        return None  # what is recorded of a run is no run

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return ()


class JointOffered(Message, frozen=True, kw_only=True):
    """What the LM's owner takes part in.

    Attributes:
        offer: the name of all that follows, with the weights that it is about.
        program: what is computed.
        shape: its public sizes, as JSON.
        field, bits: the ring, and its bits after the point.
        labels: what the numbers that are told stand for.
        left: of how many more computations this client is told more than a label; None where a label
            is all.
        once, each: the most bytes of payload between any two parties, for sharing the weights, and for
            one computation.
    """

    shows: ClassVar[Shows] = Shows.JOINT
    offer: Digest
    program: ProgramName
    shape: Annotated[str, Meta(max_length=SHAPE)] = "{}"
    field: Literal[32, 64, 128] = 64
    bits: Annotated[int, Meta(ge=1, le=64)] = 18
    labels: Annotated[tuple[str, ...], Meta(max_length=_LABELS)] = ()
    left: Count | None = None
    once: Bytes = 0
    each: Bytes = 0

    def sizes(self) -> dict[str, Any]:
        """The sizes that `shape` says.

        Raises:
            ValueError: it says other things than numbers, words, and lists of them.
        """
        said = msgspec.json.decode(self.shape, type=dict[str, Any])
        _require_plain(list(said.values()), _DEEP)
        return said

    def check(self) -> None:
        self.sizes()

    def passages(self) -> list[Passage]:
        return [Passage(label, "label") for label in self.labels]

    def tampered(self, request: Message, lie: Callable[[str], str]) -> JointOffered:
        """Each label stands where the next one stood."""
        return msgspec.structs.replace(self, labels=(*self.labels[1:], *self.labels[:1]))


class AskJoint(_Asks, Request[JointOffered], frozen=True, kw_only=True):
    """Asks what the LM's owner takes part in of what is wanted."""

    reply: ClassVar[type[Message]] = JointOffered
    shows: ClassVar[Shows] = Shows.JOINT
    wanted: Wanted

    def reply_bound(self, tokens: int) -> int:
        return JointOffered.largest

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, JointOffered) and reply.program != self.wanted.program:
            raise ValueError("another program")
        if isinstance(reply, JointOffered) and (reply.left is None) != (
            self.wanted.tells == "label"
        ):
            raise ValueError("told other things")


class JointOpened(Message, frozen=True, kw_only=True):
    """The LM owner's side is ready; nothing has been computed.

    Attributes:
        run: its name.
        agreed: what its side would run, as a hash: the versions, the program, the sizes, the ring.
        at: where its proxy listens for that of the data owner.
        helper: where the third party is asked, in a trial on one machine, where the LM's owner runs it,
            too; elsewhere both know it beforehand.
    """

    shows: ClassVar[Shows] = Shows.JOINT
    run: RunId
    agreed: Digest
    at: Address
    helper: Address | None = None

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> JointOpened:
        return self  # of another hash than its own the data owner opens no run


class OpenJoint(_Asks, Request[JointOpened], frozen=True, kw_only=True):
    """Asks the LM's owner to start its side of a run.

    Attributes:
        offer: what is run.
        wanted: what it was asked for with.
        run: its name, drawn.
        agreed: what this side would run.
        at: where this side's proxy listens for that of the LM's owner.
        tls: proxies speak TLS with certificates on both ends; in a trial on one machine they need not.
    """

    reply: ClassVar[type[Message]] = JointOpened
    shows: ClassVar[Shows] = Shows.JOINT
    offer: Digest
    wanted: Wanted
    run: RunId
    agreed: Digest
    at: Address
    tls: bool = False

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, JointOpened) and (reply.run, reply.agreed) != (self.run, self.agreed):
            raise ValueError("another run")


class JointSpent(Message, frozen=True, kw_only=True):
    """The LM owner's side has done its part.

    Attributes:
        links: what crossed since the message before, as that side counted it, and the helper.
        took: CPU seconds of the LM owner's engine, as it says.
    """

    shows: ClassVar[Shows] = Shows.JOINT
    links: Annotated[tuple[JointLink, ...], Meta(max_length=6)]
    took: Amount = 0.0

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> JointSpent:
        """One byte more than crossed, which is noticed; while a run is opened nobody gains by that. A
        hostile owner can bring other weights, which is not."""
        if not isinstance(request, Joint) or not request.number:
            return self
        links = tuple(msgspec.structs.replace(link, bytes=link.bytes + 1) for link in self.links)
        return msgspec.structs.replace(self, links=links)

    def seconds(self) -> float:
        return self.took

    def beside(self) -> Beside:
        return Beside(
            sum(link.bytes for link in self.links if link.sender == 1),
            sum(link.bytes for link in self.links if link.receiver == 1),
            max((link.messages for link in self.links), default=0),
        )


class Joint(_Asks, Request[JointSpent], frozen=True, kw_only=True):
    """One computation of a run, which both sides do meanwhile; number 0 is that the weights are shared.

    Attributes:
        run: its name.
        number: 0, 1, 2 … without a gap.
        tells: what the data owner is told by it.
        parties: how many compute.
        most: bytes of payload between any two of them; a run that passes it ends.
        again: compute nothing: only say what has crossed since; engines acknowledge some of what they
            are sent a little later.
        clear: tokens that the LM's owner is told in clear, from the beginning of a text.
        text: what they stand for, so that guards, and whoever reads the record, see what left.
    """

    reply: ClassVar[type[Message]] = JointSpent
    shows: ClassVar[Shows] = Shows.JOINT
    largest: ClassVar[int] = 1 << 19
    run: RunId
    number: Count
    tells: Tells = "label"
    parties: Annotated[int, Meta(ge=2, le=3)] = 3
    most: Bytes = 0
    again: bool = False
    clear: Annotated[tuple[TokenId, ...], Meta(max_length=1 << 16)] = ()
    text: str = ""

    def check(self) -> None:
        if self.text and not self.clear:
            raise ValueError("text of no tokens")

    def passages(self) -> list[Passage]:
        return [Passage(self.text)] if self.text else []

    def legible(self) -> bool:
        return bool(self.text) or not self.clear

    def tokens_bound(self) -> tuple[int, int]:
        return TURN + len(self.clear), 0

    def beside(self) -> Beside:
        most = (self.parties - 1) * self.most
        return Beside(most, most)

    def drawn(self, reply: Message | None = None) -> Drawn:
        told = int(self.number > 0 and not self.again)
        return Drawn(logits=told * (self.tells == "logits"), states=told * (self.tells == "states"))

    def check_reply(self, reply: Message) -> None:
        if not isinstance(reply, JointSpent):
            return
        pairs = {(link.sender, link.receiver) for link in reply.links}
        ranks = range(self.parties)
        if len(reply.links) != len(pairs) or pairs != {
            (a, b) for a in ranks for b in ranks if a != b
        }:
            raise ValueError("links")
        if any(link.bytes > self.most for link in reply.links):
            raise ValueError("more bytes than a run may take")


class JointClosed(Message, frozen=True, kw_only=True):
    """The LM owner's side of a run has ended, or there was none."""

    shows: ClassVar[Shows] = Shows.JOINT

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> JointClosed:
        return self  # it says nothing


class CloseJoint(_Asks, Request[JointClosed], frozen=True, kw_only=True):
    """Ends a run."""

    reply: ClassVar[type[Message]] = JointClosed
    shows: ClassVar[Shows] = Shows.JOINT
    run: RunId


def _require_plain(values: Sequence[object], deep: int) -> None:
    """Refuse what is no number, word, or list of them.

    Raises:
        ValueError: it is not.
    """
    if len(values) > _LONG or not deep:
        raise ValueError("sizes")
    for value in values:
        if isinstance(value, list):
            _require_plain(value, deep - 1)
        elif not isinstance(value, str | int | float | None):
            raise ValueError("sizes")
