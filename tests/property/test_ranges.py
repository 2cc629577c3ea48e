"""What is proved to have room is what a ring gives right, by Python's integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cosilo.engines.ranges import Bound, Fixed, linear, require_room
from cosilo.errors import ConfigError
from rings import multiplied

RINGS = st.sampled_from([Fixed(32, 8), Fixed(64, 12), Fixed(64, 18), Fixed(64, 24), Fixed(128, 40)])


@given(RINGS, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_product_with_room_is_right(fixed: Fixed, one: float, other: float) -> None:
    try:
        require_room([Bound("it", (abs(one) + 1) * (abs(other) + 1))], fixed)
    except ConfigError:
        return
    step = 2.0**-fixed.fraction
    assert abs(multiplied(one, other, fixed) - one * other) <= step * (abs(one) + abs(other) + 2)


@given(RINGS, st.floats(1.01, 4))
def test_a_square_beyond_the_ring_is_wrong(fixed: Fixed, factor: float) -> None:
    """The bound is no stricter than it must be: twice as large a product has lost its sign."""
    root = float(np.sqrt(fixed.largest_product * 2 * factor * 0.999))
    wrong = multiplied(root, root, fixed)
    assert abs(wrong - root * root) > fixed.largest_product


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 99), st.floats(0.1, 50))
def test_no_input_exceeds_the_bound_of_a_linear_layer(
    inputs: int, outputs: int, seed: int, largest: float
) -> None:
    drawn = np.random.default_rng(seed)
    weights, biases = drawn.normal(size=(inputs, outputs)), drawn.normal(size=outputs)
    bound = linear("it", weights, biases, largest).largest
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * inputs)).reshape(inputs, -1).T
    said = np.abs(signs * largest @ weights + biases)
    assert said.max() <= bound * (1 + 1e-12)
