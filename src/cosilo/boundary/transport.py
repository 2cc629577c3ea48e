"""How a message gets to the other party: within the process, through its encoded bytes.

The in-process transport still decodes what was encoded, so that the other party can only ever see
what the bytes hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from cosilo.boundary.messages import Ask, Message, decode
from cosilo.errors import UnexpectedReplyError
from cosilo.types import Delta, closing


class Transport(Protocol):
    async def carry(self, message: Message, payload: bytes) -> Message:
        """Deliver `payload` (the encoding of `message`) and return the reply."""

    def carry_stream(self, ask: Ask, payload: bytes) -> AsyncIterator[Delta]:
        """The same for a reply in pieces; closing the iterator cancels the work."""


class Handles(Protocol):
    """The other party: answers messages."""

    async def handle(self, message: Message) -> Message: ...
    def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]: ...


class InProcess:
    """Both parties in one process."""

    def __init__(self, party: Handles) -> None:
        self.party = party

    async def carry(self, message: Message, payload: bytes) -> Message:
        return await self.party.handle(decode(payload))

    async def carry_stream(self, ask: Ask, payload: bytes) -> AsyncGenerator[Delta, None]:
        received = decode(payload)
        if not isinstance(received, Ask):
            raise UnexpectedReplyError("only an Ask can be answered in pieces")
        deltas = self.party.handle_stream(received)
        async with closing(deltas) as pieces:
            async for delta in pieces:
                yield delta
