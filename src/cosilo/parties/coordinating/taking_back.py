"""How far a federation goes back when an owner's updates are to be forgotten.

    rounds     1   2   3   4     the owner's updates were in 2 and 3, say
    stand      1                 "again": round 2 is trained again, without it
    stand      1   2'            the same, where all updates of 2 are kept: 2' is made of the others'
    stand      1   2'  3'  4'    "approximately": those of 3 and 4 had learned from what it gave to 2

What is trained again is what it would have been had this owner not taken part from round 2 on, to the
bit where owners' training is. What is put together again of kept updates is so for the first of its
rounds alone: whoever trained later began from what it had been part of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cosilo.boundary.messages.forget import ForgottenItem, How, Left
from cosilo.parties.coordinating.book import ClosedRound, FederationBook, KeptUpdate, Standing
from cosilo.parties.coordinating.results import RoundResults
from cosilo.parties.coordinating.settings import FederationSettings


@dataclass(frozen=True)
class WayBack:
    """What becomes of a federation.

    Attributes:
        how: what is told of it.
        first: the first round that the owner's updates are in; 0 where they are in none that closed.
        stands: how many rounds stand.
        again: those among them that were put together again.
    """

    how: How
    first: int
    stands: int
    again: dict[int, ClosedRound] = field(default_factory=dict)

    def item(self, before: Standing, book: FederationBook, others: bool) -> ForgottenItem:
        """What is told, before the book is changed.

        Args:
            others: there are other owners, who were told what came of rounds.
        """
        # Whose updates were in rounds that were taken back before is not kept.
        given = others and bool(self.first or before.epoch)
        left: tuple[Left, ...] = ("others were given it",) if given else ()
        after = self.again.get(self.stands) or book.closed(self.stands)
        return ForgottenItem(
            what="federation",
            how=self.how,
            names=(before.name,),
            count=1,
            before=_digest(book.closed(before.closed)),
            after=_digest(after),
            first=self.first,
            last=before.closed if self.first else 0,
            left=left,
        )


def why_not(settings: FederationSettings, at: Standing, *, learned: bool) -> tuple[Left, ...]:
    """Why nothing is taken back; nothing where it is.

    Args:
        learned: a large model learned from owners' updates, or from what came of them.
    """
    if learned:
        return ("a model learned",)
    return ("settings",) if settings.forgets == "no" and at.state != "failed" else ()


def told_of(at: Standing, how: How, left: tuple[Left, ...] = ()) -> ForgottenItem:
    """What is told where nothing is done."""
    count = int(how == "cannot")
    return ForgottenItem(what="federation", how=how, names=(at.name,), count=count, left=left)


def way_back(
    owner: str,
    rounds: Sequence[int],
    at: Standing,
    book: FederationBook,
    results: RoundResults,
) -> WayBack | None:
    """How far `at` goes back without what `owner` gave; None where it gave nothing for these rounds.

    Args:
        rounds: those that are named; all where none is.
        results: by the settings of the federation once the owner has left.
    """
    settings = results.settings
    known = any(member.owner == owner for member in book.members())
    closed = range(1, at.closed + 1)
    was_in = [n for n in closed if (found := book.closed(n)) and owner in found.owners]
    named = [n for n in was_in if not rounds or n in rounds]
    if not named:
        elsewhere = was_in or (rounds and at.number not in rounds)
        return None if not known or elsewhere else WayBack("deleted", 0, at.closed)
    first, last = named[0], at.closed
    if settings.forgets == "approximately":
        again = _again(owner, range(first, last + 1), book, results)
        if len(again) == last + 1 - first:
            return WayBack("redone" if first == last else "approximate", first, last, again)
    again = _again(owner, range(first, first + 1), book, results)
    if again:
        return WayBack("redone" if first == last else "rolled back", first, first, again)
    return WayBack("rolled back", first, first - 1)


def after_way(at: Standing, way: WayBack, *, fresh: bool, goes_on: bool) -> Standing:
    """Where a federation stands once it went back.

    Args:
        fresh: what owners began the open round with, or agreed on for it, is no longer so.
        goes_on: those who are left are enough.
    """
    epoch = at.epoch + fresh
    if at.state in ("failed", "enrolling"):
        return replace(at, number=min(at.number, way.stands + 1), epoch=epoch)
    if at.state == "ended" and way.stands == at.closed:
        return replace(at, epoch=epoch)
    if not goes_on:
        why = (
            "the federation ended without a result: one took its updates back, and too few are left"
        )
        return replace(at, state="failed", number=way.stands + 1, why=why, epoch=epoch)
    if not fresh:
        return at
    return replace(at, state="open", number=way.stands + 1, epoch=epoch)


def _again(
    owner: str,
    numbers: Sequence[int],
    book: FederationBook,
    results: RoundResults,
) -> dict[int, ClosedRound]:
    """What comes of rounds without `owner`, one after the other, as far as their updates are kept and
    enough of them."""
    settings = results.settings
    if settings.secure:
        return {}
    made: dict[int, ClosedRound] = {}
    members = {member.owner: member for member in book.members()}
    now = RoundResults(results.settings, results.layers, lambda n: made.get(n) or book.closed(n))
    for number in numbers:
        before = book.closed(number)
        kept = _kept(book.updates(number, with_bytes=True))
        if before is None or {u.owner for u in kept} != set(before.owners):
            break
        others = [u for u in kept if u.owner != owner]
        if len(others) < settings.needed:
            break
        try:
            made[number] = now.packed(now.made(number, others, members), others)
        except ValueError:
            break  # the rule makes nothing of so few
    return made


def _kept(updates: Sequence[KeptUpdate]) -> list[KeptUpdate]:
    return [u for u in updates if u.fate == "taken" and u.packed is not None]


def _digest(closed: ClosedRound | None) -> str:
    return "" if closed is None else hashlib.sha256(closed.packed).hexdigest()
