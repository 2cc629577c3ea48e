"""Named arrays survive the wire, and changed bytes are some or refused, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cosilo.boundary.wire.tensors import TensorLimits, pack, size_of, unpack
from cosilo.errors import UnexpectedReplyError
from mutated import changed

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
letters = st.characters(min_codepoint=33, max_codepoint=0x24F, categories=["L", "N"])
shapes = arrays.array_shapes(min_dims=0, max_dims=4, max_side=5)
named = st.dictionaries(
    st.text(letters, min_size=1, max_size=9),
    arrays.arrays(np.float32, shapes, elements=finite),
    max_size=4,
)


@given(named)
def test_what_is_packed_comes_out(tensors: dict[str, NDArray[np.float32]]) -> None:
    packed = pack(tensors)
    found = unpack(packed)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert len(packed) == size_of({name: array.shape for name, array in tensors.items()})
    assert pack(found) == packed


@given(named)
def test_half_the_bytes_lose_a_two_thousandth(tensors: dict[str, NDArray[np.float32]]) -> None:
    packed = pack(tensors, "fp16")
    found = unpack(packed)
    for name, array in tensors.items():
        exact = array.astype(np.float64)
        error = np.abs(found[name] - exact)
        # What a float32 itself is too coarse for, at its own lower end, is lost besides.
        bound = np.maximum(np.abs(exact) * 2.0**-11, np.abs(exact).max() * 2.0**-38) + 2.0**-149
        assert (error <= bound).all()
    assert pack(found, "fp16") == packed


SAMPLES = [
    pack({"a": np.arange(6.0).reshape(2, 3), "b": np.ones(4)}, codec) for codec in ("fp32", "fp16")
]


@settings(max_examples=2000)
@given(st.sampled_from(SAMPLES), st.randoms())
@pytest.mark.filterwarnings("error")
def test_changed_bytes_are_tensors_or_refused(whole: bytes, dice: random.Random) -> None:
    packed = changed(whole, tuple(SAMPLES), dice)
    try:
        found = unpack(packed, limits=TensorLimits(numbers=1000))
    except UnexpectedReplyError:
        return
    codec = packed[2 : 2 + packed[1]].decode()
    assert all(np.isfinite(array).all() for array in found.values())
    assert pack(found, codec) == packed  # nothing else has these bytes


@pytest.mark.parametrize("codec", ["fp32", "fp16"])
def test_memory_is_in_proportion_to_what_came_and_may_come(codec: str) -> None:
    numbers = 1 << 18
    packed = pack({"a": np.linspace(-1, 1, numbers), "b": np.ones((64, 512))}, codec)
    cut = packed[:-1]
    tracemalloc.start()
    try:
        unpack(packed)
        assert tracemalloc.get_traced_memory()[1] <= 4 * len(packed) + 8 * (numbers + 64 * 512)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(UnexpectedReplyError):
            unpack(packed, limits=TensorLimits(numbers=numbers))
        with pytest.raises(UnexpectedReplyError):
            unpack(cut)
        assert tracemalloc.get_traced_memory()[1] - before < 20_000
    finally:
        tracemalloc.stop()
