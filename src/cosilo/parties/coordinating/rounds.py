"""A federation's rounds: what each owner is told, and when a round closes.

    enrolling ── all owners are there, or a quorum at the deadline ──▶ open, round 1
    open ── all that are waited for have contributed, or a quorum at the deadline ──▶ the next round
         └─ fewer good updates than the quorum ──▶ failed       └─ after the last one ──▶ ended

No clock runs here: whoever asks says what time it is, and is told how things stand then. All that
counts is in the book before it is told, so a process that is killed goes on where it was. A deadline
begins anew when the process does, so that owners are not late because the coordinator was down.

An owner that missed a round is not waited for in the next; what it contributes in time counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

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
    ConfigError,
    DataError,
    FederationError,
    ModelError,
    RejectedError,
)
from cosilo.models.low_rank import Layers
from cosilo.parties.coordinating.book import (
    ClosedRound,
    FederationBook,
    KeptUpdate,
    Member,
    Standing,
)
from cosilo.parties.coordinating.enrolling import require_enrollable, said_of, told_to
from cosilo.parties.coordinating.opinions import OpinionExchange
from cosilo.parties.coordinating.results import RoundResults
from cosilo.parties.coordinating.settings import FederationSettings, changed
from cosilo.parties.coordinating.sums import (
    STATES,
    Given,
    SumRounds,
    digest_of,
    session_of,
    step_of,
)
from cosilo.parties.coordinating.taking_back import after_way, told_of, way_back, why_not
from cosilo.parties.coordinating.transferring import Transfer
from cosilo.parties.coordinating.updates import flaw

log = logging.getLogger("cosilo.federation")

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
        if transfer is None and settings.method == "opinions":
            raise ConfigError(
                "opinions teach a large model, and the coordinator has none with public examples: "
                '[model] kind = "taught" beside [federation] is one'
            )
        lasting = settings.lasting if transfer is None else transfer.lasting(settings)
        self.settings = self._configured = settings
        self._transfer = transfer
        self._book = FederationBook(path, settings.keep_updates)
        self._since: tuple[str, int, float] | None = None  # state, round, when it was first seen
        text = json.dumps(lasting, sort_keys=True)
        found = self._book.standing()
        if found is None:
            name = secrets.token_hex(16)
            base = transfer.base if transfer is not None else settings.base
            found = Standing(name, text, base, (), "enrolling", 0)
            self._book.stand(found)
        elif other := changed(json.loads(found.settings), json.loads(text)):
            self._book.close()
            raise ConfigError(
                f"the federation in {str(path)!r} began with other settings ({', '.join(other)}): "
                "restore them, or name another file for another federation"
            )
        self._standing = found
        self._sums: SumRounds | None = None
        self._go_on_without(self._book.gone())
        self._opinions = transfer if isinstance(transfer, OpinionExchange) else None

    def _go_on_without(self, gone: Set[str]) -> None:
        """Go on by the settings of those who are left, if they can."""
        if (settings := self._configured.without(gone)) is None:
            return
        self.settings = settings
        if settings.secure:
            self._sums = SumRounds(self._book, settings, session_of(self._standing))

    @property
    def standing(self) -> Standing:
        return self._standing

    @property
    def _results(self) -> RoundResults:
        return RoundResults(self.settings, self._layers, self._book.closed)

    @property
    def _layers(self) -> Layers:
        return {name: (out, into) for name, out, into in self._standing.layers}

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
        said = self._opinions
        terms = None if said is None else said.terms
        require_enrollable(owner, message, self.settings, self._standing, terms)
        about = said_of(message)
        known = self._member(owner)
        if known is None:
            self._enrol(owner, message, about)
            self._tick(now)
        elif known.said != about:
            raise RejectedError(
                "this owner takes part already, with other settings; go on with those, or wait "
                "for another federation",
                everything=True,
            )
        return told_to(
            message,
            self.settings,
            self._standing,
            self._layers,
            sums=self._sums.terms(owner) if self._sums else None,
            teaches=self._transfer is not None,
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
        if message.top != (self._opinions.terms.top if self._opinions is not None else 0):
            raise RejectedError("this federation's rounds end in something else than is asked for")
        self._tick(now)
        at = self._standing
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
            here, wanted = len(self._enrolled()), self._wanted_owners()
            return msgspec.structs.replace(
                state, waits_for="owners", here=here, wanted=wanted, left=self._left(now)
            )
        there, expected = self._there(), self._expected()
        if self._may_go_on(owner, message.gave):
            return msgspec.structs.replace(state, state="open", left=self._left(now))
        return msgspec.structs.replace(
            state,
            waits_for="updates",
            here=len(there & expected),
            wanted=len(expected),
            left=self._left(now),
        )

    def contribute(self, owner: str, message: Contribute, now: float) -> Contributed:
        """Take `owner`'s update for a round, or tell what became of it before.

        Raises:
            FederationError: the federation failed.
            RejectedError: the owner did not enrol here, the round has not begun, or is others', or
                another update of this owner's stands for it.
        """
        member = self._known(owner, message.federation)
        if self._sums is not None:
            raise RejectedError(
                "this federation sums updates that nobody sees, and this one could be seen: set "
                "secure = true"
            )
        self._tick(now)
        at = self._standing
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
            flaw(message.packed, message.rank, member.rank, self._layers, self.settings)
            if self._opinions is None
            else self._opinions.flaw(message.packed)
        )
        kept = KeptUpdate(
            owner, digest, "dropped" if why else "taken", why, message.rank,
            None if why else message.packed,
        )  # fmt: skip
        self._book.keep(message.number, kept)
        if why:
            log.warning("round %d: the update of %r is dropped: %s", at.number, owner, why)
        self._tick(now)
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
        at, gone, member = self._standing, self._book.gone(), self._member(owner)
        learned = self._transfer is not None and bool(at.closed or self._there())
        if member is not None and (why := why_not(self._configured, at, learned=learned)):
            return told_of(at, "cannot", why)
        left = self._configured.without(gone | {owner})
        results = RoundResults(left or self.settings, self._layers, self._book.closed)
        way = way_back(owner, rounds, at, self._book, results)
        if way is None:
            return told_of(at, "nothing")
        told = way.item(at, self._book, others=len(self._book.members()) > 1)
        fresh = bool(way.first) or self.settings.secure
        after = after_way(at, way, fresh=fresh, goes_on=left is not None)
        self._book.take_back(owner, request, msgspec.msgpack.encode(told), after, way.again)
        self._standing, self._since = after, None
        self._go_on_without(gone | {owner})
        log.warning("what %r gave is forgotten (%s): %d rounds stand", owner, way.how, way.stands)
        return told

    def waits_for(self, now: float) -> set[str]:
        """Whom nothing goes on without, of those who are named or have enrolled."""
        self._tick(now)
        at = self._standing
        if at.state == "enrolling":
            return self.settings.drawn(1) - self._enrolled()
        if at.state in STATES:
            return self._expected() - self._there()
        return set()

    def _check_drawn(self, owner: str, number: int) -> None:
        if not self._trains(owner):
            raise RejectedError(f"this owner is not one of those drawn for round {number}")

    def _closed(self, number: int) -> str:
        """That a round has closed; nothing while it is open.

        Raises:
            FederationError: the federation failed.
            RejectedError: it has not begun.
        """
        at = self._standing
        if at.state == "failed":
            raise FederationError(at.why)
        if at.state == "enrolling" or not 1 <= number <= at.number:
            raise RejectedError(f"round {number} has not begun")
        over = at.state == "ended" or number < at.number or self._learning(number)
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
        self._tick(now)
        if message.epoch != self._standing.epoch:
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
        at, order = self._standing, list(STATES.values())
        ahead = order.index(step) - order.index(STATES[at.state])
        if ahead > 0:
            raise RejectedError(f"round {number} waits for {STATES[at.state]}, not for {step} yet")
        if ahead < 0:
            return Contributed(fate="late", why=f"that step of round {number} was over")
        if step != "advert" and owner not in sums.wanted(at):
            return Contributed(fate="late", why=f"this owner dropped out of round {number} before")
        why = sums.take(owner, message, self._size())
        if why:
            log.warning("round %d: %r drops out: %s", number, owner, why)
        self._tick(now)
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
        self._tick(now)
        if message.epoch != self._standing.epoch:
            return SumState(step="over", why=_BACK)
        self._closed(message.number)
        found = sums.state(owner, message.number, message.step, self._standing)
        return msgspec.structs.replace(found, left=self._left(now))

    def _summing(self) -> SumRounds:
        if self._sums is None:
            raise RejectedError("this federation's coordinator sees each update, and sums none")
        return self._sums

    def _size(self) -> int:
        """Numbers in the vector of an update: its own, and its weight."""
        shapes = self.settings.shapes(self._layers, self.settings.rank)
        return sum(math.prod(shape) for shape in shapes.values()) + 1

    def _there(self) -> set[str]:
        """Who has done what the open round waits for."""
        if self._sums is None:
            return {u.owner for u in self._book.updates(self._standing.number)}
        return self._sums.here(self._standing)

    def _may_go_on(self, owner: str, gave: int) -> bool:
        """Whether the open round has something to do for `owner`."""
        at = self._standing
        if self._sums is None:
            return self._trains(owner) and self._update(at.number, owner) is None
        if gave >= at.number or not self._trains(owner):
            return False
        return at.state == "open" or owner in self._sums.wanted(at)

    # ── enrolment ────────────────────────────────────────────────────────────

    def _enrol(self, owner: str, message: Enrol, said: str) -> None:
        at = self._standing
        if self._opinions is None:
            at = replace(at, base=message.base, layers=message.layers)
        since = at.number + 1  # the round under way is not kept waiting for it
        self._book.enrol(Member(owner, said, message.rank, message.examples, since), at)
        self._standing = at

    def _wanted_owners(self) -> int:
        return len(self.settings.drawn(1)) or self.settings.needed

    def _enrolled(self) -> set[str]:
        """Of those that the first round waits for."""
        found = {m.owner for m in self._book.members()}
        return found & self.settings.drawn(1) if self.settings.sample else found

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
        if member is None or federation != self._standing.name:
            raise RejectedError(
                "this owner did not enrol in this federation: enrol first, and begin a new run for "
                "another federation than the last one"
            )
        return member

    # ── rounds ───────────────────────────────────────────────────────────────

    def _tick(self, now: float) -> None:
        """Do what is due at `now`: begin, close a round, or fail. What begins has its whole time."""
        self._do_what_is_due(now)
        self._left(now)

    def _do_what_is_due(self, now: float) -> None:
        at = self._standing
        if at.state == "enrolling" and (here := len(self._enrolled())):
            needed, late = self.settings.needed, self._left(now) <= 0
            if here >= (needed if late else self._wanted_owners()):
                self._stand(replace(at, state="open", number=1))
            elif late:
                self._fail(f"{here} of {needed} owners that it needs enrolled")
        elif at.state in STATES and (
            self._learning(at.number) or self._expected() <= self._there() or self._left(now) <= 0
        ):
            if self._sums is None:
                self._close_round()
            else:
                self._go_on(self._sums)

    def _expected(self) -> set[str]:
        """Whom the open round waits for; anybody at all where nobody in particular is."""
        if self._sums is not None and self._standing.state != "open":
            return self._sums.wanted(self._standing)
        number, members = self._standing.number, self._book.members()
        if self.settings.sample:
            return self.settings.drawn(number)
        before = {u.owner for u in self._book.updates(number - 1)}
        expected = {
            m.owner
            for m in members
            if m.since == number or (m.since < number and m.owner in before)
        }
        return expected or {m.owner for m in members}

    def _trains(self, owner: str) -> bool:
        """Whether the open round is one that `owner` trains in."""
        return not self.settings.sample or owner in self.settings.drawn(self._standing.number)

    def _close_round(self) -> None:
        number, settings = self._standing.number, self.settings
        if self._transfer is not None and self._transfer.busy:
            return None
        kept = [u for u in self._book.updates(number, with_bytes=True) if u.fate == "taken"]
        if len(kept) < settings.needed:
            return self._fail(self._too_few(number, len(kept)))
        if self._opinions is not None:
            return self._close_on_opinions(self._opinions, kept)
        members = {m.owner: m for m in self._book.members()}
        try:
            made = self._results.made(number, kept, members)
            if isinstance(self._transfer, Transfer):
                before = self._book.closed(number - 1)
                learned = self._transfer.of(number, made, before.packed if before else b"")
                if learned is None:
                    return None
                made = learned
            closed = self._results.packed(made, kept)
        except (ValueError, ModelError, DataError) as error:
            return self._fail(f"nothing comes of round {number}: {error}")
        return self._closes(closed)

    def _close_on_opinions(self, opinions: OpinionExchange, kept: Sequence[KeptUpdate]) -> None:
        number = self._standing.number
        before = self._book.closed(number - 1)
        try:
            said = opinions.of(
                number, {u.owner: u.packed or b"" for u in kept}, before.packed if before else b""
            )
        except (ValueError, ModelError, DataError) as error:
            return self._fail(f"nothing comes of round {number}: {error}")
        if said is not None:
            self._closes(ClosedRound(said, 0, False, None, tuple(u.owner for u in kept)))

    def _go_on(self, sums: SumRounds) -> None:
        """The next step of the open round's sum; after the last one it closes."""
        number = self._standing.number
        try:
            if self._standing.state != "unmasking":
                self._standing = sums.go_on(self._standing, self._size())
                return
            closed = sums.closed(self._standing, *self._results.began(number))
        except ValueError as error:
            return self._fail(f"nothing comes of round {number}: {error}")
        self._closes(closed, sums.fates(number, set(closed.owners)))

    def _closes(self, closed: ClosedRound, fates: Sequence[KeptUpdate] = ()) -> None:
        number = self._standing.number
        last = number == self.settings.rounds
        standing = replace(
            self._standing,
            state="ended" if last else "open",
            number=number if last else number + 1,
        )
        self._book.close_round(number, closed, standing, fates)
        self._standing = standing
        drawn = self.settings.drawn(number) if self.settings.sample else None
        asked = drawn or {m.owner for m in self._book.members()}
        missing = sorted(asked - set(closed.owners))
        log.info("round %d closed with %d updates", number, len(closed.owners))
        if missing:
            log.warning("round %d closed without %s", number, ", ".join(map(repr, missing)))

    def _too_few(self, number: int, good: int) -> str:
        dropped = [u for u in self._book.updates(number) if u.fate == "dropped"]
        text = f"round {number} had {good} good updates of the {self.settings.needed} that it needs"
        if dropped:
            reasons = "; ".join(sorted({u.why for u in dropped}))
            text += f" ({len(dropped)} dropped: {reasons})"
        return text

    def _fail(self, why: str) -> None:
        why = f"the federation ended without a result: {why}"
        log.error("%s", why)
        standing = replace(self._standing, state="failed", why=why[:1000])
        self._book.fail(standing)
        self._standing = standing

    def _stand(self, standing: Standing) -> None:
        self._book.stand(standing)
        self._standing = standing

    def _left(self, now: float) -> float:
        """Seconds to the deadline of what goes on."""
        here = (self._standing.state, self._standing.number)
        if self._since is None or self._since[:2] != here:
            self._since = (*here, now)
        steps = here[0] in STATES and here[0] != "open"
        whole = self.settings.step_s if steps else self.settings.deadline_s
        if self._learning(here[1]):
            return whole  # it is not the owners who are waited for
        return max(0.0, self._since[2] + whole - now)

    def _learning(self, number: int) -> bool:
        """Whether the large and the small model learn from each other, of that round."""
        return self._transfer is not None and self._transfer.began(number)

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
