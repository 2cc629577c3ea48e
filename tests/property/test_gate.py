"""The gate's gradient against differences, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.strategies.mixing.gate import Gate, GateLesson, learned, loss, quantile, slope


def lesson(seed: int, places: int = 40, seen: int = 3) -> GateLesson:
    rng = np.random.default_rng(seed)
    return GateLesson(rng.normal(size=(places, seen)), rng.random(places), rng.random(places))


@given(st.integers(0, 1000), st.sampled_from([0, 1, 4]))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_that_of_the_loss(seed: int, hidden: int) -> None:
    given_ = lesson(seed)
    size = hidden * 5 + 1 if hidden else 4
    flat = np.random.default_rng(seed + 1).normal(size=size)
    found = slope(given_, given_.seen, flat, hidden)
    for i in range(size):
        step = np.zeros(size)
        step[i] = 1e-5
        more, less = (loss(given_, given_.seen, flat + s, hidden) for s in (step, -step))
        assert np.isclose(found[i], (more - less) / 2e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [0, 8])
def test_it_learns_whom_to_believe_where(hidden: int) -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(400, 3))
    better = seen[:, 1] > 0.3  # the large model is right there, the small one elsewhere
    taught = GateLesson(seen, np.where(better, 0.8, 0.1), np.where(better, 0.2, 0.7))
    gate = learned(taught, hidden)
    shares = gate(seen)
    assert (((shares > 0.5) == better).mean()) > 0.95
    mixed = -np.log(shares * taught.large + (1 - shares) * taught.small).mean()
    assert mixed < min(-np.log(taught.large).mean(), -np.log(taught.small).mean()) - 0.3


def test_the_threshold_of_a_share_is_passed_by_no_more_places_than_that() -> None:
    taught = lesson(3, places=200)
    gate = learned(taught, 0)
    for share in (0.0, 0.1, 0.5, 1.0):
        threshold = quantile(gate, [taught.seen], share)
        passed = (gate(taught.seen) > threshold).mean()
        assert share - 0.01 <= passed <= share


def test_parameters_that_are_no_gates_are_refused() -> None:
    with pytest.raises(ValueError, match="parameters"):
        Gate((1.0,), 3, 0)
