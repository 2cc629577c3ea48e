"""A chat is continued by the model as it stands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from cosilo.boundary.messages import Ask, Completion
from cosilo.models.base import require_honoured, stream
from cosilo.parties.serving.base import Owner, answering, serves, serves_stream
from cosilo.types import Delta, closing


@serves(Ask)
async def ask(owner: Owner, message: Ask) -> Completion:
    model = await answering(owner, message.adapter)
    require_honoured(model, message.sampling)
    return Completion(generation=await model.generate(message.chat, message.sampling))


@serves_stream(Ask)
def ask_in_pieces(owner: Owner, message: Ask) -> AsyncIterator[Delta]:
    if message.adapter:
        return _plugged_in_pieces(owner, message)
    require_honoured(owner.model, message.sampling)
    return stream(owner.model, message.chat, message.sampling)


async def _plugged_in_pieces(owner: Owner, message: Ask) -> AsyncGenerator[Delta, None]:
    model = await answering(owner, message.adapter)
    require_honoured(model, message.sampling)
    async with closing(stream(model, message.chat, message.sampling)) as pieces:
        async for delta in pieces:
            yield delta
