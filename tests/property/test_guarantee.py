"""The tests of a promise hold their level: against every way the losses can be drawn."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.pvalues import ahead_p, binomial_p
from cosilo.strategies.inference.guarantee import Promise, safe_threshold, steps_from


@given(
    n=st.integers(1, 30),
    ahead=st.integers(1, 30),
    alpha=st.floats(0.02, 0.95),
    delta=st.sampled_from([0.05, 0.2]),
    share=st.floats(0, 1),
)
def test_what_is_ahead_is_rarely_worse_than_promised(
    n: int, ahead: int, alpha: float, delta: float, share: float
) -> None:
    total = round(share * (n + ahead))  # so many losses among all; the order is random
    broken = 0.0
    for seen in range(max(0, total - ahead), min(n, total) + 1):
        chance = comb(n, seen) * comb(ahead, total - seen) / comb(n + ahead, total)
        if total - seen > alpha * ahead + 1e-9 and ahead_p(seen, n, alpha, ahead) <= delta:
            broken += chance
    assert broken <= delta + 1e-9


@given(losses=st.integers(0, 20), n=st.integers(20, 60), alpha=st.floats(0.05, 0.9))
def test_very_many_ahead_are_the_long_run(losses: int, n: int, alpha: float) -> None:
    assert ahead_p(losses, n, alpha, 10_000_000) == pytest.approx(
        binomial_p(losses, n, alpha), abs=1e-3
    )


@pytest.mark.parametrize("worth", [0.0, 1.5])
def test_thresholds_break_their_promise_no_more_often_than_stated(worth: float) -> None:
    """Scores that say nothing, and good ones; the truth is known from many items."""
    rng = np.random.default_rng(0)
    promise, broken, kept = Promise(wrong=0.3, delta=0.1), 0, 0.0
    trials = 300
    truth = rng.normal(size=100_000)
    wrong = rng.random(100_000) < 1 / (1 + np.exp(worth * truth + 0.7))
    for _ in range(trials):
        others, tested = rng.integers(0, 100_000, 150), rng.integers(0, 100_000, 250)
        steps = steps_from(truth[others], wrong[others], promise, 250)
        found = safe_threshold(truth[tested], wrong[tested], promise, steps=steps)
        inside = truth >= found.threshold
        kept += inside.mean() / trials
        broken += bool(inside.any() and wrong[inside].mean() > promise.wrong)
    # P(Bin(300, 0.1) > 42) < 0.01
    assert broken <= 42
    assert worth == 0 or kept > 0.3
