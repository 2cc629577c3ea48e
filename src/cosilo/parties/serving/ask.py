"""A chat is continued by the model as it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cosilo.boundary.messages import Ask, Completion
from cosilo.models.base import require_honoured, stream
from cosilo.parties.serving.base import Owner, serves, serves_stream
from cosilo.types import Delta


@serves(Ask)
async def ask(owner: Owner, message: Ask) -> Completion:
    require_honoured(owner.model, message.sampling)
    return Completion(generation=await owner.model.generate(message.chat, message.sampling))


@serves_stream(Ask)
def ask_in_pieces(owner: Owner, message: Ask) -> AsyncIterator[Delta]:
    require_honoured(owner.model, message.sampling)
    return stream(owner.model, message.chat, message.sampling)
