"""What keeps private things private.

A defence acts in two places and overrides what it needs:
`protect` changes how the data owner works at home (DP training, DP decoding);
`guard` and `guard_stream` change what crosses (redaction, noise, refusal).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

from cosilo.boundary.channel import Handler, StreamHandler
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.errors import UnexpectedReplyError
from cosilo.parties.data_owner import DataOwner
from cosilo.registry import Registry
from cosilo.types import Delta, assemble, closing, disassemble


class Defence:
    """Does nothing; subclasses override one or both places.

    Attributes:
        languages: those that it knows names and words of; empty where it needs none.
    """

    languages: tuple[str, ...] = ()

    async def open(self) -> None:
        """Called before the first message where a defence is kept for long, as in a gateway.

        Raises:
            ConfigError: it cannot work.
        """

    async def close(self) -> None:
        """Called after the last message wherever `open` was."""

    def most_bytes(self, seconds: float) -> float:
        """How much text a request may hold so that the defence is done with it within `seconds`,
        whatever stands in it.
        """
        return math.inf

    def protect(self, owner: DataOwner) -> DataOwner:
        return owner

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        """Called for every message on its way out; `await forward(message)` sends it on.

        Raising stops the message: nothing is sent.
        """
        return await forward(message)

    async def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        """The same for a reply in pieces.

        This default is right for any `guard` and gives up the pieces: it collects the reply, runs
        `guard` over it whole, and yields one piece.
        """

        async def collect(message: Message) -> Message:
            if not isinstance(message, Ask):
                raise UnexpectedReplyError(f"a guard turned an Ask into {type(message).__name__}")
            async with closing(forward(message)) as deltas:
                return Completion(generation=assemble([d async for d in deltas]))

        reply = await self.guard(ask, collect, request=request)
        if not isinstance(reply, Completion):
            raise UnexpectedReplyError(f"a guard answered an Ask with {type(reply).__name__}")
        yield disassemble(reply.generation)


defences: Registry[Defence] = Registry("defence")
