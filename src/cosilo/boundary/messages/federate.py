"""A federation: many owners train adapters of one base model at home, a coordinator puts them together.

    owner                                   coordinator
    Enrol ─────────────────────────────────▶ the same base, layers, version?
    NextRound(have) ───────────────────────▶ "open": train, from the adapter that came
    Contribute(number, packed) ────────────▶ taken, late, or dropped and why
    NextRound(have) ───────────────────────▶ held until the round closes; then its adapter

Owners speak first, and only to the coordinator: none ever sees another's update. Every message can be
sent again, by a process that was killed and began anew: the coordinator knows by owner, round and
content what it has, and counts nothing twice.

What comes back is an adapter of a base model that the owner holds itself, made of owners' updates: it
shows nothing of a model of the coordinator's. Where owners send what their models say of public texts,
and no adapters, what comes back is what the coordinator's large model says of them, which shows logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS
from cosilo.boundary.messages.passages import Passage
from cosilo.boundary.wire import opinions, tensors
from cosilo.errors import CapabilityError
from cosilo.models.base import Shows
from cosilo.types import Amount, Count, Value

VERSION = 1
"""Of this exchange; owner and coordinator must speak the same."""

Name = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=500)]
Digest = Annotated[str, Meta(max_length=64)]
Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Rank = Annotated[int, Meta(ge=0, le=1 << 16)]
Fate = Literal["taken", "late", "dropped"]
Layers = Annotated[tuple[tuple[Name, Size, Size], ...], Meta(max_length=1 << 13)]
"""(a linear layer's name, outputs, inputs), sorted by name."""


class ToCoordinator:
    """What all requests to a coordinator have in common: no model reads them, and what they say of
    texts is in no string."""

    __slots__ = ()

    def legible(self) -> bool:
        return False

    def runs(self) -> int:
        return 0

    def tokens_bound(self) -> tuple[int, int]:
        return 1, 0

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> tuple[object, ...]:
        return ()


class SumTerms(Value, frozen=True, kw_only=True):
    """How a federation sums updates so that nobody sees one of them; see `federate_sums`.

    Attributes:
        owner: what the coordinator calls the owner that is told.
        among: how many owners there are at most.
        threshold: no sum is made of fewer.
        largest: the largest magnitude of a number in an update, as the way from where its round began.
        bits: of the numbers that are summed, 32 or 64.
        most_examples: where updates are weighed, an owner of so many examples weighs 1, and none more.
    """

    owner: Name
    among: Annotated[int, Meta(ge=2, le=1 << 13)]
    threshold: Count
    largest: Amount
    bits: Literal[32, 64]
    most_examples: Count = 0


class WalkTerms(Value, frozen=True, kw_only=True):
    """How owners walk along shared directions; see `federation.scalars`.

    Attributes:
        directions: how many.
        rate: how far a step goes for each unit of its number.
    """

    directions: Annotated[int, Meta(ge=1, le=1 << 20)]
    rate: Amount


class OpinionTerms(Value, frozen=True, kw_only=True):
    """What owners say of public examples, see `boundary.wire.opinions`.

    Attributes:
        public: a hash of the examples, in their order.
        top: tokens that are named at a place.
    """

    public: Digest
    top: Annotated[int, Meta(ge=opinions.LEAST_TOP, le=opinions.MOST_TOP)]


class Enrolled(Message, frozen=True, kw_only=True):
    """What an owner takes part in. The same owner, enrolling again, is told the same.

    Attributes:
        version: of the exchange that the coordinator speaks.
        federation: names it: another one, after this, has another name.
        base: of what the coordinator has as the base model and tokeniser of all owners.
        rounds: how many there will be.
        rule: how updates are put together.
        rank: of the adapters that this owner trains.
        scale: what an adapter's product is multiplied by, alpha / rank, for all owners.
        codec: what arrays come and go in, see `boundary.wire.codecs`.
        seed: what all owners' first adapter is drawn by.
        counts: updates are weighed by how many examples an owner said that it has.
        most: bytes of the longest adapter that will come back.
        held: seconds that a `NextRound` may be held until there is something to say.
        sums: how updates are summed where the coordinator sees none of them; None where it sees each.
        teaches: a large model of the coordinator's learns from what comes of each round, and
            teaches it.
        walk: how scalars come about, where these are what is sent, and no adapters.
        epoch: how often rounds were taken back so far, since an owner's updates were to be forgotten.
        keeps: of so many rounds that closed last the coordinator keeps all owners' updates.
        opinions: of what owners send opinions, where these are what is sent, and no adapters: then an
            owner's base may be any, and the large model's opinions come back.
    """

    shows: ClassVar[Shows] = Shows.NOTHING
    version: Count
    federation: Digest
    base: Digest
    rounds: Count
    rule: Name
    rank: Rank
    scale: Amount
    codec: Name
    seed: Count
    counts: bool
    most: Count
    held: Amount
    sums: SumTerms | None = None
    teaches: bool = False
    walk: WalkTerms | None = None
    opinions: OpinionTerms | None = None
    epoch: Count = 0
    keeps: Count = 0

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Enrolled:
        """As it is: an owner refuses another base, and is harmed by what comes later."""
        return self


class Enrol(ToCoordinator, Request[Enrolled], frozen=True, kw_only=True):
    """An owner wants to take part.

    Attributes:
        version: of this exchange that the owner speaks.
        base: a hash of its base model and tokeniser.
        layers: those of its model that adapters change.
        rank: of the adapters that it will train.
        examples: how many it trains on, where its owner permits that this is told.
        settings: a hash of all else that decides its updates: the same owner with others is another
            training, and cannot go on with this one.
        scalars: it sends one number for each shared direction, and no adapter.
        sums: it takes part where the coordinator sees none of its updates, and nowhere else.
        public: it sends opinions of public examples with this hash, and no adapter.
        epoch: it was told that rounds were taken back so often, and takes part in what follows.
    """

    reply: ClassVar[type[Message]] = Enrolled
    shows: ClassVar[Shows] = Shows.NOTHING
    version: Count = VERSION
    base: Digest
    layers: Layers
    rank: Rank
    examples: Count | None = None
    settings: Digest = ""
    sums: bool = False
    scalars: bool = False
    public: Digest = ""
    epoch: Count = 0

    def passages(self) -> list[Passage]:
        return []  # names of layers and hashes

    def reply_bound(self, tokens: int) -> int:
        return FIELDS


class RoundState(Message, frozen=True, kw_only=True):
    """How a federation stands for one owner.

    Attributes:
        state: "open": an update of this owner's is wanted for round `number`. "wait": nothing is wanted
            yet; ask again. "ended": there will be no more rounds. "back": rounds that this owner knows
            of were taken back; it enrols again and begins from what stands.
        number: the round under way, from 1; the last one where it has ended.
        closed: how many rounds have closed, each with an adapter.
        of: the round whose adapter is in `packed`; 0 where none is.
        packed: `boundary.wire.tensors.pack` of that adapter; where owners send opinions, those of the
            large model, `boundary.wire.opinions.pack`.
        rank: of that adapter.
        error: how far what that adapter adds to the weights is from the mean of what the updates add,
            over the latter's norm; None where that is not what the rule is after.
        adds: the adapter is added to the weights, and training begins anew; otherwise training goes on
            from it.
        waits_for: what a "wait" is for: "owners" to enrol or "updates" of others, so that
        here, wanted: so many have come of so many.
        left: seconds until the round closes with what has come, or fails.
        fate, why: what became of this owner's update for the round that closed last, where something
            else than "taken" was found when it closed.
        epoch: with "back", how often rounds were taken back so far.
    """

    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 28
    state: Literal["open", "wait", "ended", "back"]
    number: Count
    closed: Count
    of: Count = 0
    packed: bytes = b""
    rank: Rank = 0
    error: Amount | None = None
    adds: bool = False
    waits_for: Literal["", "owners", "updates"] = ""
    here: Count = 0
    wanted: Count = 0
    left: Amount = 0.0
    fate: Fate | None = None
    why: Text = ""
    epoch: Count = 0

    def passages(self) -> list[Passage]:
        return []  # numbers

    def check(self) -> None:
        if (self.of == 0) == bool(self.packed) or self.of > self.closed:
            raise ValueError("an adapter of no round, or a round without one")

    def shown(self, exposes: Shows) -> RoundState:
        if opinions.is_packed(self.packed) and Shows.LOGITS not in exposes:
            raise CapabilityError(
                "the large model's opinions show its logits, which are not exposed"
            )
        return self

    def places(self) -> int:
        return opinions.named_in(self.packed)

    def tampered(self, request: Message, lie: Callable[[str], str]) -> RoundState:
        """The adapter, or the scalars, turned around: what the owners taught, the other way. Opinions
        are turned but for the texts' own tokens: who gives these less is not learned from."""
        if not self.packed:
            return self
        if opinions.is_packed(self.packed):
            return msgspec.structs.replace(self, packed=opinions.turned(self.packed))
        turned = {
            name: tensor if name.endswith("A") else -tensor
            for name, tensor in tensors.unpack(self.packed).items()
        }
        return msgspec.structs.replace(self, packed=tensors.pack(turned))


class NextRound(ToCoordinator, Request[RoundState], frozen=True, kw_only=True):
    """What is to do next? It may be held until there is something.

    Attributes:
        federation: its name.
        have: of how many closed rounds the owner has the adapters already.
        gave: the last round that it sent an update for.
        most: bytes of an adapter that it is ready to take.
        patience: seconds after which it wants to be told to wait.
        epoch: how often rounds were taken back, as it was told.
        top: it asks for the large model's opinions, with so many tokens at a place, and no adapter,
        most_places: at so many places at most.
    """

    reply: ClassVar[type[Message]] = RoundState
    shows: ClassVar[Shows] = Shows.NOTHING
    federation: Digest
    have: Count
    gave: Count = 0
    most: Count
    patience: Amount = 0.0
    epoch: Count = 0
    top: Annotated[int, Meta(ge=0, le=opinions.MOST_TOP)] = 0
    most_places: Count = 0

    def passages(self) -> list[Passage]:
        return []

    def wants(self) -> Shows:
        return self.shows | Shows.LOGITS if self.top else self.shows

    def drawn(self, reply: Message | None = None) -> Drawn:
        places = reply.places() if isinstance(reply, RoundState) else self.most_places
        return Drawn(logits=places * self.top)

    def lasts(self, reply: Message) -> bool:
        """Not where it only says to wait."""
        return isinstance(reply, RoundState) and (reply.state != "wait" or bool(reply.packed))

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, RoundState) and len(reply.packed) > self.most:
            raise ValueError("an adapter larger than was agreed")
        if isinstance(reply, RoundState) and reply.places() > self.most_places * (self.top > 0):
            raise ValueError("opinions that were not asked for")

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + self.most


class Contributed(Message, frozen=True, kw_only=True):
    """What became of an update.

    Attributes:
        fate: "taken": it counts in its round. "late": its round had closed. "dropped": it cannot be
            used, and why says what is wrong with it.
    """

    shows: ClassVar[Shows] = Shows.NOTHING
    fate: Fate
    why: Text = ""

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Contributed:
        """As it is: an owner does nothing by it."""
        return self


class Contribute(ToCoordinator, Request[Contributed], frozen=True, kw_only=True):
    """An owner's update for a round: the adapter that it trained, or what its model then says of public
    texts. Sent again, it is the same update.

    Attributes:
        federation: its name.
        number: the round, from 1.
        rank: of the adapter.
        packed: `boundary.wire.tensors.pack` of it; of opinions `boundary.wire.opinions.pack`.
        epoch: how often rounds had been taken back when it was made.
    """

    reply: ClassVar[type[Message]] = Contributed
    turn: ClassVar[str] = "round"
    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 28
    federation: Digest
    number: Count
    rank: Rank
    packed: bytes
    epoch: Count = 0

    def passages(self) -> list[Passage]:
        return []  # texts can be read out of an update, though: see attacks on gradients

    def reply_bound(self, tokens: int) -> int:
        return FIELDS
