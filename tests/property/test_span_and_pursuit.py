"""The span check and the pursuit find exactly what a sum was made of, wherever mathematics says so."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.attacks.updates import RowSpan, nearest, pursue, within

WIDTH, SIZE = 24, 90


def drawn(seed: int, tokens: int, rows: int, *, size: int = SIZE) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(size, WIDTH)).astype(np.float32)
    chosen = rng.choice(size, tokens, replace=False)
    mixed = rng.normal(size=(rows, tokens)) @ inputs[chosen]
    return inputs, chosen, mixed.astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 16), st.integers(0, 30))
def test_the_span_check_is_exact_where_rows_and_width_are_more_than_tokens(
    seed: int, tokens: int, more: int
) -> None:
    inputs, chosen, rows = drawn(seed, tokens, tokens + more)
    assert within(RowSpan.of(rows).sines(inputs)) == sorted(chosen.tolist())


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 10), st.integers(0, 6))
def test_with_as_many_rows_the_pursuit_is_exact_and_knows_when_to_stop(
    seed: int, tokens: int, more: int
) -> None:
    inputs, chosen, rows = drawn(seed, tokens, tokens + more)
    found = pursue(rows, inputs)
    assert sorted(found.tokens) == sorted(chosen.tolist())
    assert found.left < 1e-3


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_sines_are_the_distances_to_the_nearest_point_of_the_span(seed: int, rank: int) -> None:
    inputs, _, rows = drawn(seed, rank, rank)
    got = RowSpan.of(rows).sines(inputs)
    for x, sine in zip(inputs[:10].astype(np.float64), got, strict=False):
        best = np.linalg.lstsq(rows.T.astype(np.float64), x, rcond=None)[0]
        slow = np.linalg.norm(x - best @ rows) / np.linalg.norm(x)
        assert abs(slow - sine) < 1e-3


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_of_one_row_and_two_tokens_the_pursuit_finds_the_pair_that_explains_it(seed: int) -> None:
    inputs, chosen, rows = drawn(seed, 2, 1, size=30)
    left = {}
    for pair in combinations(range(30), 2):
        two = inputs[list(pair)].T
        left[pair] = np.linalg.norm(rows[0] - two @ np.linalg.lstsq(two, rows[0], rcond=None)[0])
    slow = min(left, key=lambda pair: left[pair])
    assert set(slow) == set(chosen.tolist())
    greedy = pursue(rows, inputs, count=2)
    # The greedy search may begin with a wrong one; what it leaves then is more.
    length = np.linalg.norm(rows[0])
    assert greedy.left * length >= left[slow] - 1e-4 * length
    assert (set(greedy.tokens) == set(slow)) == (greedy.left < 1e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.001, 0.02))
def test_directions_that_noise_made_are_not_taken_for_the_span(seed: int, noise: float) -> None:
    inputs, chosen, rows = drawn(seed, 4, 40)
    rng = np.random.default_rng(seed + 1)
    blurred = (rows + noise * rng.normal(size=rows.shape)).astype(np.float32)
    span = RowSpan.of(blurred, noise=noise)
    assert len(span.basis) == 4
    assert set(nearest(span.sines(inputs), 4)) == set(chosen.tolist())
