"""Both parties in one process: bytes go across all the same, so that the other party can only ever see
what they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine

from cosilo.boundary.transports.answering import answered, answered_in_pieces
from cosilo.boundary.transports.base import Handles


class InProcess:
    """The way to a party in this process."""

    remote = False

    def __init__(self, party: Handles) -> None:
        self.party = party

    def carry(self, payload: bytes) -> Coroutine[None, None, bytes]:
        return answered(self.party, payload)

    def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
        return answered_in_pieces(self.party, payload)
