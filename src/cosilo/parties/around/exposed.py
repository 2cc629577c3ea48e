"""An owner's limits, outside of what is recorded.

A recording holds all that the LM said, so that a plan which asks to see more finds it there; what the
other side may see is decided on its way out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.transports.base import Handles
from cosilo.models.base import Shows
from cosilo.parties.exposure import permit, shown
from cosilo.types import Delta, closing


@dataclass(frozen=True)
class Exposed:
    """`inner`, of which no more is shown than `exposes` says.

    Attributes:
        name: whose limits they are, for those that are refused.
    """

    inner: Handles
    exposes: Shows = Shows.TEXT
    name: str = "lm-owner"

    async def handle(self, message: Message) -> Message:
        """The reply, without what is not shown.

        Raises:
            CapabilityError: more was asked for; `inner` has not been asked.
        """
        permit(message, self.exposes, by=self.name)
        return (await self.inner.handle(message)).shown(self.exposes)

    async def handle_stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        permit(ask, self.exposes, by=self.name)
        async with closing(self.inner.handle_stream(ask)) as deltas:
            async for delta in deltas:
                yield shown(delta, self.exposes)
