"""What releases spend together: exact for Gaussians, never too little for the rest."""

from __future__ import annotations

import math
import sys

import msgspec
import numpy as np
import pytest

from cosilo.errors import ConfigError
from cosilo.privacy.accountant import delta_of, noise_for, spent
from cosilo.privacy.composition import Figure, composed
from cosilo.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    RadialNoise,
    Release,
    SampledGaussian,
    Stated,
    WordNoise,
    randomised_response,
)

DELTA = 1e-5


def release(mechanism: Mechanism, **more: object) -> Release:
    return Release(mechanism=mechanism, **more)  # type: ignore[arg-type]


def figure(*releases: Release, delta: float = DELTA) -> Figure:
    (found,) = composed(releases, delta)
    return found


def epsilon(*mechanisms: Mechanism, delta: float = DELTA) -> float:
    return figure(*map(release, mechanisms), delta=delta).epsilon


def test_gaussians_of_any_noise_compose_exactly() -> None:
    found = figure(release(Gaussian(sigma=3.0)), release(Gaussian(sigma=8.0, sensitivity=2.0)))
    assert found.exact
    mu = math.hypot(1 / 3, 2 / 8)
    assert delta_of(found.epsilon, mu) == pytest.approx(DELTA, rel=1e-6)
    x = np.linspace(-40, 40, 4_000_001)  # the integral that it stands for
    p, q = (np.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (mu, 0.0))
    lost = np.maximum(p - math.exp(found.epsilon) * q, 0).sum() * (x[1] - x[0])
    assert lost == pytest.approx(DELTA, rel=1e-4)


def test_two_runs_of_two_are_less_than_four_and_more_than_two() -> None:
    run = [release(Gaussian(sigma=noise_for(2.0, DELTA, rounds=4)))] * 4
    assert figure(*run).epsilon == pytest.approx(2.0, rel=1e-9)
    both = figure(*run, *run)
    assert 2.0 < both.epsilon < 4.0
    assert both.epsilon == pytest.approx(
        spent(noise_for(2.0, DELTA, rounds=4), DELTA, rounds=8), rel=1e-9
    )


def test_nothing_spends_nothing_and_no_noise_spends_all() -> None:
    assert composed([], DELTA) == ()
    nothing = figure(release(Gaussian(sigma=5.0)), release(Gaussian(sigma=0.0)))
    assert (nothing.epsilon, nothing.exact) == (math.inf, True)
    assert epsilon(Stated(epsilon=1.0, delta=DELTA)) == math.inf, "δ is used up"
    assert epsilon(Stated(epsilon=301.0)) == math.inf


@pytest.mark.parametrize("sigma", [0.7, 2.0, 9.0])
def test_distributions_agree_with_the_exact_curve(sigma: float) -> None:
    pytest.importorskip("dp_accounting")
    tiny = Laplace(scale=1e6)  # so that the whole is convolved
    loss = epsilon(Gaussian(sigma=sigma), Gaussian(sigma=2 * sigma), tiny)
    exact = epsilon(Gaussian(sigma=sigma), Gaussian(sigma=2 * sigma))
    assert exact - 1e-9 <= loss <= exact * 1.001 + 1e-3


@pytest.mark.parametrize("count", [1, 2, 7])
def test_laplace_against_the_integral(count: int) -> None:
    """One draw: δ(ε) = 1 − e^((ε − 1/b)/2). Several: never more than their sum."""
    pytest.importorskip("dp_accounting")
    found = epsilon(*[Laplace(scale=2.0)] * count)
    assert found <= count / 2.0 + 1e-3
    if count == 1:
        assert 1 - math.exp((found - 0.5) / 2) == pytest.approx(DELTA, abs=2e-5)


@pytest.mark.parametrize(("each", "mass", "count"), [(0.5, 0.0, 3), (0.1, 1e-8, 200), (1.0, 0, 30)])
def test_stated_mechanisms_never_spend_more_than_simple_rules_say(
    each: float, mass: float, count: int
) -> None:
    pytest.importorskip("dp_accounting")
    found = epsilon(*[Stated(epsilon=each, delta=mass)] * count)
    left = DELTA - count * mass
    advanced = each * math.sqrt(2 * count * math.log(1 / left))
    advanced += count * each * math.expm1(each)
    assert found <= min(count * each, advanced) + count * 1e-3
    # Kairouz, Oh and Viswanath's optimum, by its own sum, is what is found.
    assert found == pytest.approx(_optimal(each, mass, count, DELTA), rel=0.01, abs=2e-3)


