"""An owner of data asks the coordinator of its federation."""

from __future__ import annotations

from cosilo.boundary.messages import (
    Contribute,
    Contributed,
    Enrol,
    Enrolled,
    NextRound,
    RoundState,
)
from cosilo.errors import CapabilityError
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.serving.base import Owner, serves


@serves(Enrol)
async def enrol(owner: Owner, message: Enrol) -> Enrolled:
    """Raises: what `Rounds.enrol` does; CapabilityError where no federation is coordinated."""
    return await _of(owner).enrol(owner.client, message)


@serves(NextRound)
async def next_round(owner: Owner, message: NextRound) -> RoundState:
    """Raises: what `Rounds.next` does; CapabilityError where no federation is coordinated."""
    return await _of(owner).next(owner.client, message)


@serves(Contribute)
async def contribute(owner: Owner, message: Contribute) -> Contributed:
    """Raises: what `Rounds.contribute` does; CapabilityError where no federation is coordinated."""
    return await _of(owner).contribute(owner.client, message)


def _of(owner: Owner) -> Federation:
    if owner.federation is None:
        raise CapabilityError(
            f"{owner.name} coordinates no federation: a `cosilo host` with a table [federation] does, "
            'or a large model of kind = "federation" in a plan'
        )
    return owner.federation
