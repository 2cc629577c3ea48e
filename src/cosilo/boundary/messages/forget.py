"""A data owner asks the other side to forget what it has of it, and is told what became of each thing.

    data owner: ──Forget──▶ LM's owner, coordinator    names of requests, rounds, adapters; no content
                ◀──Forgotten──                         of each: deleted, rolled back, …; signed

Everything is named by what both sides know it by already: a request's id on the network, a federation's
name, a hash. A client can ask for what is its own and nothing else: the name of another's is nothing.
The same request is answered with the same bytes, however often it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import TURN
from cosilo.boundary.messages.passages import Passage
from cosilo.models.base import Shows
from cosilo.types import Amount, Count, Value

T = TypeVar("T")

MOST_REQUESTS, MOST_NAMES = 4096, 256
"""Ids of requests, and names of anything else, in one message."""

ForgetId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
"""128 random bits: what a request to forget is called wherever something is done for it."""

RequestId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Hex = Annotated[str, Meta(pattern=r"\A[0-9a-f]{0,64}\Z")]
What = Literal["request", "federation", "adapter", "body"]

How = Literal["deleted", "redone", "rolled back", "approximate", "nothing", "cannot"]
"""What became of something:

* `deleted`: it is gone, and nothing was made of it that is not gone as well;
* `redone`: what was made of it was made again without it, and is to the bit what it would have been;
* `rolled back`: what was made of it was put back to before it, and has to be made again;
* `approximate`: what was made of it was made again without it, of parts that had been made with it;
* `nothing`: nothing of that name is this client's;
* `cannot`: it is still there; `left` says why.
"""

Left = Literal[
    "digests",
    "contents",
    "sent on",
    "others were given it",
    "others' records",
    "a model learned",
    "settings",
]
"""What there is of it all the same:

* `digests`: hashes of its messages, by which the record is verified, and a guess of all of one can be;
* `contents`: its messages, which this owner's settings keep on record;
* `sent on`: texts that a model elsewhere was asked with;
* `others were given it`: what was made of it, at other owners;
* `others' records`: the same, in what is on record of what they were told;
* `a model learned`: all of it; a large model has learned from what was made of it;
* `settings`: all of it; this owner takes nothing back, by its settings or as it has no way to.
"""


class InFederation(Value, frozen=True, kw_only=True):
    """Updates of this client's in a federation.

    Attributes:
        rounds: in which rounds; all of them when empty.
    """

    federation: Hex
    rounds: Annotated[tuple[Count, ...], Meta(max_length=MOST_REQUESTS)] = ()


class ForgottenItem(Value, frozen=True, kw_only=True):
    """What became of one thing, or of several alike.

    Attributes:
        names: as they were asked for; of everything that this client has, none or what was found.
        count: how many things that is.
        before, after: hashes of what it was, and of what is in its place, where there are such.
        first, last: of a federation, the rounds that were taken back or made again; 0 for none.
    """

    what: What
    how: How
    names: Annotated[tuple[Hex, ...], Meta(max_length=MOST_REQUESTS)] = ()
    count: Count = 0
    before: Hex = ""
    after: Hex = ""
    first: Count = 0
    last: Count = 0
    left: Annotated[tuple[Left, ...], Meta(max_length=6)] = ()


class Forgotten(Message, frozen=True, kw_only=True):
    """What became of all that a request named.

    Attributes:
        forget, part: of the request.
        asked: a hash of all that it asked for.
        client: whose request it was.
        by: what the owner that forgot calls itself.
        at: when, in seconds since 1970 by its clock.
        chain: the certificate that it answers under, and those between that and its authority, as DER;
            none where it is in the data owner's own process.
        signature: by that certificate's key, of this message without it; see `record.signed`.
    """

    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 20
    forget: ForgetId
    part: Count = 0
    asked: Hex
    client: Annotated[str, Meta(max_length=200)] = ""
    by: Annotated[str, Meta(max_length=200)] = ""
    at: Amount
    outcomes: Annotated[tuple[ForgottenItem, ...], Meta(max_length=4 * MOST_NAMES)]
    chain: Annotated[tuple[bytes, ...], Meta(max_length=8)] = ()
    signature: Annotated[bytes, Meta(max_length=1 << 12)] = b""

    def passages(self) -> list[Passage]:
        return []  # names that were said to it

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Forgotten:
        """As it is: whoever signs can lie, and nobody else can change it."""
        return self

    @property
    def stands(self) -> bool:
        """Whether anything that was asked for is still there at its owner's."""
        return any(found.how == "cannot" for found in self.outcomes)


