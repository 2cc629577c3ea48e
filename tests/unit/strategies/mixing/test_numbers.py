"""Log-probabilities completed from a few, and drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.boundary.wire.logits import TopK, top_k
from cosilo.errors import RejectedError
from cosilo.strategies.mixing.numbers import completed, drawn, normalised, require_drawable
from cosilo.types import Sampling


def row(seed: int, size: int = 12) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=size) * 2
    return normalised(logits)


def told(logprobs: np.ndarray, k: int) -> TopK:
    return top_k(logprobs[None].astype(np.float32), k)


def test_with_every_token_told_it_is_what_was_told() -> None:
    large, prior = row(0), row(1)
    assert np.allclose(completed(told(large, 12), 0, prior), large, atol=1e-5)


@pytest.mark.parametrize("k", [1, 4, 11])
def test_the_rest_is_spread_as_the_prior_spreads_it(k: int) -> None:
    large, prior = row(0), row(1)
    found = completed(told(large, k), 0, prior)
    assert np.isclose(np.exp(found).sum(), 1.0, atol=1e-5)
    known = np.argsort(-large)[:k]
    assert np.allclose(found[known], large[known], atol=1e-5)
    others = np.setdiff1d(np.arange(12), known)
    apart = found[others] - prior[others]
    assert np.allclose(apart, apart[0])
    assert np.isclose(np.exp(found[others]).sum(), np.exp(large[others]).sum(), atol=1e-5)


def test_tokens_that_only_the_large_models_padding_has_are_left_out() -> None:
    found = completed(told(row(0, 14), 14), 0, row(1))
    assert len(found) == 12


def test_greedy_takes_the_first_of_equals() -> None:
    assert drawn(np.log([0.2, 0.4, 0.4]), Sampling(), 0.99) == 1


def test_what_is_drawn_follows_the_distribution_at_the_temperature() -> None:
    p = np.array([0.5, 0.3, 0.2])
    warm = p**0.5 / (p**0.5).sum()
    chances = (np.arange(10_000) + 0.5) / 10_000
    sampling = Sampling(temperature=2.0)
    counts = np.bincount([drawn(np.log(p), sampling, c) for c in chances], minlength=3)
    assert np.allclose(counts / 10_000, warm, atol=1e-3)


@pytest.mark.parametrize(
    ("sampling", "stay"),
    [
        (Sampling(temperature=1.0, top_p=0.7), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.0), {0}),
        (Sampling(temperature=1.0, fields=(("top_k", "2"),)), {0, 1}),
        (Sampling(temperature=1.0, fields=(("min_p", "0.5"),)), {0, 1}),
        (Sampling(temperature=1.0), {0, 1, 2}),
    ],
)
def test_only_the_likeliest_stay(sampling: Sampling, stay: set[int]) -> None:
    p = np.log([0.5, 0.3, 0.2])
    assert {drawn(p, sampling, c) for c in np.linspace(0, 0.999, 200)} == stay


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(tools="[]"),
        Sampling(response_format="{}"),
        Sampling(fields=(("presence_penalty", "1"),)),
    ],
)
def test_what_cannot_be_honoured_is_refused(sampling: Sampling) -> None:
    with pytest.raises(RejectedError):
        require_drawable(sampling)


def test_a_row_without_anything_possible_is_no_distribution() -> None:
    with pytest.raises(ValueError, match="possible"):
        normalised(np.full(3, -np.inf))
