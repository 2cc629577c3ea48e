"""An owner of data asks the coordinator of its federation."""

from __future__ import annotations

from cosilo.boundary.messages import (
    Advertise,
    Contribute,
    Contributed,
    Enrol,
    Enrolled,
    HandShares,
    Masked,
    NextRound,
    NextStep,
    RoundState,
    SumState,
    Unmask,
)
from cosilo.errors import CapabilityError
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.sums import Given
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


@serves(NextStep)
async def next_step(owner: Owner, message: NextStep) -> SumState:
    """Raises: what `Rounds.step` does; CapabilityError where no federation is coordinated."""
    return await _of(owner).step(owner.client, message)


@serves(Advertise)
@serves(HandShares)
@serves(Masked)
@serves(Unmask)
async def give(owner: Owner, message: Given) -> Contributed:
    """Raises: what `Rounds.give` does; CapabilityError where no federation is coordinated."""
    return await _of(owner).give(owner.client, message)


def _of(owner: Owner) -> Federation:
    if owner.federation is None:
        raise CapabilityError(
            f"{owner.name} coordinates no federation: a `cosilo host` with a table [federation] does, "
            'or a large model of kind = "federation" in a plan'
        )
    return owner.federation