def _optimal(each: float, mass: float, count: int, delta: float) -> float:
    """Theorem 3.3 of arXiv 1311.0776: the slow, obvious version."""

    def lost(e: float) -> float:
        total = 0.0
        for k in range(count + 1):
            log_p = -count * math.log1p(math.exp(each))
            up, down = log_p + (count - k) * each, log_p + k * each + e
            if up > down:
                total += math.comb(count, k) * (math.exp(up) - math.exp(down))
        return 1 - (1 - mass) ** count * (1 - total)

    low, high = 0.0, count * each
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if lost(middle) <= delta else (middle, high)
    return high


def test_dp_sgd_as_published() -> None:
    """σ = 1.1, q = 256/60000, 60 epochs: Abadi's MNIST example of TensorFlow Privacy, ε ≈ 2.6–3."""
    pytest.importorskip("dp_accounting")
    steps = SampledGaussian(noise=1.1, rate=256 / 60_000, steps=14_062)
    assert 2.3 < epsilon(steps) < 3.01
    halves = SampledGaussian(noise=1.1, rate=256 / 60_000, steps=7_031)
    assert epsilon(halves, halves) == pytest.approx(epsilon(steps), rel=2e-3)
    one = SampledGaussian(noise=2.0, rate=1.0)
    assert epsilon(one) == pytest.approx(epsilon(Gaussian(sigma=2.0)), rel=1e-3)


@pytest.mark.parametrize(
    "mechanism",
    [
        Gaussian(sigma=4.0),
        Laplace(scale=4.0),
        SampledGaussian(noise=1.0, rate=0.01, steps=100),
        Stated(epsilon=0.5, delta=1e-9),
    ],
)
def test_releases_under_both_relations_have_one_figure_for_replacing(
    mechanism: Mechanism,
) -> None:
    pytest.importorskip("dp_accounting")
    apart = figure(release(mechanism))
    assert apart.neighbours == "add_or_remove"
    other = release(Gaussian(sigma=1e6), neighbours="replace")
    both = figure(release(mechanism), other)
    assert (both.neighbours, both.releases) == ("replace", 2)
    assert apart.epsilon < both.epsilon
    twice = {
        "Gaussian": lambda: epsilon(Gaussian(sigma=2.0)),
        "Laplace": lambda: epsilon(Laplace(scale=2.0)),
        "Stated": lambda: epsilon(Stated(epsilon=1.0, delta=(1 + math.exp(0.5)) * 1e-9)),
        "SampledGaussian": lambda: 2.5 * apart.epsilon,
    }[type(mechanism).__name__]()
    assert both.epsilon <= twice * 1.01 + 2e-3
    if not isinstance(mechanism, SampledGaussian):
        assert both.epsilon == pytest.approx(twice, rel=0.01, abs=2e-3)


def test_units_are_not_mixed() -> None:
    pytest.importorskip("dp_accounting")
    group, record = composed(
        [release(Gaussian(sigma=4.0)), release(Laplace(scale=1.0), unit="group")], DELTA
    )
    assert (group.unit, record.unit) == ("group", "record")
    assert record.epsilon == epsilon(Gaussian(sigma=4.0))


def test_without_the_package_gaussians_work_and_others_name_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    assert epsilon(Gaussian(sigma=3.0)) > 0
    with pytest.raises(ConfigError, match=r"cosilo\[dp\]"):
        epsilon(Laplace(scale=1.0))


def test_randomised_response() -> None:
    """Kept with 1/2 and drawn of 2 otherwise: 3/4 against 1/4."""
    assert randomised_response(0.5, 2).epsilon == pytest.approx(math.log(3))
    for keep, answers in ((1.0, 2), (-0.1, 2), (0.5, 1)):
        with pytest.raises(ValueError, match="no randomised response"):
            randomised_response(keep, answers)


@pytest.mark.parametrize(
    "wrong",
    [
        Gaussian(sigma=-1.0),
        Gaussian(sigma=math.nan),
        Gaussian(sigma=1.0, sensitivity=0.0),
        Laplace(scale=0.0),
        Laplace(scale=1.0, sensitivity=math.inf),
        SampledGaussian(noise=1.0, rate=1.5),
        SampledGaussian(noise=1.0, rate=0.1, steps=0),
        Stated(epsilon=math.nan),
        Stated(epsilon=1.0, delta=1.0),
    ],
)
def test_numbers_that_no_mechanism_has_are_refused(wrong: Mechanism) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(release(wrong)), type=Release)


def test_words_replaced_at_random_promise_nothing_of_a_record() -> None:
    words = WordNoise(kind="santext", epsilon=1.0, words=3, bound=6.0, vocabulary=("minilm", 100))
    assert epsilon(words) == math.inf
    assert epsilon(Gaussian(sigma=3.0), words) == math.inf
    assert epsilon(RadialNoise(eta=1e-9, clip=1.0, vectors=1)) == math.inf
