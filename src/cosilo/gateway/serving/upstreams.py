"""One large model as the gateway sees it: its model, its price, and its circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from cosilo.boundary.channel import Handler, StreamHandler
from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.meter import Price
from cosilo.defences.base import Defence
from cosilo.errors import CapabilityError, UnreachableError
from cosilo.gateway.serving.breaker import Breaker
from cosilo.models.base import Access, Shows
from cosilo.parties.bodies import BodyTuning
from cosilo.parties.remote import LargeModel
from cosilo.types import Chat, Delta, Generation, Sampling, closing


class Deadline(Protocol):
    def expired(self) -> bool: ...


# The deadline running now, so that a call cut off by it can be told from a client that left.
DEADLINE: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@dataclass(frozen=True)
class Upstream:
    """A large model that points share."""

    name: str
    model: LargeModel
    exposes: Shows
    price: Price
    breaker: Breaker
    body: BodyTuning | None = None

    @property
    def place(self) -> str:
        """Its name, and where it answers."""
        host = getattr(self.model, "place", "")
        return f"{self.name} at {host}" if host else f"{self.name} in this process"


class Fuse(Defence):
    """The outermost guard: fails at once while the breaker is open, and tells it how calls end.

    Only what says something about the upstream counts: it could not be reached, or the request's
    deadline passed while it was being asked. A client that left, a guard that refused and a request
    the upstream did not like do not.
    """

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        call = self._breaker.admit()
        try:
            reply = await forward(message)
        except BaseException as error:
            self._ended(call, error)
            raise
        self._breaker.succeeded(call)
        return reply

    async def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        call = self._breaker.admit()
        try:
            async with closing(forward(ask)) as pieces:
                async for piece in pieces:
                    yield piece
        except BaseException as error:
            self._ended(call, error)
            raise
        self._breaker.succeeded(call)

    def _ended(self, call: int, error: BaseException) -> None:
        deadline = DEADLINE.get()
        late = deadline is not None and deadline.expired()
        if isinstance(error, UnreachableError) or (
            isinstance(error, asyncio.CancelledError) and late
        ):
            self._breaker.failed(call)
        else:
            self._breaker.released(call)


@dataclass(frozen=True)
class Absent:
    """A placeholder for a model that a point does not have; calling it raises, as the configuration
    is wrong.
    """

    role: str
    access: Access = Access.TEXT

    @property
    def name(self) -> str:
        return f"no {self.role} model"

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        raise CapabilityError(f"this point has no {self.role} model")

    async def close(self) -> None: ...
