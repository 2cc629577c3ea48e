"""Named arrays on the wire: weights, adapters, updates.

    {"lora_A": (8, 576), …} ─ pack ─▶ bytes ─ unpack ─▶ {"lora_A": (8, 576), …}, float32

Names are sorted, so equal content is equal bytes, and a digest of the bytes is one of the content.
There is nothing to execute in it. What the head claims is held against `TensorLimits`, and against how
long the bytes are, before an array is made.

    version │ codec's name │ how many │ (name, shape) of each │ the numbers of each, by the codec

A codec sees rows of the last dimension; a vector is one row.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs import Codec, codec
from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]
Shape = tuple[int, ...]

LONGEST_NAME = 200
"""Bytes of UTF-8 in a tensor's name."""

DIMENSIONS = 4
"""That a tensor has at most."""

_VERSION = 1
_BEGIN = struct.Struct("<BB")  # version, length of the codec's name
_COUNT = struct.Struct("<I")
_NAMED = struct.Struct("<BB")  # length of the name, dimensions
_DIMENSION = struct.Struct("<I")


@dataclass(frozen=True)
class TensorLimits:
    """What may come, at most. Unpacking takes no more memory than sixteen bytes for each of these
    numbers and four for each byte that came.

    Attributes:
        tensors: how many.
        numbers: in all of them together.
        codecs: by which codecs; any where empty.
    """

    tensors: int = 1 << 14
    numbers: int = 1 << 28
    codecs: tuple[str, ...] = ()

    @classmethod
    def of(cls, shapes: Mapping[str, Shape], *, codecs: tuple[str, ...] = ()) -> TensorLimits:
        """What tensors of these shapes need; that they are these is for the caller to look at."""
        return cls(len(shapes), sum(map(math.prod, shapes.values())), codecs)


def pack(tensors: Mapping[str, NDArray[np.floating]], codec_name: str = "fp32") -> bytes:
    """`tensors` by the codec of that name (see `wire.codecs`), in the order of their names.

    Raises:
        ValueError: there is no such codec; a name is empty, too long or not printable; a tensor has no
            numbers, too many dimensions, or a number that is not finite as a float32.
    """
    used = codec(codec_name)
    spelled = used.name.encode()
    heads = [_BEGIN.pack(_VERSION, len(spelled)), spelled, _COUNT.pack(len(tensors))]
    bodies = []
    for name in tensors:
        if not _nameable(name):
            raise ValueError(f"{name!r} cannot name a tensor")
    for name in sorted(tensors, key=str.encode):
        array = np.asarray(tensors[name])
        if not array.size or array.ndim > DIMENSIONS:
            raise ValueError(f"tensor {name!r} of shape {array.shape} cannot be packed")
        heads += [_NAMED.pack(len(name.encode()), array.ndim), name.encode()]
        heads += [_DIMENSION.pack(size) for size in array.shape]
        try:
            bodies.append(used.pack(array.reshape(_matrix(array.shape))))
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from None
    return b"".join((*heads, *bodies))


def size_of(shapes: Mapping[str, Shape], codec_name: str = "fp32") -> int:
    """How many bytes `pack` makes of tensors of these shapes, whatever stands in them.

    Raises:
        ValueError: there is no such codec.
    """
    used = codec(codec_name)
    size = _BEGIN.size + len(used.name) + _COUNT.size
    for name, shape in shapes.items():
        size += _NAMED.size + len(name.encode()) + _DIMENSION.size * len(shape)
        size += used.size(*_matrix(shape))
    return size


def unpack(packed: bytes, *, limits: TensorLimits = TensorLimits()) -> dict[str, Floats]:
    """What `pack` was given, as float32, up to what its codec loses; sorted by name.

    Raises:
        UnexpectedReplyError: the bytes are no packed tensors, or more than `limits` has them.
    """
    try:
        used, shapes, at = _head(packed, limits)
    except (struct.error, ValueError) as error:
        raise UnexpectedReplyError(f"{len(packed)} bytes are no packed tensors ({error})") from None
    found = {}
    for name, shape in shapes.items():
        n, d = _matrix(shape)
        end = at + used.size(n, d)
        found[name] = used.unpack(packed[at:end], n, d).reshape(shape)
        at = end
    return found


def _head(packed: bytes, limits: TensorLimits) -> tuple[Codec, dict[str, Shape], int]:
    """The codec, each tensor's shape by its name, and where the numbers begin."""
    version, length = _BEGIN.unpack_from(packed)
    if version != _VERSION:
        raise ValueError(f"format {version} is unknown")
    at = _BEGIN.size + length
    named = packed[_BEGIN.size : at].decode()
    used = codec(named)
    if used.name != named:
        raise ValueError("a codec is not named as it names itself")
    if limits.codecs and named not in limits.codecs:
        raise ValueError(f"codec {named} is not one of {', '.join(limits.codecs)}")
    (count,) = _COUNT.unpack_from(packed, at)
    at += _COUNT.size
    if count > limits.tensors:
        raise ValueError(f"{count} tensors are more than the {limits.tensors} that may come")
    shapes: dict[str, Shape] = {}
    numbers, body, before = 0, 0, b""
    for _ in range(count):
        length, dimensions = _NAMED.unpack_from(packed, at)
        at += _NAMED.size
        spelled = packed[at : at + length]
        at += length
        name = spelled.decode()
        if spelled <= before or not _nameable(name):
            raise ValueError("the names are not in order, or are none")
        if dimensions > DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions")
        shape = struct.unpack_from(f"<{dimensions}I", packed, at)
        at += _DIMENSION.size * dimensions
        numbers += math.prod(shape)
        if not all(shape) or numbers > limits.numbers:
            raise ValueError(f"more than the {limits.numbers} numbers that may come, or none")
        body += used.size(*_matrix(shape))
        shapes[name], before = shape, spelled
    if len(packed) != at + body:
        raise ValueError(f"{body} bytes of numbers were announced, and {len(packed) - at} came")
    return used, shapes, at


def _matrix(shape: Shape) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def _nameable(name: str) -> bool:
    try:
        return 0 < len(name.encode()) <= LONGEST_NAME and name.isprintable()
    except UnicodeEncodeError:
        return False
