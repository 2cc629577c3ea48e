"""The data owner asks another party to forget, and knows afterwards how that stands.

    ask_to_forget ─┬▶ Forgotten: its signature was looked at; it is evidence, and may be kept
                   └▶ StillOpen: it did not answer, or not so; ask again, also after the deadline

Whatever goes wrong leaves the request open: nothing counts as forgotten that nobody has said is. Asking
again, by another process or on another day, asks the same, and a party that has answered before gives
the same answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Forget, Forgotten
from cosilo.boundary.record.ledger import Ledger
from cosilo.boundary.record.signed import Trust, require_signed, require_x509
from cosilo.boundary.transports.base import Transport
from cosilo.errors import ConfigError, CosiloError

ASKING = frozenset({Forget})
"""What crosses."""

_LONGEST = 500  # characters of an error


@dataclass(frozen=True)
class StillOpen:
    """A party that has not said that it forgot.

    Attributes:
        until: seconds since 1970 until which it is expected to.
        why: what came instead, as an error's text.
        answer: an answer that is no evidence, where that is what came.
    """

    until: float
    why: str
    answer: Forgotten | None = None

    def late(self, now: float | None = None) -> bool:
        """Whether the time is over; it may be asked all the same."""
        return (time.time() if now is None else now) > self.until


async def ask_to_forget(
    way: Transport,
    forget: Forget,
    *,
    until: float,
    trust: Trust | None,
    ledger: Ledger | None = None,
) -> Forgotten | StillOpen:
    """Ask a party to forget what `forget` names.

    Args:
        way: to the party, as `parties.remote.way_to` gives it.
        until: seconds since 1970 until which it is expected to answer.
        trust: whose signature counts; None only for a party in this process, which signs nothing.
        ledger: the data owner's record, which the question and the answer go on.

    Raises:
        ConfigError: a party elsewhere and no `trust`; the package that looks at signatures is missing.
    """
    if trust is None and way.remote:
        raise ConfigError(
            "what a party elsewhere says that it forgot is looked at by its certificate: ca, and the "
            "host's name, are needed"
        )
    if trust is not None:
        require_x509()
    road = Boundary(way, declared=ASKING, ledger=ledger, request=forget.forget)
    try:
        answer = await road.send(forget)
    except CosiloError as error:
        return StillOpen(until, str(error)[:_LONGEST])
    if trust is not None:
        try:
            require_signed(answer, trust)
        except CosiloError as error:
            return StillOpen(until, str(error)[:_LONGEST], answer)
    return answer
