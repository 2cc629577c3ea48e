"""Weights cross in blocks: matrices coarse, vectors fine, and nothing else is taken for them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from cosilo.boundary.wire.weights import pack_weights, unpack_weights
from cosilo.errors import UnexpectedReplyError

RNG = np.random.default_rng(0)
TENSORS = {
    "layer.weight": RNG.normal(size=(32, 64)).astype(np.float32),
    "norm.weight": RNG.normal(1, 0.2, size=64).astype(np.float32),
}


@pytest.mark.parametrize(
    ("codec", "off"), [("fp32", 1e-9), ("fp16", 1e-3), ("int8", 0.02), ("int4", 0.6)]
)
def test_matrices_lose_what_their_codec_does_and_vectors_hardly_anything(
    codec: str, off: float
) -> None:
    found = unpack_weights(pack_weights(TENSORS, codec))
    assert found.keys() == TENSORS.keys()
    assert np.abs(found["layer.weight"] - TENSORS["layer.weight"]).max() < off
    assert np.abs(found["norm.weight"] - TENSORS["norm.weight"]).max() < 2e-3


def test_parts_that_were_packed_apart_are_unpacked_together() -> None:
    one, other = ({n: t} for n, t in TENSORS.items())
    both = pack_weights(one, "int8") + pack_weights(other, "int8")
    assert unpack_weights(both).keys() == TENSORS.keys()
    assert unpack_weights(b"") == {}


@pytest.mark.parametrize(
    "bad",
    [
        b"\x01",
        struct.pack("<Q", 9) + b"short",
        struct.pack("<Q", 1 << 62),
        struct.pack("<Q", 4) + b"none",
        2 * pack_weights(TENSORS, "int8"),
        b"".join(pack_weights({f"v{i}": np.ones(3, np.float32)}, "fp16") for i in range(17)),
    ],
)
def test_other_bytes_are_refused(bad: bytes) -> None:
    with pytest.raises(UnexpectedReplyError):
        unpack_weights(bad)


def test_few_bytes_do_not_become_many_numbers() -> None:
    """A low-rank matrix stands for more numbers than there are bytes."""
    wide = {"w": np.ones((256, 1024), np.float32)}
    packed = pack_weights(wide, "lowrank:1")
    assert len(packed) < 1e4
    with pytest.raises(UnexpectedReplyError, match="numbers that may come"):
        unpack_weights(packed)
