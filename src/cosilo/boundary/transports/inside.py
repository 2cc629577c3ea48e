"""How a message gets to the other party: within the process, through its encoded bytes.

The in-process transport still decodes what was encoded, so that the other party can only ever see
what the bytes hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from cosilo.boundary.messages import Ask, Message, decode
from cosilo.errors import UnexpectedReplyError
from cosilo.types import Delta


class Transport(Protocol):
    async def carry(self, message: Message, payload: bytes) -> Message:
        """Deliver `payload` (the encoding of `message`) and return the reply."""

    def carry_stream(self, ask: Ask, payload: bytes) -> AsyncIterator[Delta]:
        """Deliver `payload` and return the reply in pieces; closing them cancels the work."""


class Handles(Protocol):
    """The other party, as the transport sees it: something that answers messages."""

    async def handle(self, message: Message) -> Message: ...
    def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]: ...


class InProcess:
    """Both parties in one process."""

    def __init__(self, party: Handles) -> None:
        self.party = party

    async def carry(self, message: Message, payload: bytes) -> Message:
        return await self.party.handle(decode(payload))

    def carry_stream(self, ask: Ask, payload: bytes) -> AsyncIterator[Delta]:
        received = decode(payload)
        if not isinstance(received, Ask):
            raise UnexpectedReplyError("only an Ask can be answered in pieces")
        return self.party.handle_stream(received)
