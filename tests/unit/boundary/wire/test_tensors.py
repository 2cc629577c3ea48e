"""Named arrays come out as they went in, and no other bytes pass for some."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.boundary.wire import tensors
from cosilo.boundary.wire.tensors import TensorLimits, pack, size_of, unpack
from cosilo.errors import UnexpectedReplyError

ADAPTER = {
    "layers.0.q_proj.lora_B": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
    "layers.0.q_proj.lora_A": -np.ones((3, 5), np.float32) / 3,
    "scale": np.array(2.0),
    "bias": np.array([1e-9, 0.0, 3e8]),
}
SHAPES = {name: array.shape for name, array in ADAPTER.items()}


def test_tensors_come_out_as_they_went_in() -> None:
    found = unpack(pack(ADAPTER))
    assert list(found) == sorted(ADAPTER)
    for name, array in ADAPTER.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array.astype(np.float32))


@pytest.mark.parametrize("codec", ["fp32", "fp16"])
def test_equal_content_is_equal_bytes(codec: str) -> None:
    packed = pack(ADAPTER, codec)
    again = dict(reversed(ADAPTER.items()))
    again["bias"] = np.asfortranarray(again["bias"]) * 1.0
    assert pack(again, codec) == packed
    assert pack(unpack(packed), codec) == packed
    assert pack({"x": np.array([-0.0])}, codec) == pack({"x": np.array([0.0])}, codec)
    assert len(packed) == size_of(SHAPES, codec)
    other = ADAPTER | {"scale": np.array(2.5)}
    assert pack(other, codec) != packed


def test_of_no_tensors_none_come() -> None:
    assert unpack(pack({})) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": np.array([1.0, np.nan])}, "no number"),
        ({"x": np.array([np.inf])}, "no number"),
        ({"x": np.array([1e39])}, "too large"),
        ({"x": np.empty((0, 3))}, "cannot be packed"),
        ({"x": np.zeros((1,) * 5)}, "cannot be packed"),
        ({"": np.zeros(1)}, "cannot name"),
        ({"x\n": np.zeros(1)}, "cannot name"),
        ({"\ud800": np.zeros(1)}, "cannot name"),
        ({"x" * 201: np.zeros(1)}, "cannot name"),
    ],
)
def test_what_cannot_be_packed_is_refused(given: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pack(given)
    with pytest.raises(ValueError, match="no codec named 'pickle'"):
        pack(ADAPTER, "pickle")


def test_limits_hold_before_anything_is_made() -> None:
    packed = pack(ADAPTER)
    assert unpack(packed, limits=TensorLimits.of(SHAPES))
    with pytest.raises(UnexpectedReplyError, match="4 tensors are more than the 3"):
        unpack(packed, limits=TensorLimits(tensors=3))
    with pytest.raises(UnexpectedReplyError, match="more than the 30 numbers"):
        unpack(packed, limits=TensorLimits(numbers=30))
    with pytest.raises(UnexpectedReplyError, match="codec fp32 is not one of fp16"):
        unpack(packed, limits=TensorLimits(codecs=("fp16",)))


def head(*named: tuple[bytes, tuple[int, ...]], codec: bytes = b"fp32", version: int = 1) -> bytes:
    parts = [tensors._BEGIN.pack(version, len(codec)), codec, tensors._COUNT.pack(len(named))]
    for name, shape in named:
        parts += [tensors._NAMED.pack(len(name), len(shape)), name]
        parts += [tensors._DIMENSION.pack(size) for size in shape]
    return b"".join(parts)


def fp32(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x01",
        head(version=2),
        head(codec=b"fp64"),
        head(codec=b"\xff"),
        head() + b"\0",
        head((b"b", (1,)), (b"a", (1,))) + fp32(1, 2),
        head((b"a", (1,)), (b"a", (1,))) + fp32(1, 2),
        head((b"", (1,))) + fp32(1),
        head((b"\n", (1,))) + fp32(1),
        head((b"\xff", (1,))) + fp32(1),
        head((b"a", (0,))),
        head((b"a", (1, 0, 1 << 31))),
        head((b"a", (1, 1, 1, 1, 1))) + fp32(1),
        head((b"a", (2,))) + fp32(1),
        head((b"a", (2,))) + fp32(1, 2, 3),
        head((b"a", ((1 << 32) - 1,) * 4)),
        head((b"a", (1 << 28,))),
        head((b"a", (2,))) + fp32(1, np.nan),
        head((b"a", (2,))) + fp32(1, np.inf),
        head((b"a", (2,))) + fp32(1, -0.0),
        head((b"a", (1,)), codec=b"fp16") + b"\0\0" + np.array([1], "<f2").tobytes(),
        head((b"a", (1,)), codec=b"fp16") + b"\0\0" + np.array([2**14], "<f2").tobytes(),
        head((b"a", (1,)), codec=b"fp16") + b"\0\0" + np.array([np.nan], "<f2").tobytes(),
        head((b"a", (1,)), codec=b"fp16") + b"\x78\0" + np.array([2**13], "<f2").tobytes(),
        head((b"a", (1,)), codec=b"fp16") + b"\1\0" + bytes(2),
        head((b"a", (2,)), codec=b"fp16") + b"\0\0" + np.array([2**13, -0.0], "<f2").tobytes(),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bytes_that_are_no_tensors_are_refused(packed: bytes) -> None:
    with pytest.raises(UnexpectedReplyError):
        unpack(packed)
