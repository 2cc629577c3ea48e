"""Sources of a mixture's reply, opened for one chat; and what is checked before that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from cosilo.boundary.channel import Channel
from cosilo.errors import CapabilityError
from cosilo.models.base import ThreadModel
from cosilo.strategies.mixing.bytes import ByteSource
from cosilo.strategies.mixing.mixture import Mixture, Source
from cosilo.strategies.mixing.reading import HomeReader
from cosilo.strategies.mixing.tokens import TokenSource
from cosilo.strategies.thread import Thread
from cosilo.types import Chat, user

By = Literal["tokens", "bytes"]
"""What models are mixed by: tokens of one vocabulary, or bytes, which every vocabulary spells."""

MOST_AHEAD = 16


def check_options(top: int, ahead: int, by: By) -> None:
    """Refuse options that make no sense.

    Raises:
        ValueError: it says which.
    """
    if not 1 <= top <= 1 << 16:
        raise ValueError(f"top = {top!r} is not between 1 and {1 << 16}")
    if not 0 <= ahead <= MOST_AHEAD:
        raise ValueError(f"ahead = {ahead!r} is not between 0 and {MOST_AHEAD}")
    if ahead and by == "bytes":
        raise ValueError("ahead drafts tokens, and by = 'bytes' has none: leave it 0")


async def require_one_vocabulary(channel: Channel, model: ThreadModel, *, by: str) -> None:
    """Refuse a large model with another vocabulary than `model`'s; takes one message, of no content.

    Raises:
        CapabilityError: it has another.
    """
    own = await asyncio.to_thread(lambda: model.vocabulary)
    thread = Thread(channel.bind("once"), user("Hello"), model, top=1)
    await thread.go_on()
    if not thread.shared:
        raise CapabilityError(
            f"{by} mixes models token by token, which takes one vocabulary: {model.name!r} has another "
            f"({own}) than the large model; by = 'bytes' works across"
        )


def opened(
    mixture: Mixture,
    channel: Channel,
    chat: Chat,
    readers: Sequence[HomeReader],
    *,
    by: By,
    top: int,
    ahead: int,
    name: str,
) -> Source:
    """What a reply is written from.

    Args:
        chat: what the LM is to see.
        name: who mixes, for errors.
    """
    if by == "bytes":
        return ByteSource(mixture, Thread(channel, chat, top=top), readers)
    thread = Thread(channel, chat, readers[0].model, top=top)
    return TokenSource(mixture, thread, readers, ahead=ahead, by=name)
