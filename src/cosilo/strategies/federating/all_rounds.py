"""An owner's way through all rounds of a federation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

from cosilo.boundary.messages import Contributed, NextRound, RoundState
from cosilo.errors import RejectedError, UnexpectedReplyError
from cosilo.strategies.base import Session

SOON_S = 1.0
"""A coordinator that says "wait" at once is asked again after this."""


class RoundOwner(Protocol):
    """What an owner of a federation does in a round.

    Attributes:
        have: of how many closed rounds it has what came of them.
        notes: round → what was wrong with its update.
    """

    have: int
    notes: dict[int, str]

    def next_round(self) -> NextRound: ...
    def take(self, state: RoundState) -> None: ...
    def told(self, number: int, fate: str, why: str) -> None: ...


async def all_rounds(
    session: Session,
    owner: RoundOwner,
    give: Callable[[int], Awaitable[Contributed]],
    back: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    """Take part until the last round has closed.

    Args:
        give: sends the owner's update for a round.
        back: enrols again once rounds were taken back so often; it is an error where None.

    Raises:
        FederationError: the federation failed.
        UnexpectedReplyError: rounds were taken back that nobody here can do without.
    """
    while True:
        asked = monotonic()
        state = await session.lm.send(owner.next_round())
        if state.state == "back":
            if back is None:
                raise UnexpectedReplyError("rounds were taken back, and cannot be here")
            await back(state.epoch)
            continue
        if state.packed:
            await asyncio.to_thread(owner.take, state)
        if state.fate not in (None, "taken"):
            owner.notes[state.closed] = f"{state.fate}: {state.why}"
        if state.state == "ended" and owner.have == state.closed > 0:
            return
        if state.state == "open" and owner.have == state.closed:
            try:
                told = await give(state.number)
            except RejectedError as error:
                owner.told(state.number, "refused", str(error))
            else:
                owner.told(state.number, told.fate, told.why)
        elif not state.packed and monotonic() - asked < SOON_S:
            await asyncio.sleep(SOON_S)
