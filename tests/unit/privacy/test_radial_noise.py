"""Noise in any direction: as long as it should be, as often as it should be, and not longer."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import gamma, kstest

from cosilo.privacy.mechanisms import RadialNoise
from cosilo.privacy.radial_noise import cut_to, eta_for, radial_noise
from cosilo.privacy.secret_key import KeyedRandom


@pytest.mark.parametrize(
    ("width", "eta", "n"), [(2, 0.5, 2000), (64, 10.0, 1000), (576, 100.0, 300)]
)
def test_its_length_follows_the_gamma_distribution(width: int, eta: float, n: int) -> None:
    source = KeyedRandom(b"k" * 32, f"{width}".encode())
    lengths = [float(np.linalg.norm(radial_noise(source, width, eta))) for _ in range(n)]
    assert kstest(lengths, gamma(width, scale=1 / eta).cdf).pvalue > 0.01


def test_a_length_drawn_for_each_number_is_found_out() -> None:
    """What reference code of Split-and-Denoise draws: √(d/3) times as long."""
    width, eta, rng = 768, 100.0, np.random.default_rng(0)
    wrong = rng.gamma(width, 1 / eta, size=(50, width)) * rng.uniform(-1, 1, size=(50, width))
    lengths = np.linalg.norm(wrong, axis=1)
    assert kstest(lengths, gamma(width, scale=1 / eta).cdf).pvalue < 1e-6
    assert lengths.mean() / (width / eta) == pytest.approx(math.sqrt(width / 3), rel=0.02)


def test_no_direction_is_likelier_than_another() -> None:
    source = random.Random(3)
    drawn = np.stack([radial_noise(source, 3, 1.0) for _ in range(4000)])
    units = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    for axis in (*np.eye(3), np.ones(3) / math.sqrt(3)):  # on a sphere, each coordinate is uniform
        assert kstest(units @ axis, "uniform", args=(-1, 2)).pvalue > 0.001


def test_densities_of_two_vectors_differ_by_no_more_than_their_distance_says() -> None:
    a, b, eta = np.array([0.3, -0.2]), np.array([-0.1, 0.4]), 2.0
    grid = np.stack(np.meshgrid(*[np.linspace(-3, 3, 61)] * 2), axis=-1).reshape(-1, 2)
    ratio = eta * (np.linalg.norm(grid - b, axis=1) - np.linalg.norm(grid - a, axis=1))
    assert ratio.max() <= eta * math.dist(a, b) + 1e-12


def test_vectors_are_cut_and_not_stretched() -> None:
    given = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(cut_to(given, 2.5), [[1.5, 2.0], [0.3, 0.4], [0.0, 0.0]])


def test_noise_is_as_many_times_as_long_as_is_asked_for() -> None:
    eta = eta_for(2.0, 3.0, 64)
    lengths = [np.linalg.norm(radial_noise(random.Random(i), 64, eta)) for i in range(300)]
    assert np.mean(lengths) == pytest.approx(6.0, rel=0.03)
    stated = RadialNoise(eta=eta, clip=3.0, vectors=5)
    assert stated.bound == pytest.approx(5 * 2 * 64 / 2.0), "whatever the clip is"
    assert "ε = 320" in str(stated)
    for noise, clip in ((0.0, 1.0), (math.inf, 1.0), (1.0, -1.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="must be positive and finite"):
            eta_for(noise, clip, 64)
