"""Composition never states less for more, and never less than a slow version of the same."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.privacy.composition import composed
from cosilo.privacy.mechanisms import Gaussian, Laplace, Release, SampledGaussian, Stated

DELTA = 1e-6

gaussians = st.builds(
    Gaussian, sigma=st.floats(0.5, 50), sensitivity=st.sampled_from([1.0, math.sqrt(2), 3.0])
)
others = st.one_of(
    st.builds(Laplace, scale=st.floats(0.5, 50)),
    st.builds(Stated, epsilon=st.floats(0, 2), delta=st.sampled_from([0.0, 1e-9])),
    st.builds(
        SampledGaussian,
        noise=st.floats(0.7, 4),
        rate=st.floats(0.001, 1),
        steps=st.integers(1, 20),
    ),
)
related = st.sampled_from(["add_or_remove", "replace"])


def releases(mechanisms: st.SearchStrategy[object], **sizes: int) -> st.SearchStrategy[object]:
    return st.lists(st.builds(Release, mechanism=mechanisms, neighbours=related), **sizes)  # type: ignore[arg-type]


def epsilon(some: list[Release], delta: float = DELTA) -> float:
    return composed(some, delta)[0].epsilon


@given(some=releases(gaussians, min_size=1, max_size=6), more=releases(gaussians, max_size=3))
def test_more_gaussians_never_spend_less_and_never_more_than_their_sum(
    some: list[Release], more: list[Release]
) -> None:
    every = [*some, *more]
    both = epsilon(every)
    assert both >= epsilon(some) * (1 - 1e-9)
    relation = composed(every, DELTA)[0].neighbours
    apart = []
    for release in every:
        mechanism = release.mechanism
        assert isinstance(mechanism, Gaussian)
        moved = mechanism.sensitivity * (2 if release.neighbours != relation else 1)
        alone = Release(mechanism=Gaussian(sigma=mechanism.sigma, sensitivity=moved))
        apart.append(epsilon([alone], DELTA / len(every)))
    assert both <= sum(apart) * (1 + 1e-9), "basic composition"


@given(some=releases(gaussians, min_size=1, max_size=5))
def test_the_order_of_gaussians_does_not_matter(some: list[Release]) -> None:
    assert epsilon(some) == pytest.approx(epsilon(some[::-1]), rel=1e-9)
    assert epsilon(some, 1e-3) <= epsilon(some, 1e-8)


@settings(max_examples=15)
@given(
    some=releases(st.one_of(gaussians, others), min_size=1, max_size=3),
    more=releases(others, min_size=1, max_size=2),
)
def test_more_of_any_mechanism_never_spends_less(some: list[Release], more: list[Release]) -> None:
    pytest.importorskip("dp_accounting")
    before, after = epsilon(some), epsilon([*some, *more])
    assert after >= before * (1 - 0.01) - 5e-3, "up to what the table rounds"
