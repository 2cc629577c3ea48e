"""An update with noise stays within its bound below the noise, and is booked as what it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from cosilo.federation.private import UpdateNoise, in_sum
from cosilo.privacy.accountant import spent
from cosilo.privacy.composition import composed
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.privacy.mechanisms import Gaussian

Floats = NDArray[np.float32]
DRAWS = KeyedNoise(bytes(range(32)))
SIZE = 20_000


def tensors(value: float, seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    return {
        "b": (rng.normal(size=(100, 100)) * value).astype(np.float32),
        "a": (rng.normal(size=10_000) * value).astype(np.float32),
    }


def flat(some: dict[str, Floats]) -> NDArray[np.float64]:
    return np.concatenate([some[name].astype(np.float64).ravel() for name in sorted(some)])


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e6])
def test_what_is_sent_is_the_way_cut_to_a_length_and_noise(size: float) -> None:
    before = tensors(0.01, seed=1)
    trained = {name: before[name] + more for name, more in tensors(size).items()}
    noise = UpdateNoise(largest=0.5, noise=1.5)
    found, _ = noise.applied(trained, before, DRAWS, session="x")
    way = flat(trained) - flat(before)
    cut = way * min(1.0, 0.5 / float(np.linalg.norm(way)))
    left = (flat(found) - flat(before) - cut) / 0.75
    assert stats.kstest(left, "norm").pvalue > 0.01
    assert left.std() == pytest.approx(1.0, rel=0.015)


def test_made_again_it_is_the_same_release_and_another_update_is_another() -> None:
    before, noise = tensors(1.0), UpdateNoise(largest=1.0, noise=1.0)
    trained = tensors(1.001)
    first, release = noise.applied(trained, before, DRAWS, session="round 1")
    again, booked = noise.applied(dict(reversed(trained.items())), before, DRAWS, session="round 1")
    assert booked == release
    np.testing.assert_array_equal(flat(again), flat(first))
    trained["a"][0] += 0.001
    for other, session, with_noise in (
        (trained, "round 1", noise),
        (tensors(1.001), "round 2", noise),
        (tensors(1.001), "round 1", UpdateNoise(largest=1.0, noise=1.01)),
    ):
        sent, another = with_noise.applied(other, before, DRAWS, session=session)
        assert another.draw != release.draw
        difference = (flat(sent) - flat(first)) / math.sqrt(2)
        assert stats.kstest(difference, "norm").pvalue > 0.001  # nothing of the noise is shared


def test_it_is_booked_for_a_record_or_for_all_of_an_owners() -> None:
    for unit, moved in (("record", 2.0), ("group", 1.0)):
        noise = UpdateNoise(largest=3.0, noise=2.0, unit=unit)  # type: ignore[arg-type]
        release = noise.release()
        assert release.mechanism == Gaussian(sigma=6.0, sensitivity=3.0 * moved)
        assert (release.unit, release.neighbours) == (unit, "add_or_remove")
        (figure,) = composed([release] * 5, 1e-5)
        assert figure.epsilon == pytest.approx(spent(2.0 / moved, 1e-5, rounds=5), rel=1e-6)


def test_a_sum_of_many_owners_says_less_of_one() -> None:
    noise = UpdateNoise(largest=1.0, noise=2.0)
    assert in_sum(noise, 1).mechanism == noise.release().mechanism
    (one,) = composed([in_sum(noise, 1)], 1e-5)
    (sixteen,) = composed([in_sum(noise, 16)], 1e-5)
    assert sixteen.epsilon == pytest.approx(spent(4.0, 1e-5, rounds=1), rel=1e-6)
    assert sixteen.epsilon < one.epsilon
    with pytest.raises(ValueError, match="add no noise"):
        in_sum(noise, 0)


def test_no_record_moves_an_update_by_more_than_is_booked() -> None:
    # The worst there is: two updates far apart in opposite directions.
    before, noise = {"w": np.zeros(4, np.float32)}, UpdateNoise(largest=1.0, noise=1e-3)
    sent = [
        noise.applied({"w": np.full(4, v, np.float32)}, before, DRAWS, session="x")[0]["w"]
        for v in (1e30, -1e30)
    ]
    apart = float(np.linalg.norm(sent[0].astype(float) - sent[1]))
    assert apart == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("options", [(0.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (1.0, math.nan)])
def test_noise_out_of_range_is_refused(options: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="both positive"):
        UpdateNoise(*options)


def test_what_cannot_be_sent_is_refused() -> None:
    noise = UpdateNoise(largest=1.0, noise=1.0)
    with pytest.raises(ValueError, match="record or a group"):
        UpdateNoise(largest=1.0, noise=1.0, unit="text")
    before = {"w": np.zeros(4, np.float32)}
    for wrong in ({}, {"v": before["w"]}, {"w": np.zeros(5, np.float32)}):
        with pytest.raises(ValueError, match="other tensors"):
            noise.applied(wrong, before, DRAWS, session="x")
    with pytest.raises(ValueError, match="no number, so nothing is sent"):
        noise.applied({"w": np.full(4, np.nan, np.float32)}, before, DRAWS, session="x")
