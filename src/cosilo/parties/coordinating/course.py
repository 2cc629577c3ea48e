"""The course of a federation: when a round begins and closes, what comes of it, and how it fails.

    enrolling ── all owners are there, or a quorum at the deadline ──▶ open, round 1
    open ── all that are waited for have contributed, or a quorum at the deadline ──▶ the next round
         └─ fewer good updates than the quorum ──▶ failed       └─ after the last one ──▶ ended

No clock runs here: whoever looks says what time it is, and what is due is done then. All that counts is
in the book before it is told, so a process that is killed goes on where it was. A deadline begins anew
when the process does, so that owners are not late because the coordinator was down.

An owner that missed a round is not waited for in the next; what it contributes in time counts.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

from cosilo.boundary.messages import Enrol
from cosilo.errors import ConfigError, DataError, ModelError
from cosilo.models.low_rank import Layers
from cosilo.parties.coordinating.book import (
    ClosedRound,
    FederationBook,
    KeptUpdate,
    Member,
    Standing,
)
from cosilo.parties.coordinating.opinions import OpinionExchange
from cosilo.parties.coordinating.results import RoundResults
from cosilo.parties.coordinating.settings import FederationSettings, changed
from cosilo.parties.coordinating.sums import STATES, SumRounds, session_of
from cosilo.parties.coordinating.transferring import Transfer

log = logging.getLogger("cosilo.federation")


class FederationCourse:
    """One federation, in the file `path` or in memory.

    Attributes:
        settings: of those who are left.
        configured: as it began.
        sums: where updates are summed and nobody sees one.
        opinions: where owners send opinions of public texts.

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
        self.settings = self.configured = settings
        self._transfer = transfer
        self.book = FederationBook(path, settings.keep_updates)
        self._since: tuple[str, int, float] | None = None  # state, round, when it was first seen
        text = json.dumps(lasting, sort_keys=True)
        found = self.book.standing()
        if found is None:
            name = secrets.token_hex(16)
            base = transfer.base if transfer is not None else settings.base
            found = Standing(name, text, base, (), "enrolling", 0)
            self.book.stand(found)
        elif other := changed(json.loads(found.settings), json.loads(text)):
            self.book.close()
            raise ConfigError(
                f"the federation in {str(path)!r} began with other settings ({', '.join(other)}): "
                "restore them, or name another file for another federation"
            )
        self.standing = found
        self.sums: SumRounds | None = None
        self._go_on_without(self.book.gone())
        self.opinions = transfer if isinstance(transfer, OpinionExchange) else None

    def _go_on_without(self, gone: Set[str]) -> None:
        """Go on by the settings of those who are left, if they can."""
        if (settings := self.configured.without(gone)) is None:
            return
        self.settings = settings
        if settings.secure:
            self.sums = SumRounds(self.book, settings, session_of(self.standing))

    def back(self, after: Standing, gone: Set[str]) -> None:
        """Go on without those who left, once the book has it that rounds were taken back."""
        self.standing, self._since = after, None
        self._go_on_without(gone)

    @property
    def learns(self) -> bool:
        """Whether a large model learns from what owners give."""
        return self._transfer is not None

    @property
    def results(self) -> RoundResults:
        return RoundResults(self.settings, self.layers, self.book.closed)

    @property
    def layers(self) -> Layers:
        return {name: (out, into) for name, out, into in self.standing.layers}

    @property
    def size(self) -> int:
        """Numbers in the vector of an update: its own, and its weight."""
        shapes = self.settings.shapes(self.layers, self.settings.rank)
        return sum(math.prod(shape) for shape in shapes.values()) + 1

    def there(self) -> set[str]:
        """Who has done what the open round waits for."""
        if self.sums is None:
            return {u.owner for u in self.book.updates(self.standing.number)}
        return self.sums.here(self.standing)

    def enrol(self, owner: str, message: Enrol, said: str) -> None:
        """Take in an owner that the federation can have.

        Args:
            said: what it said of itself; see `enrolling.said_of`.
        """
        at = self.standing
        if self.opinions is None:
            at = replace(at, base=message.base, layers=message.layers)
        since = at.number + 1  # the round under way is not kept waiting for it
        self.book.enrol(Member(owner, said, message.rank, message.examples, since), at)
        self.standing = at

    def wanted_owners(self) -> int:
        return len(self.settings.drawn(1)) or self.settings.needed

    def enrolled(self) -> set[str]:
        """Of those that the first round waits for."""
        found = {m.owner for m in self.book.members()}
        return found & self.settings.drawn(1) if self.settings.sample else found

    def tick(self, now: float) -> None:
        """Do what is due at `now`: begin, close a round, or fail. What begins has its whole time."""
        self._do_what_is_due(now)
        self.left(now)

    def _do_what_is_due(self, now: float) -> None:
        at = self.standing
        if at.state == "enrolling" and (here := len(self.enrolled())):
            needed, late = self.settings.needed, self.left(now) <= 0
            if here >= (needed if late else self.wanted_owners()):
                self._stand(replace(at, state="open", number=1))
            elif late:
                self._fail(f"{here} of {needed} owners that it needs enrolled")
        elif at.state in STATES and (
            self.learning(at.number) or self.expected() <= self.there() or self.left(now) <= 0
        ):
            if self.sums is None:
                self._close_round()
            else:
                self._go_on(self.sums)

    def expected(self) -> set[str]:
        """Whom the open round waits for; anybody at all where nobody in particular is."""
        if self.sums is not None and self.standing.state != "open":
            return self.sums.wanted(self.standing)
        number, members = self.standing.number, self.book.members()
        if self.settings.sample:
            return self.settings.drawn(number)
        before = {u.owner for u in self.book.updates(number - 1)}
        expected = {
            m.owner
            for m in members
            if m.since == number or (m.since < number and m.owner in before)
        }
        return expected or {m.owner for m in members}

    def trains(self, owner: str) -> bool:
        """Whether the open round is one that `owner` trains in."""
        return not self.settings.sample or owner in self.settings.drawn(self.standing.number)

    def _close_round(self) -> None:
        number, settings = self.standing.number, self.settings
        if self._transfer is not None and self._transfer.busy:
            return None
        kept = [u for u in self.book.updates(number, with_bytes=True) if u.fate == "taken"]
        if len(kept) < settings.needed:
            return self._fail(self._too_few(number, len(kept)))
        if self.opinions is not None:
            return self._close_on_opinions(self.opinions, kept)
        members = {m.owner: m for m in self.book.members()}
        try:
            made = self.results.made(number, kept, members)
            if isinstance(self._transfer, Transfer):
                before = self.book.closed(number - 1)
                learned = self._transfer.of(number, made, before.packed if before else b"")
                if learned is None:
                    return None
                made = learned
            closed = self.results.packed(made, kept)
        except (ValueError, ModelError, DataError) as error:
            return self._fail(f"nothing comes of round {number}: {error}")
        return self._closes(closed)

    def _close_on_opinions(self, opinions: OpinionExchange, kept: Sequence[KeptUpdate]) -> None:
        number = self.standing.number
        before = self.book.closed(number - 1)
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
        number = self.standing.number
        try:
            if self.standing.state != "unmasking":
                self.standing = sums.go_on(self.standing, self.size)
                return
            closed = sums.closed(self.standing, *self.results.began(number))
        except ValueError as error:
            return self._fail(f"nothing comes of round {number}: {error}")
        self._closes(closed, sums.fates(number, set(closed.owners)))

    def _closes(self, closed: ClosedRound, fates: Sequence[KeptUpdate] = ()) -> None:
        number = self.standing.number
        last = number == self.settings.rounds
        standing = replace(
            self.standing,
            state="ended" if last else "open",
            number=number if last else number + 1,
        )
        self.book.close_round(number, closed, standing, fates)
        self.standing = standing
        drawn = self.settings.drawn(number) if self.settings.sample else None
        asked = drawn or {m.owner for m in self.book.members()}
        missing = sorted(asked - set(closed.owners))
        log.info("round %d closed with %d updates", number, len(closed.owners))
        if missing:
            log.warning("round %d closed without %s", number, ", ".join(map(repr, missing)))

    def _too_few(self, number: int, good: int) -> str:
        dropped = [u for u in self.book.updates(number) if u.fate == "dropped"]
        text = f"round {number} had {good} good updates of the {self.settings.needed} that it needs"
        if dropped:
            reasons = "; ".join(sorted({u.why for u in dropped}))
            text += f" ({len(dropped)} dropped: {reasons})"
        return text

    def _fail(self, why: str) -> None:
        why = f"the federation ended without a result: {why}"
        log.error("%s", why)
        standing = replace(self.standing, state="failed", why=why[:1000])
        self.book.fail(standing)
        self.standing = standing

    def _stand(self, standing: Standing) -> None:
        self.book.stand(standing)
        self.standing = standing

    def left(self, now: float) -> float:
        """Seconds to the deadline of what goes on."""
        here = (self.standing.state, self.standing.number)
        if self._since is None or self._since[:2] != here:
            self._since = (*here, now)
        steps = here[0] in STATES and here[0] != "open"
        whole = self.settings.step_s if steps else self.settings.deadline_s
        if self.learning(here[1]):
            return whole  # it is not the owners who are waited for
        return max(0.0, self._since[2] + whole - now)

    def learning(self, number: int) -> bool:
        """Whether the large and the small model learn from each other, of that round."""
        return self._transfer is not None and self._transfer.began(number)
