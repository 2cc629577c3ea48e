"""An emulator of the large model comes home, part by part, and is built here.

Lend ─▶ part 0: what it is ─▶ Lend ─▶ part 1 … ─▶ all parts, hashed ─▶ weights ─▶ a model at home
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Lend, Lent
from cosilo.boundary.messages.lend import Described
from cosilo.boundary.wire.weights import unpack_weights
from cosilo.errors import UnexpectedReplyError


@dataclass(frozen=True, eq=False)
class Borrowed:
    """An emulator at home.

    Attributes:
        about: what the LM's owner says of it.
        module: a torch module, frozen.
        size: bytes that came.
    """

    about: Described
    module: Any
    size: int


async def borrow(channel: Channel, vocabulary: str, *, most: int) -> Borrowed:
    """The emulator that the LM's owner lends to whoever has this tokeniser.

    Args:
        most: bytes that it may have.

    Raises:
        CapabilityError: the owner lends none, another tokeniser's, or a larger one.
        UnexpectedReplyError: what came is none.
    """
    from cosilo.models.white_box.emulator import built

    about, packed = await _fetched(channel, vocabulary, most, "")
    module = await asyncio.to_thread(lambda: built(about.config, unpack_weights(packed)))
    _require_ends(about, module)
    return Borrowed(about, module, len(packed))


async def borrow_aligned(
    channel: Channel, vocabulary: str, before: Borrowed, adapter: str, *, most: int
) -> Borrowed:
    """`before`, once its owner has aligned it to the adapter of that name.

    Raises:
        CapabilityError: the owner does not align it (again).
        UnexpectedReplyError: what came is no middle of that emulator.
    """
    from cosilo.models.white_box.emulator import layer_in, with_tensors

    about, packed = await _fetched(channel, vocabulary, most, adapter)
    if (about.config, about.kept, about.base) != (
        before.about.config, before.about.kept, before.about.base,
    ):  # fmt: skip
        raise UnexpectedReplyError("an aligned emulator is one of other layers than before")
    inner = range(about.ends, len(about.kept) - about.ends)

    def put() -> None:
        tensors = unpack_weights(packed)
        if any(layer_in(name) not in inner for name in tensors):
            raise UnexpectedReplyError("an aligned emulator changes what is tuned here")
        with_tensors(before.module, tensors)

    await asyncio.to_thread(put)
    return Borrowed(about, before.module, len(packed))


async def _fetched(
    channel: Channel, vocabulary: str, most: int, adapter: str
) -> tuple[Described, bytes]:
    """What the emulator is, and all its bytes."""

    async def part(number: int) -> Lent:
        return await channel.send(
            Lend(part=number, most=most, vocabulary=vocabulary, aligned_to=adapter)
        )

    first = await part(0)
    if first.about is None:
        raise UnexpectedReplyError("an emulator came without saying what it is")
    parts = [first.packed]
    for number in range(1, first.parts):
        reply = await part(number)
        if (reply.size, reply.digest) != (first.size, first.digest):
            raise UnexpectedReplyError("the parts of an emulator are not of one")
        parts.append(reply.packed)
    packed = b"".join(parts)
    if hashlib.sha256(packed).hexdigest() != first.digest:
        raise UnexpectedReplyError("the parts of an emulator are not what they should be together")
    return first.about, packed


def _require_ends(about: Described, module: Any) -> None:
    from cosilo.models.white_box.layers import layers_of

    if len(layers_of(module)) != len(about.kept) or 2 * about.ends >= len(about.kept):
        raise UnexpectedReplyError("an emulator has other layers than its owner says")
