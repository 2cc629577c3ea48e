"""What owners ask of a federation: what each is told, and what becomes of what it gives.

When a round begins and closes is in `course.py`. No clock runs here: whoever asks says what time it is,
and is told how things stand then.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cosilo.boundary.messages import (
    Contribute,
    Contributed,
    Enrol,
    Enrolled,
    NextRound,
    NextStep,
    RoundState,
    SumState,
)
from cosilo.boundary.messages.forget import ForgottenItem
from cosilo.errors import (
    FederationError,
    RejectedError,
)
from cosilo.parties.coordinating.book import (
    KeptUpdate,
    Member,
    Standing,
)
from cosilo.parties.coordinating.course import FederationCourse
from cosilo.parties.coordinating.enrolling import require_enrollable, said_of, told_to
from cosilo.parties.coordinating.opinions import OpinionExchange
from cosilo.parties.coordinating.results import RoundResults
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.coordinating.sums import (
    STATES,
    Given,
    SumRounds,
    digest_of,
    step_of,
)
from cosilo.parties.coordinating.taking_back import after_way, told_of, way_back, why_not
from cosilo.parties.coordinating.transferring import Transfer
from cosilo.parties.coordinating.updates import flaw

log = logging.getLogger("cosilo.federation")

Part = Literal["member", "taken back", "none"]
"""Whether an owner takes part in a federation, took all that it gave back, or never took part."""

_BACK = "rounds were taken back since it was made"


class Rounds:
    """One federation, in the file `path` or in memory; see `Federation`, which owners ask.

    Raises:
        ConfigError: the file is that of a federation with other settings.
        StoreError: it cannot be opened.
    """

    def __init__(
        self,
        settings: FederationSettings,
        path: Path | None = None,
        transfer: Transfer | OpinionExchange | None = None,
    ) -> None:
        self._course = FederationCourse(settings, path, transfer)
        self._book = self._course.book

    @property
    def standing(self) -> Standing:
        return self._course.standing

    @property
    def settings(self) -> FederationSettings:
        """Those by which it goes on with the owners that are left."""
        return self._course.settings

    def close(self) -> None:
        self._book.close()

    # ── what owners ask ──────────────────────────────────────────────────────

    def enrol(self, owner: str, message: Enrol, now: float) -> Enrolled:
        """Take `owner` in, or tell it the same as before.

        Raises:
            CapabilityError: it speaks another version, has another base model, or other layers; it
                trains adapters of another rank; it does not say how many examples it has, and must.
            RejectedError: it is not one of the owners, or enrolled before with other settings.
        """
        self._require_here(owner)
        said = self._course.opinions
        terms = None if said is None else said.terms
        require_enrollable(owner, message, self.settings, self.standing, terms)
        about = said_of(message)
        known = self._member(owner)
        if known is None:
            self._course.enrol(owner, message, about)
            self._course.tick(now)
        elif known.said != about:
            raise RejectedError(
                "this owner takes part already, with other settings; go on with those, or wait "
                "for another federation",
                everything=True,
            )
        return told_to(
            message,
            self.settings,
            self.standing,
            self._course.layers,
            sums=self._course.sums.terms(owner) if self._course.sums else None,
            teaches=self._course.learns,
            opinions=terms,
            most=0 if said is None else said.most,
        )

    def next(self, owner: str, message: NextRound, now: float) -> RoundState:
        """How things stand for `owner`.

        Raises:
            FederationError: the federation failed.
            RejectedError: the owner did not enrol here, or says that it has more than there is, or asks
                for something else than the federation gives.
        """
        self._known(owner, message.federation)
        if message.top != (
            self._course.opinions.terms.top if self._course.opinions is not None else 0
        ):
            raise RejectedError("this federation's rounds end in something else than is asked for")
        self._course.tick(now)
        at = self.standing
        if at.state == "failed":
            raise FederationError(at.why)
        closed = at.closed
        if message.epoch != at.epoch:
            return RoundState(state="back", number=max(1, at.number), closed=closed, epoch=at.epoch)
        if message.have > closed:
            raise RejectedError(f"round {message.have} has not closed")
        state = RoundState(state="wait", number=max(1, at.number), closed=closed)
        if message.have < closed:
            state = self._with_adapter(state, message.have, closed, message.most)
        if closed and (mine := self._update(closed, owner)) and mine.fate != "taken":
            state = msgspec.structs.replace(state, fate=mine.fate, why=mine.why)
        if at.state == "ended":
            return msgspec.structs.replace(state, state="ended")
        if at.state == "enrolling":
            here, wanted = len(self._course.enrolled()), self._course.wanted_owners()
            return msgspec.structs.replace(
                state, waits_for="owners", here=here, wanted=wanted, left=self._course.left(now)
            )
        there, expected = self._course.there(), self._course.expected()
        if self._may_go_on(owner, message.gave):
            return msgspec.structs.replace(state, state="open", left=self._course.left(now))
        return msgspec.structs.replace(
            state,
            waits_for="updates",
            here=len(there & expected),
            wanted=len(expected),
            left=self._course.left(now),
        )

    def contribute(self, owner: str, message: Contribute, now: float) -> Contributed:
        """Take `owner`'s update for a round, or tell what became of it before.

        Raises:
            FederationError: the federation failed.
            RejectedError: the owner did not enrol here, the round has not begun, or is others', or
                another update of this owner's stands for it.
        """
        member = self._known(owner, message.federation)
        if self._course.sums is not None:
            raise RejectedError(
                "this federation sums updates that nobody sees, and this one could be seen: set "
                "secure = true"
            )
        self._course.tick(now)
        at = self.standing
        if message.epoch != at.epoch:
            return Contributed(fate="late", why=_BACK)
        digest = hashlib.sha256(f"{message.rank} ".encode() + message.packed).digest()
        before = self._update(message.number, owner)
        if before is not None:
            if before.digest != digest:
                raise RejectedError(
                    f"another update of this owner's stands for round {message.number}: one counts"
                )
            return Contributed(fate=before.fate, why=before.why)
        if closed := self._closed(message.number):
            return Contributed(fate="late", why=closed)
        self._check_drawn(owner, message.number)
        why = (
            flaw(message.packed, message.rank, member.rank, self._course.layers, self.settings)
            if self._course.opinions is None
            else self._course.opinions.flaw(message.packed)
        )
        kept = KeptUpdate(
            owner, digest, "dropped" if why else "taken", why, message.rank,
            None if why else message.packed,
        )  # fmt: skip
        self._book.keep(message.number, kept)
        if why:
            log.warning("round %d: the update of %r is dropped: %s", at.number, owner, why)
        self._course.tick(now)
        return Contributed(fate=kept.fate, why=kept.why)

    def take_back(self, owner: str, request: str, rounds: Sequence[int]) -> ForgottenItem:
        """Keep nothing of what `owner` gave for these rounds and of what came of it, and go on without
        this owner; or tell what became of it before. See `taking_back`.

        Args:
            request: names the request to forget, so that it is done once.
            rounds: all that it gave something for, when empty.
        """
        if (done := self._book.taken_back(owner, request)) is not None:
            return msgspec.msgpack.decode(done, type=ForgottenItem)
        at, gone, member = self.standing, self._book.gone(), self._member(owner)
        learned = self._course.learns and bool(at.closed or self._course.there())
        if member is not None and (why := why_not(self._course.configured, at, learned=learned)):
            return told_of(at, "cannot", why)
        left = self._course.configured.without(gone | {owner})
        results = RoundResults(left or self.settings, self._course.layers, self._book.closed)
        way = way_back(owner, rounds, at, self._book, results)
        if way is None:
            return told_of(at, "nothing")
        told = way.item(at, self._book, others=len(self._book.members()) > 1)
        fresh = bool(way.first) or self.settings.secure
        after = after_way(at, way, fresh=fresh, goes_on=left is not None)
        self._book.take_back(owner, request, msgspec.msgpack.encode(told), after, way.again)
        self._course.back(after, gone | {owner})
        log.warning("what %r gave is forgotten (%s): %d rounds stand", owner, way.how, way.stands)
        return told

    def part_of(self, owner: str) -> Part:
        """What part `owner` has in it."""
        if owner in self._book.gone():
            return "taken back"
        return "none" if self._member(owner) is None else "member"

    def waits_for(self, now: float) -> set[str]:
        """Whom nothing goes on without, of those who are named or have enrolled."""
        self._course.tick(now)
        at = self.standing
        if at.state == "enrolling":
            return self.settings.drawn(1) - self._course.enrolled()
        if at.state in STATES:
            return self._course.expected() - self._course.there()
        return set()

    def _check_drawn(self, owner: str, number: int) -> None:
        if not self._course.trains(owner):
            raise RejectedError(f"this owner is not one of those drawn for round {number}")

    def _closed(self, number: int) -> str:
        """That a round has closed; nothing while it is open.

        Raises:
            FederationError: the federation failed.
            RejectedError: it has not begun.
        """
        at = self.standing
        if at.state == "failed":
            raise FederationError(at.why)
        if at.state == "enrolling" or not 1 <= number <= at.number:
            raise RejectedError(f"round {number} has not begun")
        over = at.state == "ended" or number < at.number or self._course.learning(number)
        return f"round {number} had closed" * over

    # ── sums ─────────────────────────────────────────────────────────────────

    def give(self, owner: str, message: Given, now: float) -> Contributed:
        """Take what `owner` gives to a round's sum, or tell what became of it before.

        Raises:
            FederationError: the federation failed.
            RejectedError: the owner did not enrol here, or updates are not summed here; the round or
                its step has not begun; or something else of this owner's stands for it.
        """
        self._known(owner, message.federation)
        sums, number, step = self._summing(), message.number, step_of(message)
        self._course.tick(now)
        if message.epoch != self.standing.epoch:
            return Contributed(fate="late", why=_BACK)
        before = sums.part(number, owner, step)
        if before is not None:
            if before.digest != digest_of(message):
                raise RejectedError(
                    f"something else of this owner's stands for round {number} ({step}): one counts"
                )
            return Contributed(fate="dropped" if before.why else "taken", why=before.why)
        if closed := self._closed(number):
            return Contributed(fate="late", why=closed)
        self._check_drawn(owner, number)
        at, order = self.standing, list(STATES.values())
        ahead = order.index(step) - order.index(STATES[at.state])
        if ahead > 0:
            raise RejectedError(f"round {number} waits for {STATES[at.state]}, not for {step} yet")
        if ahead < 0:
            return Contributed(fate="late", why=f"that step of round {number} was over")
        if step != "advert" and owner not in sums.wanted(at):
            return Contributed(fate="late", why=f"this owner dropped out of round {number} before")
        why = sums.take(owner, message, self._course.size)
        if why:
            log.warning("round %d: %r drops out: %s", number, owner, why)
        self._course.tick(now)
        return Contributed(fate="dropped" if why else "taken", why=why)

    def step(self, owner: str, message: NextStep, now: float) -> SumState:
        """What there is for `owner`'s next step in a sum.

        Raises:
            FederationError: the federation failed.
            RejectedError: the owner did not enrol here, updates are not summed here, or the round has
                not begun.
        """
        self._known(owner, message.federation)
        sums = self._summing()
        self._course.tick(now)
        if message.epoch != self.standing.epoch:
            return SumState(step="over", why=_BACK)
        self._closed(message.number)
        found = sums.state(owner, message.number, message.step, self.standing)
        return msgspec.structs.replace(found, left=self._course.left(now))

    def _summing(self) -> SumRounds:
        if self._course.sums is None:
            raise RejectedError("this federation's coordinator sees each update, and sums none")
        return self._course.sums

    def _may_go_on(self, owner: str, gave: int) -> bool:
        """Whether the open round has something to do for `owner`."""
        at = self.standing
        if self._course.sums is None:
            return self._course.trains(owner) and self._update(at.number, owner) is None
        if gave >= at.number or not self._course.trains(owner):
            return False
        return at.state == "open" or owner in self._course.sums.wanted(at)

    # ── enrolment ────────────────────────────────────────────────────────────

    def _member(self, owner: str) -> Member | None:
        return next((m for m in self._book.members() if m.owner == owner), None)

    def _require_here(self, owner: str) -> None:
        if owner in self._book.gone():
            raise RejectedError(
                "this owner's updates were taken back when it asked that they be forgotten, and it has "
                "left this federation: take part in another one",
                everything=True,
            )

    def _known(self, owner: str, federation: str) -> Member:
        self._require_here(owner)
        member = self._member(owner)
        if member is None or federation != self.standing.name:
            raise RejectedError(
                "this owner did not enrol in this federation: enrol first, and begin a new run for "
                "another federation than the last one"
            )
        return member

    # ── updates ──────────────────────────────────────────────────────────────

    def _update(self, number: int, owner: str) -> KeptUpdate | None:
        return next((u for u in self._book.updates(number) if u.owner == owner), None)

    def _with_adapter(self, state: RoundState, have: int, closed: int, most: int) -> RoundState:
        """The adapter that an owner lacks: the last one, or the next where each is added to weights."""
        found, of = self._book.closed(closed), closed
        if found is not None and found.adds:
            found, of = self._book.closed(have + 1), have + 1
        assert found is not None
        if len(found.packed) > most:
            raise RejectedError(
                f"the adapter of round {of} has {len(found.packed)} bytes, and the owner takes {most}"
            )
        return msgspec.structs.replace(
            state, of=of, packed=found.packed, rank=found.rank, adds=found.adds, error=found.error
        )