class Forget(Request[Forgotten], frozen=True, kw_only=True):
    """Names what is to be forgotten.

    Attributes:
        forget: the request to forget that this is a part of.
        part: which part, where the names do not go into one message.
        requests: by their ids on the network.
        federations: this client's updates.
        adapters: by the names of `PluggedIn` and `Tuned`.
        bodies: adapters that gradients trained, by the name of their first version or of one since.
        everything: all that there is of this client; nothing else is named then.
    """

    reply: ClassVar[type[Message]] = Forgotten
    shows: ClassVar[Shows] = Shows.NOTHING
    largest: ClassVar[int] = 1 << 19
    forget: ForgetId
    part: Count = 0
    requests: Annotated[tuple[RequestId, ...], Meta(max_length=MOST_REQUESTS)] = ()
    federations: Annotated[tuple[InFederation, ...], Meta(max_length=MOST_NAMES)] = ()
    adapters: Annotated[tuple[RequestId, ...], Meta(max_length=MOST_NAMES)] = ()
    bodies: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}\Z")], ...], Meta(max_length=MOST_NAMES)
    ] = ()
    everything: bool = False

    def check(self) -> None:
        named = self.requests, self.federations, self.adapters, self.bodies
        if self.everything == any(named):
            raise ValueError("names, or everything")
        if any(len(set(some)) < len(some) for some in named):
            raise ValueError("a name twice")

    @property
    def asked(self) -> str:
        """A hash of all that it asks for."""
        bare = msgspec.structs.replace(self, epsilon=0.0, release=None)
        return hashlib.sha256(msgspec.msgpack.encode(bare)).hexdigest()

    def passages(self) -> list[Passage]:
        return []  # ids and hashes

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def runs(self) -> int:
        return 0

    def reply_bound(self, tokens: int) -> int:
        return Forgotten.largest

    def question(self) -> Mapping[str, object] | None:
        return None  # what is done once cannot be answered from a record

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return ()

    def check_reply(self, reply: Message) -> None:
        if not isinstance(reply, Forgotten):
            return
        if (reply.forget, reply.part, reply.asked) != (self.forget, self.part, self.asked):
            raise ValueError("an answer to another request")
        told = {(found.what, name) for found in reply.outcomes for name in found.names}
        if not self.everything and told != set(self.named()):
            raise ValueError("it does not say what became of each name")

    def named(self) -> Iterator[tuple[What, str]]:
        """All that it names."""
        yield from (("request", name) for name in self.requests)
        yield from (("federation", each.federation) for each in self.federations)
        yield from (("adapter", name) for name in self.adapters)
        yield from (("body", name) for name in self.bodies)


def in_parts(
    forget: str,
    *,
    requests: Sequence[str] = (),
    federations: Sequence[InFederation] = (),
    adapters: Sequence[str] = (),
    bodies: Sequence[str] = (),
) -> list[Forget]:
    """The messages that name all of it, none where nothing is named; the same names are the same
    messages. Each name counts once."""
    ids = _cut(sorted(set(requests)), MOST_REQUESTS)
    shared = _cut(_merged(federations), MOST_NAMES)
    plugged = _cut(sorted(set(adapters)), MOST_NAMES)
    trained = _cut(sorted(set(bodies)), MOST_NAMES)
    parts = zip_longest(ids, shared, plugged, trained, fillvalue=())
    return [
        Forget(forget=forget, part=i, requests=r, federations=f, adapters=a, bodies=b)
        for i, (r, f, a, b) in enumerate(parts)
    ]


def _merged(federations: Sequence[InFederation]) -> list[InFederation]:
    """One of each federation, with all rounds that were named."""
    found: dict[str, set[int] | None] = {}
    for each in federations:
        so_far = found.setdefault(each.federation, set())
        if not each.rounds or so_far is None:
            found[each.federation] = None
        else:
            so_far.update(each.rounds)
    return [
        InFederation(federation=name, rounds=() if rounds is None else tuple(sorted(rounds)))
        for name, rounds in sorted(found.items())
    ]


def _cut(names: Sequence[T], most: int) -> list[tuple[T, ...]]:
    return [tuple(names[start : start + most]) for start in range(0, len(names), most)]
