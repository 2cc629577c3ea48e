"""What places in clear read of a span in secret tells which tokens it has."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.attacks.reads import reads, span_in
from cosilo.engines.llama import Llama
from joint_llama import small_llama

BEFORE, AFTER = [3, 1, 4, 1, 5], [9, 2, 6]


@pytest.fixture(scope="module")
def model() -> Llama:
    return small_llama(layers=1, seed=3)


def test_they_are_what_the_first_layer_adds_before_its_last_product(model: Llama) -> None:
    from cosilo.engines.llama import forward

    ids = [*BEFORE, 7, *AFTER]
    _, before = forward(model, model.table[ids])
    seen = reads(model, ids, 5)
    assert seen.shape == (4, 4, 4)
    added = (before[1] - before[0])[5:]
    np.testing.assert_allclose(seen.reshape(4, -1) @ model.out[0], added, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_the_span_is_found_by_what_comes_after_it(model: Llama, tokens: int) -> None:
    drawn = np.random.default_rng(tokens)
    found = 0
    for _ in range(10):
        span = drawn.integers(0, 50, tokens).tolist()
        seen = reads(model, [*BEFORE, *span, *AFTER], len(BEFORE) + tokens)
        said = span_in(model, seen.astype(np.float32), BEFORE, tokens, AFTER)
        found += said.ids == span
    assert found >= 9


def test_tokens_that_change_places_are_told_apart(model: Llama) -> None:
    for span in ([8, 30, 44], [44, 8, 30], [30, 44, 8]):
        seen = reads(model, [*BEFORE, *span, *AFTER], 8)
        said = span_in(model, seen.astype(np.float32), BEFORE, 3, AFTER)
        assert said.ids == span
        assert said.off < 0.01


def test_what_says_nothing_of_the_span_is_no_fit(model: Llama) -> None:
    seen = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    assert span_in(model, seen, BEFORE, 2, AFTER).off > 0.1
