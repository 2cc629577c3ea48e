"""The far end of a transport: an encoded request in, an encoded reply or refusal out.

Nothing that a party raises, and nothing that the bytes hold, comes out as an exception: whoever
serves a party over a network sends these bytes back as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from cosilo.boundary.messages import Ask, Piece, decode, encode
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.transports.refusals import refusal
from cosilo.errors import UnexpectedReplyError
from cosilo.types import closing


async def answered(party: Handles, payload: bytes) -> bytes:
    """What `party` answers to an encoded request: its encoded reply, or an encoded `Refused`."""
    try:
        return encode(await party.handle(decode(payload)))
    except Exception as error:
        return encode(refusal(error))


async def answered_in_pieces(party: Handles, payload: bytes) -> AsyncGenerator[bytes, None]:
    """What `party` answers to an encoded `Ask`, each an encoded `Piece`; an encoded `Refused` at the
    end where it stopped before it was done."""
    try:
        ask = decode(payload)
        if not isinstance(ask, Ask):
            raise UnexpectedReplyError("only an Ask can be answered in pieces")
        async with closing(party.handle_stream(ask)) as deltas:
            async for delta in deltas:
                yield encode(Piece(delta=delta))
    except Exception as error:
        yield encode(refusal(error))
