"""Whether an update can be used: its matrices are looked at before they count."""

from __future__ import annotations

from cosilo.boundary.wire import tensors
from cosilo.boundary.wire.tensors import TensorLimits
from cosilo.errors import UnexpectedReplyError
from cosilo.federation.updates import Floats, Shapes, vetted
from cosilo.models.low_rank import Layers
from cosilo.parties.coordinating.settings import FederationSettings


def unpacked(packed: bytes, shapes: Shapes, codec: str) -> dict[str, Floats]:
    """The matrices of an update that was packed by `codec`.

    Raises:
        UnexpectedReplyError: the bytes are none, hold what is no number, or more than these shapes.
    """
    return tensors.unpack(packed, limits=TensorLimits.of(shapes, codecs=(codec,)))


def flaw(
    packed: bytes, rank: int, wanted: int, layers: Layers, settings: FederationSettings
) -> str:
    """What is wrong with an update of an owner that trains adapters of rank `wanted`; nothing where it
    can be used."""
    if rank != wanted:
        return f"it is of rank {rank}, and {wanted} is wanted"
    shapes = settings.shapes(layers, rank)
    try:
        found = unpacked(packed, shapes, settings.codec)
    except UnexpectedReplyError as error:
        return str(error)[:400]
    return vetted(found, shapes, largest_norm=settings.largest_norm, scale=settings.scale)[:400]
