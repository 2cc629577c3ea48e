"""A round whose updates are summed under masks: the coordinator has the sum, and no owner's update.

    open ── adverts ──▶ sharing ── shares ──▶ masking ── masked updates ──▶ unmasking ── shares ──▶ sum
         the roster is fixed    the sharers are        the survivors are

What a step fixed is in the book in the transaction that begins the next one, and is never fixed anew: a
coordinator that is killed goes on with the same roster, sharers and survivors, so an owner is never
asked for shares of both of another one's secrets. See `federation.secure` and decision 0051.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from cosilo.boundary.messages import Advertise, HandShares, Masked, SumState, Unmask
from cosilo.boundary.messages.federate import SumTerms
from cosilo.boundary.messages.federate_sums import Advert, Part, Unmasking
from cosilo.boundary.wire import tensors
from cosilo.federation.secure import coordinator
from cosilo.federation.secure.fixed_point import FixedPoint, mean_of_sum
from cosilo.federation.secure.sums import Roster, in_epoch
from cosilo.federation.updates import Doubles, OwnerUpdate, Tensors, flat, shaped, vetted
from cosilo.parties.coordinating.book import (
    ClosedRound,
    FederationBook,
    KeptSum,
    KeptUpdate,
    Standing,
    SumPart,
)
from cosilo.parties.coordinating.settings import FederationSettings

Sealed = tuple[tuple[str, bytes], ...]
Given = Advertise | HandShares | Masked | Unmask
Step = Literal["advert", "shares", "vector", "unmasking"]

STATES: dict[str, Step] = {
    "open": "advert",
    "sharing": "shares",
    "masking": "vector",
    "unmasking": "unmasking",
}
"""What is waited for in each state of a round, in their order."""

_NAMES: dict[Step, str] = {
    "advert": "adverts", "shares": "owners' shares", "vector": "masked updates",
    "unmasking": "owners' shares for taking masks away",
}  # fmt: skip


def step_of(message: Given) -> Step:
    match message:
        case Advertise():
            return "advert"
        case HandShares():
            return "shares"
        case Masked():
            return "vector"
        case Unmask():
            return "unmasking"


class SumRounds:
    """The sums of one federation's rounds, in its book.

    Args:
        federation: what names it in sessions of its sums; see `session_of`.
    """

    def __init__(self, book: FederationBook, settings: FederationSettings, federation: str) -> None:
        self._book = book
        self._settings = settings
        self._federation = federation

    def terms(self, owner: str) -> SumTerms:
        """What `owner` is told of how sums are made."""
        settings = self._settings
        return SumTerms(
            owner=owner,
            among=len(settings.owners),
            threshold=settings.needed,
            largest=settings.sums_largest,
            bits=64 if settings.secure_bits == 64 else 32,
            most_examples=settings.most_examples if settings.counts else 0,
        )

    def part(self, number: int, owner: str, step: Step) -> SumPart | None:
        return next((p for p in self._book.parts(number, step) if p.owner == owner), None)

    def take(self, owner: str, message: Given, size: int) -> str:
        """Keep what an owner gave in the step that is under way; what is wrong with it where it cannot
        be used.

        Args:
            size: numbers in an update's vector.
        """
        step = step_of(message)
        why, content = self._looked_at(owner, message, size)
        kept = SumPart(owner, digest_of(message), why, None if why else content)
        self._book.keep_part(message.number, step, kept)
        return why

    def _looked_at(self, owner: str, message: Given, size: int) -> tuple[str, bytes]:
        """(what is wrong with it, its bytes)."""
        match message:
            case Advertise(advert=advert):
                return self._wrong_advert(owner, advert), msgspec.msgpack.encode(advert)
            case HandShares(sealed=sealed):
                wanted = [name for name in self._roster(message.number).owners if name != owner]
                wrong = [name for name, _ in sealed] != wanted
                content = msgspec.msgpack.encode(sealed)
                return "its shares are not one for each other owner" * wrong, content
            case Masked(vector=vector):
                wanted_bytes = size * self._settings.secure_bits // 8
                if len(vector) != wanted_bytes:
                    return f"its vector has {len(vector)} bytes for {wanted_bytes}", b""
                return "", vector
            case Unmask(shares=shares):
                kept = self._kept(message.number)
                left = set(kept.survivors)
                gone = set(kept.sharers) - left
                own, of_keys = ({n for n, _ in some} for some in (shares.own, shares.keys))
                wrong = not own <= left or not of_keys <= gone
                content = msgspec.msgpack.encode(shares)
                return "its shares are of others than were asked for" * wrong, content

    def _wrong_advert(self, owner: str, advert: Advert) -> str:
        if advert.owner != owner:
            return "it advertises another owner than it is"
        if wrong := coordinator.advert_flaw(advert):
            return wrong
        known = [msgspec.msgpack.decode(a, type=Advert) for a in self._book.adverts()]
        seen = {x for a in known for x in (a.mask_key, a.share_key, a.content, a.own)}
        if seen & {advert.mask_key, advert.share_key, advert.content, advert.own}:
            return "one of its keys was advertised before, by another owner or in another round"
        return ""

    def here(self, at: Standing) -> set[str]:
        """Who has done the step that is under way, well or not."""
        return {p.owner for p in self._book.parts(at.number, STATES[at.state])}

    def wanted(self, at: Standing) -> set[str]:
        """Who can do the step that is under way, after adverts."""
        kept = self._kept(at.number)
        match at.state:
            case "sharing":
                return set(self._roster(at.number).owners)
            case "masking":
                return set(kept.sharers)
            case _:
                return set(kept.survivors)

    def state(self, owner: str, number: int, step: Part, at: Standing) -> SumState:
        """What there is for `owner`'s step in a round."""
        order = list(STATES)
        if at.number != number or at.state not in STATES:
            return SumState(step="over", why=f"round {number} had closed")
        begins = {"shares": "sharing", "vector": "masking", "unmasking": "unmasking"}[step]
        if order.index(at.state) < order.index(begins):
            mine = self.part(number, owner, _before(step))
            if mine is not None and mine.why:
                return SumState(step="over", why=mine.why)
            here, wanted = self.here(at), self.wanted(at) if at.state != "open" else set()
            return SumState(step="wait", here=len(here), wanted=len(wanted))
        roster, kept = self._roster(number), self._kept(number)
        among = {"shares": roster.owners, "vector": kept.sharers, "unmasking": kept.survivors}[step]
        if owner not in among:
            return SumState(
                step="over", why=f"this owner's part came too late, or not at all: {step}"
            )
        if step == "shares":
            return SumState(step=step, adverts=roster.adverts, threshold=roster.threshold)
        if step == "vector":
            return SumState(step=step, owners=kept.sharers)
        return SumState(step=step, owners=kept.survivors, sealed=self._sealed_for(number, owner))

    def _sealed_for(self, number: int, owner: str) -> tuple[tuple[str, bytes], ...]:
        found = []
        sharers = set(self._kept(number).sharers)
        for part in self._book.parts(number, "shares", with_content=True):
            if part.owner in sharers and part.owner != owner and part.content is not None:
                sealed = dict(msgspec.msgpack.decode(part.content, type=Sealed))
                found.append((part.owner, sealed[owner]))
        return tuple(found)

    def go_on(self, at: Standing, size: int) -> Standing:
        """Fix who is in the round's next step.

        Args:
            size: numbers in an update's vector.

        Raises:
            ValueError: too few did the step that ends; it is not the last one.
        """
        number = at.number
        good = [
            p
            for p in self._book.parts(number, STATES[at.state], with_content=at.state == "open")
            if not p.why
        ]
        names = tuple(p.owner for p in good)
        if at.state == "open":
            self._enough(at, len(good), self._settings.needed)
            roster = coordinator.roster_of(
                f"{self._federation} {number}",
                [msgspec.msgpack.decode(p.content or b"", type=Advert) for p in good],
                threshold=max(self._settings.needed, len(good) // 2 + 1),
                size=size,
            )
            kept, state = KeptSum(msgspec.msgpack.encode(roster)), "sharing"
        else:
            kept = self._kept(number)
            self._enough(at, len(good), self._roster(number).threshold)
            if at.state == "sharing":
                kept, state = replace(kept, sharers=names), "masking"
            else:
                kept, state = replace(kept, survivors=names), "unmasking"
        standing = replace(at, state=state)
        self._book.fix(number, kept, standing)
        return standing

    def closed(self, at: Standing, before: Tensors, earlier: Tensors | None) -> ClosedRound:
        """What comes of a round that its last step is done in.

        Args:
            before: what owners began it with.
            earlier: what they began the round before it with, if there was one.

        Raises:
            ValueError: too few shares came, or wrong ones; or the sum cannot be used.
        """
        settings = self._settings
        way, survivors = self._mean(at)
        shapes = {name: tensor.shape for name, tensor in before.items()}
        found = shaped((flat(before) + way).astype(np.float32), shapes)
        if wrong := vetted(found, shapes, largest_norm=settings.largest_norm, scale=settings.scale):
            raise ValueError(f"the sum cannot be used: {wrong}")
        made = settings.made_rule()([OwnerUpdate("sum", 1.0, found)], before)
        made = settings.stepped(made, before, earlier)
        packed = tensors.pack(made.tensors, settings.codec)
        return ClosedRound(packed, settings.rank, made.adds, None, survivors)

    def _mean(self, at: Standing) -> tuple[Doubles, tuple[str, ...]]:
        """The weighted mean of how far the survivors' updates are from where the round began, and who
        they are.

        Raises:
            ValueError: too few shares came, or wrong ones; or the sum is none.
        """
        number, kept, roster = at.number, self._kept(at.number), self._roster(at.number)
        survivors = set(kept.survivors)
        vectors = {
            p.owner: p.content or b""
            for p in self._book.parts(number, "vector", with_content=True)
            if p.owner in survivors
        }
        answers = {
            p.owner: msgspec.msgpack.decode(p.content or b"", type=Unmasking)
            for p in self._book.parts(number, "unmasking", with_content=True)
            if not p.why
        }
        self._enough(at, len(answers), roster.threshold)
        encoding = self.encoding()
        total = coordinator.total(roster, kept.sharers, vectors, answers, encoding)
        return mean_of_sum(encoding.decoded(total)), kept.survivors

    def encoding(self) -> FixedPoint:
        settings = self._settings
        return FixedPoint(len(settings.owners), settings.sums_largest, settings.secure_bits)

    def fates(self, number: int, survivors: Set[str]) -> list[KeptUpdate]:
        """What became of owners' updates when the round closed; of those who dropped out, nothing."""
        found = {}
        for step in STATES.values():
            for part in self._book.parts(number, step):
                if part.why and part.owner not in survivors:
                    found[part.owner] = KeptUpdate(part.owner, part.digest, "dropped", part.why, 0)
        for part in self._book.parts(number, "vector"):
            if part.owner in survivors:
                found[part.owner] = KeptUpdate(part.owner, part.digest, "taken", "", 0)
        return [update for _, update in sorted(found.items())]

    def _enough(self, at: Standing, good: int, needed: int) -> None:
        if good < needed:
            raise ValueError(
                f"round {at.number} had {good} good {_NAMES[STATES[at.state]]} of the {needed} that it "
                "needs, and no update was seen"
            )

    def _kept(self, number: int) -> KeptSum:
        found = self._book.sum_of(number)
        assert found is not None
        return found

    def _roster(self, number: int) -> Roster:
        return msgspec.msgpack.decode(self._kept(number).roster, type=Roster)


def _before(step: Part) -> Step:
    """The step whose end opens `step`."""
    order = list(STATES.values())
    return order[order.index(step) - 1]


def session_of(standing: Standing) -> str:
    """What names a federation in sessions of its sums: another one, once rounds were taken back."""
    return in_epoch(standing.name, standing.epoch)


def digest_of(message: Given) -> bytes:
    """Of what an owner gave, without the ε that it says it is."""
    bare = msgspec.structs.replace(message, epsilon=0.0, release=None)
    return hashlib.sha256(msgspec.msgpack.encode(bare)).digest()
