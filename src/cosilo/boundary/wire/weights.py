"""A model's weights on the wire: blocks of packed tensors, matrices by a codec, vectors in two bytes.

    length │ block │ length │ block │ …        each block is what `boundary.wire.tensors` packs

A norm's weights are few and count much, so a coarse codec is for matrices alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.tensors import TensorLimits, pack, unpack
from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]

_LENGTH = struct.Struct("<Q")
_BLOCKS = 16  # at most
_FEWEST = 4  # numbers that come for each byte, at most: two bits for each


def pack_weights(tensors: Mapping[str, NDArray[np.floating]], codec: str) -> bytes:
    """`tensors`, their matrices by the codec of that name.

    Raises:
        ValueError: there is no such codec, or a tensor cannot be packed.
    """
    matrices = {name: t for name, t in tensors.items() if t.ndim > 1}
    vectors = {name: t for name, t in tensors.items() if t.ndim <= 1}
    blocks = [pack(some, by) for some, by in ((matrices, codec), (vectors, "fp16")) if some]
    return b"".join(_LENGTH.pack(len(block)) + block for block in blocks)


def unpack_weights(packed: bytes) -> dict[str, Floats]:
    """All tensors of the blocks in `packed`, float32, up to what their codecs lose.

    Raises:
        UnexpectedReplyError: the bytes are no such blocks, or two tensors have one name.
    """
    found: dict[str, Floats] = {}
    for number, block in enumerate(_blocks(packed)):
        if number >= _BLOCKS:
            raise UnexpectedReplyError(f"weights came in more than {_BLOCKS} blocks")
        # What comes of all blocks together is in proportion to the bytes that came.
        more = unpack(block, limits=TensorLimits(numbers=_FEWEST * len(block)))
        if found.keys() & more.keys():
            raise UnexpectedReplyError("two tensors came under one name")
        found |= more
    return found


def _blocks(packed: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(packed):
        if len(packed) - at < _LENGTH.size:
            raise UnexpectedReplyError("weights end within a block's length")
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size
        if length > len(packed) - at:
            raise UnexpectedReplyError("weights end within a block")
        yield packed[at : at + length]
        at += length
