"""Whether an update can be used: its matrices are looked at before they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosilo.boundary.wire import tensors
from cosilo.boundary.wire.tensors import TensorLimits
from cosilo.errors import UnexpectedReplyError
from cosilo.parties.coordinating.rules import Floats
from cosilo.parties.coordinating.settings import FederationSettings

Layers = Sequence[tuple[str, int, int]]
"""(name, outputs, inputs)"""

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(layers: Layers, rank: int) -> Shapes:
    """The shapes of an adapter's matrices, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for name, out, into in layers:
        found[f"{name}.lora_A"] = (rank, into)
        found[f"{name}.lora_B"] = (out, rank)
    return found


def unpacked(packed: bytes, shapes: Shapes, codec: str) -> dict[str, Floats]:
    """The matrices of an update that was packed by `codec`.

    Raises:
        UnexpectedReplyError: the bytes are none, hold what is no number, or more than these shapes.
    """
    return tensors.unpack(packed, limits=TensorLimits.of(shapes, codecs=(codec,)))


def flaw(packed: bytes, rank: int, layers: Layers, settings: FederationSettings) -> str:
    """What is wrong with an update; nothing where it can be used."""
    if rank != settings.rank:
        return f"it is of rank {rank}, and {settings.rank} is wanted"
    shapes = shapes_of(layers, rank)
    try:
        found = unpacked(packed, shapes, settings.codec)
    except UnexpectedReplyError as error:
        return str(error)[:400]
    if {name: tensor.shape for name, tensor in found.items()} != shapes:
        return "its matrices are of other layers, or of other shapes"
    norm = product_norm(found, settings.scale)
    if not norm <= settings.largest_norm:
        return f"its norm, {norm:.4g}, is above {settings.largest_norm:g}"
    return ""


def product_norm(matrices: Mapping[str, Floats], scale: float) -> float:
    """The Frobenius norm of scale · B A, over all layers together."""
    total = 0.0
    for name, a in matrices.items():
        if name.endswith(".lora_A"):
            b = matrices[name.removesuffix(".lora_A") + ".lora_B"].astype(np.float64)
            wide = a.astype(np.float64)
            # ‖BA‖² = tr(BᵀB AAᵀ), of rank × rank; float32 squared twice is finite in float64
            total += float(np.sum((b.T @ b) * (wide @ wide.T)))
    return scale * float(np.sqrt(max(0.0, total)))
