from __future__ import annotations

import numpy as np
import pytest

from cosilo.engines.ranges import (
    Bound,
    Fixed,
    linear,
    mlp,
    require_faithful,
    require_inputs,
    require_room,
)
from cosilo.errors import ConfigError
from rings import rms_norm


def test_a_product_in_64_bits_with_18_after_the_point_must_stay_below_2_to_the_26() -> None:
    assert Fixed().largest_product == 2.0**26


@pytest.mark.parametrize(("bits", "fraction"), [(64, 0), (64, 31), (32, 15), (63, 18)])
def test_a_ring_without_room_for_a_product_is_refused(bits: int, fraction: int) -> None:
    with pytest.raises(ConfigError, match="bits"):
        Fixed(bits, fraction)


def test_what_has_room_is_named_by_what_comes_nearest() -> None:
    bounds = [Bound("a score", 10.0), Bound("a square", 1e7), Bound("a logit", 3.0)]
    assert require_room(bounds, Fixed()).what == "a square"


@pytest.mark.parametrize("largest", [2.0**26, 22_552.0**2, float("inf"), float("nan")])
def test_what_could_leave_the_ring_is_refused_by_name(largest: float) -> None:
    with pytest.raises(ConfigError, match=r"the square of a state can reach .* Nothing was sent"):
        require_room([Bound("a logit", 3.0), Bound("the square of a state", largest)], Fixed())


def test_nothing_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="calibrate"):
        require_room([], Fixed())


def test_a_linear_layer_is_bounded_by_its_largest_column() -> None:
    weights = np.array([[1.0, -4.0], [2.0, 3.0]])
    assert linear("head", weights, np.array([0.5, -1.0]), 10.0).largest == 71.0


def test_an_mlp_is_bounded_layer_by_layer() -> None:
    first, second = np.array([[2.0]]), np.array([[-3.0]])
    bounds = mlp([(first, np.zeros(1)), (second, np.ones(1))], 5.0)
    assert [bound.largest for bound in bounds] == [10.0, 31.0]
    assert all(bound.proved for bound in bounds)


@pytest.mark.parametrize("entry", [1.1, -1.1, float("nan"), float("inf")])
def test_an_input_that_was_not_proved_for_is_not_shared(entry: float) -> None:
    require_inputs(np.array([1.0, -1.0]), 1.0)
    with pytest.raises(ConfigError, match="nothing was sent"):
        require_inputs(np.array([0.0, entry]), 1.0)


def test_an_overflow_is_noticed_though_the_likeliest_label_is_right() -> None:
    """Of three positions one is so large that its square is lost; the label is read elsewhere."""
    drawn = np.random.default_rng(0)
    states = drawn.normal(size=(3, 64))
    states[0, 7] = 22_552.0
    head = drawn.normal(size=(64, 5))
    plain = rms_norm(states, lambda x: x) @ head
    wrapped = rms_norm(states, Fixed()) @ head
    assert wrapped[-1].argmax() == plain[-1].argmax()
    with pytest.raises(ConfigError, match="a product leaves the ring"):
        require_faithful(wrapped, plain, 0.07)
    halved = rms_norm(states * 2.0**-12 * np.array([[1], [4096], [4096]]), Fixed()) @ head
    assert require_faithful(halved, plain, 0.07) < 0.07


def test_a_rehearsal_that_gives_no_numbers_is_no_rehearsal() -> None:
    with pytest.raises(ConfigError, match="off by nan"):
        require_faithful(np.array([np.nan]), np.array([1.0]), 1.0)
    with pytest.raises(ConfigError, match=r"gave \(2,\)"):
        require_faithful(np.zeros(2), np.zeros(3), 1.0)
