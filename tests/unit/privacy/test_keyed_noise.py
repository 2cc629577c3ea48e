"""Noise that a key and a context fix is Gaussian, and other for any other key or context."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cosilo.privacy.keyed_noise import KeyedNoise

DRAWS = KeyedNoise(bytes(range(32)))


def test_draws_are_those_of_their_distributions() -> None:
    assert stats.kstest(DRAWS.uniforms(50_000, b"u"), "uniform").pvalue > 0.01
    normals = DRAWS.normals(50_001, b"n")
    assert normals.shape == (50_001,)
    assert stats.kstest(normals, "norm").pvalue > 0.01
    assert abs(np.corrcoef(normals[:-1], normals[1:])[0, 1]) < 0.02
    sigma = 0.003
    noise = DRAWS.added(np.full(50_000, 5.0), sigma, b"a") - 5.0
    assert stats.kstest(noise / sigma, "norm").pvalue > 0.01


def test_the_same_question_has_the_same_answer_and_no_other_has() -> None:
    first = DRAWS.added(np.zeros(100), 1.0, b"one")
    np.testing.assert_array_equal(first, DRAWS.added(np.zeros(100), 1.0, b"one"))
    others = [
        DRAWS.added(np.zeros(100), 1.0, b"two"),
        KeyedNoise(bytes(range(1, 33))).added(np.zeros(100), 1.0, b"one"),
    ]
    for other in others:
        assert not np.isin(first, other).any()


@pytest.mark.parametrize("sigma", [1e-6, 0.01, 1.0, 300.0])
def test_no_low_bits_show_and_no_value_grows(sigma: float) -> None:
    grid = math.ldexp(1.0, math.frexp(sigma)[1] - 20)
    assert sigma * 2**-20 <= grid <= sigma * 2**-19
    values = np.random.default_rng(0).normal(size=1000) * sigma * 10
    found = DRAWS.added(values, sigma, b"x")
    np.testing.assert_array_equal(found / grid, np.rint(found / grid))
    below = found - DRAWS.added(np.zeros(1000), sigma, b"x")
    assert (np.abs(below) <= np.abs(values)).all()
    assert (np.abs(below) > np.abs(values) - 1.001 * grid).all()


def test_without_noise_values_stay_and_what_is_no_deviation_is_refused() -> None:
    np.testing.assert_array_equal(DRAWS.added(np.array([0.1, -3.0]), 0.0, b"x"), [0.1, -3.0])
    for sigma in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="standard deviation"):
            DRAWS.added(np.zeros(1), sigma, b"x")
    with pytest.raises(ValueError, match="can be guessed"):
        KeyedNoise(b"short")
