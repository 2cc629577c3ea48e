"""What lies between the parties: something that carries bytes.

    Boundary ── payload ──▶ Transport ──▶ answered(party, payload) ──▶ party.handle(message)
             ◀── bytes ───            ◀── a reply, or what was refused ──

A transport carries bytes and knows nothing of them. What the other party cannot or will not answer
comes back as `Refused`, and the boundary raises it as the error that it was; so an owner in this
process and one behind a network give the same bytes and the same errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from cosilo.boundary.messages import Ask, Message
from cosilo.types import Delta


class Transport(Protocol):
    """A way to one party.

    Attributes:
        remote: that party is in other hands, so what it says when it refuses is its own words: they go
            to whoever asked, and into no log.
    """

    @property
    def remote(self) -> bool: ...

    async def carry(self, payload: bytes) -> bytes:
        """Deliver an encoded request: the encoded reply, or an encoded `Refused`.

        Raises:
            UnreachableError: nothing came back.
        """

    def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
        """The same for an `Ask` whose reply is wanted in pieces, each an encoded `Piece`; a `Refused`
        ends them. Closing the iterator cancels the work.
        """


class Handles(Protocol):
    """The other party, as the far end of a transport sees it: something that answers messages."""

    async def handle(self, message: Message) -> Message: ...
    def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]: ...
