"""Computing with a client what neither may see of the other, where the LM's owner takes part."""

from __future__ import annotations

from asyncio import to_thread

from msgspec.structs import replace

from cosilo.boundary.messages import (
    AskJoint,
    CloseJoint,
    Joint,
    JointClosed,
    JointOffered,
    JointOpened,
    JointSpent,
    OpenJoint,
)
from cosilo.parties.joint import JointRuns, runs_of
from cosilo.parties.serving.base import Owner, serves


@serves(AskJoint)
async def ask_joint(owner: Owner, message: AskJoint) -> JointOffered:
    """What the model brings to what is wanted.

    Raises:
        CapabilityError: it takes no part in that.
    """
    part, offered = await _runs(owner).offer(owner.model, message.wanted, by=owner.name)
    if part.tells == "label" or part.allowance is None:
        return offered
    return replace(offered, left=await to_thread(part.allowance.left, owner.client))


@serves(OpenJoint)
async def open_joint(owner: Owner, message: OpenJoint) -> JointOpened:
    """Starts this side of a run."""
    return await _runs(owner).open(owner.client, owner.model, message, by=owner.name)


@serves(Joint)
async def joint(owner: Owner, message: Joint) -> JointSpent:
    """One computation, of which this side sees nothing."""
    return await _runs(owner).compute(owner.client, message)


@serves(CloseJoint)
async def close_joint(owner: Owner, message: CloseJoint) -> JointClosed:
    """Ends a run; one that is not there has ended."""
    await _runs(owner).end(owner.client, message.run)
    return JointClosed()


def _runs(owner: Owner) -> JointRuns:
    return owner.joint or runs_of(owner.model)
