"""Packed log-probabilities say what a slow and obvious version says, and no bytes do any harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.wire.logits import STEP, joined, pack, pack_few, top_k, unpack
from cosilo.errors import UnexpectedReplyError


@st.composite
def logits(draw: st.DrawFn) -> np.ndarray:
    n, size = draw(st.integers(0, 6)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = rng.normal(size=(n, size)) * draw(st.sampled_from([0.0, 0.3, 3.0, 30.0]))
    if draw(st.booleans()) and size > 1:
        found[rng.random((n, size)) < 0.3] = -np.inf
        found[:, 0] = 0.0
    return (found + draw(st.sampled_from([0.0, -500.0, 70.0]))).astype(np.float32)


def slow(row: np.ndarray, k: int) -> tuple[dict[int, float], float]:
    """token → log-probability of the k best, and the log of what is left."""
    shifted = row.astype(np.float64) - row.max()
    p = np.exp(shifted) / np.exp(shifted).sum()
    order = sorted(range(len(row)), key=lambda i: -p[i])
    with np.errstate(divide="ignore"):
        return {i: float(np.log(p[i])) for i in order[:k]}, float(np.log(p[order[k:]].sum()))


@given(logits(), st.integers(1, 50))
def test_the_best_tokens_are_the_best(found: np.ndarray, k: int) -> None:
    top = top_k(found, k)
    assert top.ids is not None
    assert top.ids.shape == (len(found), min(k, found.shape[1]))
    for i, row in enumerate(found):
        best, rest = slow(row, k)
        np.testing.assert_allclose(np.sort(top.logprobs[i]), np.sort([*best.values()]), atol=1e-4)
        assert (np.diff(top.ids[i]) > 0).all()
        p = np.exp(row.astype(np.float64) - row.max())
        expected = np.log(
            p[top.ids[i]] / p.sum(), where=p[top.ids[i]] > 0, out=top.logprobs[i] * 1.0
        )
        np.testing.assert_allclose(top.logprobs[i], expected, atol=1e-4)
        np.testing.assert_allclose(np.exp(top.rest[i]), np.exp(rest), atol=1e-6)


@given(logits(), st.integers(1, 50), st.booleans(), st.sampled_from([STEP, 0.25, 0.01]))
def test_a_packed_distribution_is_the_same_within_half_a_step(
    found: np.ndarray, k: int, ids: bool, step: float
) -> None:
    top = top_k(found, k, ids=ids)
    back = unpack(pack(top, step=step))
    assert back.size == top.size
    assert back.logprobs.shape == top.logprobs.shape
    if ids:
        assert top.ids is not None
        assert back.ids is not None
        np.testing.assert_array_equal(back.ids, top.ids)
    else:
        assert back.ids is None
        assert (np.diff(back.logprobs, axis=1) <= 0).all()
    seen = np.isfinite(top.logprobs) & (
        top.logprobs > top.logprobs.max(axis=1, initial=0)[:, None] - 600
    )
    # Half a step of its own, and half a step that normalising can move all of a row by.
    assert (np.abs(back.logprobs - top.logprobs)[seen] <= step * 1.01 + 1e-4).all()
    assert (np.exp(back.logprobs[~np.isfinite(top.logprobs)]) == 0).all()
    total = np.exp(back.logprobs.astype(np.float64)).sum(axis=1) + np.exp(back.rest)
    np.testing.assert_allclose(total, 1, atol=1e-4)
    np.testing.assert_allclose(np.exp(back.rest), np.exp(top.rest), atol=2e-3)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 9))
def test_joined_and_cut_again_are_the_same(lengths: list[int], k: int) -> None:
    rng = np.random.default_rng(k)
    tops = [top_k(rng.normal(size=(n, 20)).astype(np.float32), k) for n in lengths]
    for before, after in zip(tops, joined(tops).parts(lengths), strict=True):
        np.testing.assert_array_equal(before.ids, after.ids)  # type: ignore[arg-type]
        np.testing.assert_array_equal(before.logprobs, after.logprobs)
        np.testing.assert_array_equal(before.rest, after.rest)
    with pytest.raises(UnexpectedReplyError):
        joined(tops).parts([*lengths, 1])


@given(st.binary(max_size=120))
def test_any_bytes_are_log_probabilities_or_a_clean_refusal(data: bytes) -> None:
    try:
        unpack(data)
    except UnexpectedReplyError:
        return


@given(logits(), st.integers(1, 9), st.booleans(), st.data())
def test_damaged_bytes_are_log_probabilities_or_a_clean_refusal(
    found: np.ndarray, k: int, ids: bool, data: st.DataObject
) -> None:
    whole = bytearray(pack(top_k(found, k, ids=ids)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        top = unpack(bytes(whole[:cut]))
    except UnexpectedReplyError:
        return
    assert np.isfinite(top.logprobs).all()
    if top.ids is not None:
        assert (top.ids >= 0).all()
        assert (top.ids < top.size).all()


def test_a_header_that_claims_gigabytes_takes_no_memory() -> None:
    import tracemalloc

    data = bytearray(pack(top_k(np.zeros((3, 100), np.float32), 8)))
    data[2:6] = (2**31).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(UnexpectedReplyError, match="more than the bytes can hold"):
        unpack(bytes(data))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_distribution_is_refused(bad: float) -> None:
    rows = np.zeros((2, 5), np.float32)
    rows[1, 2] = bad
    with pytest.raises(ValueError, match="no number"):
        top_k(rows, 2)
    with pytest.raises(ValueError, match="no number"):
        top_k(np.full((1, 5), -np.inf, np.float32), 2)


@given(logits(), st.integers(1, 50))
def test_a_few_places_say_the_same_without_tables(found: np.ndarray, k: int) -> None:
    top = top_k(found, k)
    few, whole = unpack(pack_few(top)), unpack(pack(top))
    assert len(top) == 1 or len(pack_few(top)) <= len(pack(top))
    np.testing.assert_array_equal(few.ids, whole.ids)
    np.testing.assert_array_equal(few.logprobs, whole.logprobs)
    np.testing.assert_array_equal(few.rest, whole.rest)
    assert (few.size, few.error) == (whole.size, whole.error)
