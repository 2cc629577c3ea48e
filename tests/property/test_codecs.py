"""What codecs lose is bounded as they say, and changed bytes are arrays or refused."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs import Codec, codec, pack_with_feedback
from cosilo.boundary.wire.codecs.sparse import _coded, _decoded, _places
from cosilo.errors import UnexpectedReplyError
from mutated import changed

Floats = NDArray[np.float32]

NAMES = [
    "fp32", "fp16", "int8", "int8:64", "int4", "int4:5", "int2", "int2:7", "topk:0.1", "topk:0.5",
    "topk:0.25:int8", "lowrank:1", "lowrank:3", "lowrank:100",
]  # fmt: skip
small = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
numbers = st.floats(-1e6, 1e6, width=32)
matrices = arrays.arrays(np.float32, small, elements=numbers)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
widest = arrays.arrays(np.float32, small, elements=finite)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(array=matrices | widest)
@pytest.mark.filterwarnings("error")
def test_the_shape_alone_says_how_many_bytes(name: str, array: Floats) -> None:
    used = codec(name)
    n, d = array.shape
    assert used.name == name
    packed = used.pack(array)
    assert len(packed) == used.size(n, d)
    try:
        found = used.unpack(packed, n, d)
    except UnexpectedReplyError:  # beyond what a float32 holds, by rounding
        assert np.abs(array).max() > 1e38
        return
    assert found.shape == array.shape
    assert found.dtype == np.float32
    assert used.pack(array) == packed


def massive(rng: np.random.Generator, n: int, d: int) -> Floats:
    """As a language model's states are: a few columns hundreds of times as large."""
    found = rng.normal(size=(n, d)).astype(np.float32)
    found[:, :: max(1, d // 4)] *= 300
    return found


@settings(max_examples=200)
@given(matrices, st.sampled_from([0, 3, 16, 64]))
def test_eight_bits_are_wrong_by_half_a_step(array: Floats, group: int) -> None:
    n, d = array.shape
    used = codec(f"int8:{group}" if group else "int8")
    error = np.abs(used.unpack(used.pack(array), n, d) - array.astype(np.float64))
    # The slow way: columns apart, then each group's step.
    apart = np.sort(np.argsort(-np.abs(array).max(axis=0), kind="stable")[: min(8, d // 8)])
    rest = [column for column in range(d) if column not in set(apart.tolist())]
    width = group or len(rest)
    largest = np.abs(array).max()
    for row in range(n):
        assert (error[row, apart] <= np.abs(array[row, apart]) * 2.0**-11 + largest * 1e-11).all()
        for at in range(0, len(rest), width):
            columns = rest[at : at + width]
            step = np.abs(array[row, columns]).max() / 127
            assert error[row, columns].max() <= 0.57 * step + largest * 1e-9


@settings(max_examples=200)
@given(matrices, st.sampled_from([(4, 7), (2, 1.5)]), st.sampled_from([3, 32]))
def test_fewer_bits_lose_in_squares_no_more_than_half_a_step_each(
    array: Floats, bits: tuple[int, float], group: int
) -> None:
    n, d = array.shape
    used = codec(f"int{bits[0]}:{group}")
    found = used.unpack(used.pack(array), n, d).astype(np.float64)
    apart = np.sort(np.argsort(-np.abs(array).max(axis=0), kind="stable")[: min(8, d // 8)])
    rest = [column for column in range(d) if column not in set(apart.tolist())]
    for row in range(n):
        for at in range(0, len(rest), group):
            columns = rest[at : at + group]
            step = float(np.abs(array[row, columns]).max()) / bits[1]
            lost = np.square(found[row, columns] - array[row, columns]).sum()
            # Two bits have no zero, so in a group that is filled up each place counts.
            floor = group * 1.2e-38**2  # below the smallest normal float32 a step is rounded itself
            assert (
                lost <= group * (0.501 * step) ** 2 + 1e-9 * float(np.abs(array).max()) ** 2 + floor
            )


@settings(max_examples=200)
@given(matrices, st.sampled_from([0.05, 0.1, 0.5]))
def test_the_largest_of_each_row_stay_and_the_others_are_zero(
    array: Floats, fraction: float
) -> None:
    used = codec(f"topk:{fraction}")
    n, d = array.shape
    found = used.unpack(used.pack(array), n, d)
    for row, sent in zip(array, found, strict=True):
        kept = sorted(range(d), key=lambda i: (-abs(row[i]), i))[: int(np.ceil(fraction * d))]
        others = [i for i in range(d) if i not in kept]
        assert not sent[others].any()
        least = np.abs(array).max() * 1e-11
        np.testing.assert_allclose(sent[kept], row[kept], rtol=2**-11, atol=least)


@given(st.sets(st.integers(0, 999), min_size=1), st.integers(1000, 5000))
def test_ascending_numbers_are_coded_near_their_entropy(keys: set[int], below: int) -> None:
    given_ = np.array(sorted(keys), np.int64)
    coded = _coded(given_, below)
    np.testing.assert_array_equal(_decoded(coded, len(keys), below), given_)
    assert len(coded) == sum(_places(len(keys), below)[1:])
    assert 8 * len(coded) <= len(keys) * (3 + np.log2(below / len(keys))) + 16


@settings(max_examples=100)
@given(matrices, st.integers(1, 12))
def test_a_low_rank_loses_what_the_other_singular_values_hold(array: Floats, rank: int) -> None:
    used = codec(f"lowrank:{rank}")
    n, d = array.shape
    lost = np.linalg.norm(used.unpack(used.pack(array), n, d) - array.astype(np.float64))
    values = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    assert lost <= np.linalg.norm(values[rank:]) + 2.0**-9 * np.linalg.norm(values) + 1e-30


@pytest.mark.parametrize("name", ["topk:0.1", "topk:0.1:int8", "int2", "int4", "lowrank:2"])
def test_with_feedback_all_that_was_meant_arrives(name: str) -> None:
    used = codec(name)
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(16, 64)).astype(np.float32)
    residual, arrived, meant = None, np.zeros((16, 64)), np.zeros((16, 64))
    plain = np.zeros((16, 64))
    for _ in range(200):
        update = drift + rng.normal(size=(16, 64)).astype(np.float32)
        packed, residual = pack_with_feedback(used, update, residual)
        arrived += used.unpack(packed, 16, 64)
        plain += used.unpack(used.pack(update), 16, 64)
        meant += update
        np.testing.assert_allclose(arrived + residual, meant, atol=1e-2)
    lost = np.linalg.norm(arrived - meant) / np.linalg.norm(meant)
    assert lost < 0.1
    assert lost < np.linalg.norm(plain - meant) / np.linalg.norm(meant)


def test_feedback_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack_with_feedback(codec("int4"), np.ones((2, 3)), np.ones((3, 2), np.float32))


@pytest.mark.parametrize("name", ["int8", "int4", "int2"])
def test_massive_columns_do_not_blur_the_others(name: str) -> None:
    used = codec(name)
    array = massive(np.random.default_rng(1), 64, 576)
    calm = np.abs(array).max(axis=0) < 10
    found = used.unpack(used.pack(array), 64, 576)
    error = np.square(found - array)[:, calm].mean()
    array[:, ~calm] = 1.0
    alone = np.square(used.unpack(used.pack(array), 64, 576) - array)[:, calm].mean()
    assert error < 1.05 * alone


def test_sizes_are_as_stated() -> None:
    n, d = 512, 576
    stated = {"fp16": 2, "int8": 1.02, "int4": 0.55, "int2": 0.34}
    stated |= {"topk:0.1": 0.27, "topk:0.1:int8": 0.17, "lowrank:8": 8 * (1 / d + 1 / n) * 2}
    for name, each in stated.items():
        assert codec(name).size(n, d) / (n * d) == pytest.approx(each, abs=0.006), name
    assert codec("int8").size(128, d) / 128 < 600  # bytes a token


@pytest.mark.parametrize(
    "name",
    ["", "fp64", "int3", "int8:x", "int8:-1", "int8:1:2", "fp16:2", "topk", "topk:0", "topk:0.6",
     "topk:nan", "topk:0.1:int4", "lowrank", "lowrank:0", "lowrank:1:2"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no codec named"):
        codec(name)


@pytest.mark.parametrize(
    "array", [np.ones(3), np.ones((0, 3)), np.ones((1, 1, 1)), np.array([[np.nan]])]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_packed_is_refused(name: str, array: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="array"):
        codec(name).pack(array)


SAMPLES: list[tuple[Codec, bytes]] = [
    (codec(name), codec(name).pack(massive(np.random.default_rng(3), 4, 17))) for name in NAMES
]


@settings(max_examples=1500)
@given(st.sampled_from(SAMPLES), st.randoms())
@pytest.mark.filterwarnings("error")
def test_changed_bytes_are_arrays_or_refused(
    sample: tuple[Codec, bytes], dice: random.Random
) -> None:
    used, whole = sample
    # Changes keep the length, as any other is refused for it.
    packed = (changed(whole, (whole,), dice) + whole)[: len(whole)]
    try:
        found = used.unpack(packed, 4, 17)
    except UnexpectedReplyError:
        return
    assert np.isfinite(found).all()
    assert found.shape == (4, 17)


@pytest.mark.parametrize("name", NAMES)
def test_another_length_is_refused_before_anything_is_made(name: str) -> None:
    used = codec(name)
    packed = used.pack(np.ones((2, 30), np.float32))
    tracemalloc.start()
    try:
        for n, d in ((2, 60), (3, 30), (0, 30), (2, 0), (-2, -30), (1 << 30, 1 << 30)):
            with pytest.raises(UnexpectedReplyError):
                used.unpack(packed, n, d)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_in_proportion(name: str) -> None:
    used = codec(name)
    n, d = 256, 1024
    packed = used.pack(np.random.default_rng(4).normal(size=(n, d)))
    tracemalloc.start()
    try:
        used.unpack(packed, n, d)
        assert tracemalloc.get_traced_memory()[1] <= 4 * len(packed) + 16 * n * d
    finally:
        tracemalloc.stop()
