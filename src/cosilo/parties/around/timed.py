"""What another owner does is not timed as the data owner's work, also when this machine does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.transports.base import Handles
from cosilo.clock import Clock, aside
from cosilo.types import Delta, closing


@dataclass(frozen=True)
class Timed:
    """`inner`, its work timed on `clock`, and on no clock of those who ask."""

    inner: Handles
    clock: Clock = field(default_factory=Clock)

    async def handle(self, message: Message) -> Message:
        return await aside(self.inner.handle(message), self.clock)

    async def handle_stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        async with closing(self.inner.handle_stream(ask)) as deltas:
            while (delta := await aside(_next(deltas), self.clock)) is not None:
                yield delta


async def _next(deltas: AsyncIterator[Delta]) -> Delta | None:
    return await anext(deltas, None)
