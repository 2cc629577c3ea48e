"""The estimate of what drafts bring, against the closed forms and against a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.strategies.inference.speculation import Speeds, at, best, constant, kept, payoff


def speeds(alpha: float, length: int = 8, **options: float) -> Speeds:
    times = {"draft_s": 0.01, "token_s": 0.1, "round_trip_s": 0.05}
    drafted = tuple(float(n) for n in range(1, length + 1))
    return Speeds(survival=constant(alpha, length), drafted=drafted, **times | options)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 0.99])
@pytest.mark.parametrize("length", [1, 4, 8])
def test_tokens_a_crossing_are_leviathans(alpha: float, length: int) -> None:
    found = payoff(speeds(alpha), length)
    assert found.tokens_per_crossing == pytest.approx((1 - alpha ** (length + 1)) / (1 - alpha))


def test_survival_is_the_share_of_drafts_that_were_kept_so_far() -> None:
    assert kept([0, 1, 3, 3], 4) == (0.75, 0.5, 0.5, 0.0)


@pytest.mark.parametrize("round_trip", [0.0, 0.02, 0.1, 0.4])
@pytest.mark.parametrize("alpha", [0.2, 0.6, 0.9])
def test_the_gain_is_that_of_a_simulation(alpha: float, round_trip: float) -> None:
    length, tokens = 5, 400
    told = speeds(alpha, round_trip_s=round_trip, more_s=0.004, prompt_s=0.3)
    rng, alone, drafted = np.random.default_rng(1), 0.0, 0.0
    for _ in range(40):
        alone += round_trip + 0.3 + tokens * 0.1
        drafted, written = drafted + 0.3, 0
        while written < tokens:
            right = rng.random(length) < alpha
            written += 1 + (length if right.all() else int(np.argmin(right)))
            drafted += round_trip + length * 0.01 + 0.1 + length * 0.004
    found = payoff(told, length, tokens)
    assert found.gain == pytest.approx(alone / drafted, rel=0.03)
    assert found.pays == (alone > drafted)


def test_at_the_round_trip_that_breaks_even_nothing_is_gained_and_behind_it_something_is_lost() -> (
    None
):
    told = speeds(0.7)
    even = payoff(told, 4, 100).break_even_s
    assert even > 0
    assert payoff(at(told, round_trip_s=even), 4, 100).gain == pytest.approx(1)
    assert not payoff(at(told, round_trip_s=1.1 * even), 4, 100).pays
    assert payoff(at(told, round_trip_s=0.9 * even), 4, 100).pays
    assert payoff(speeds(0.1, draft_s=0.2), 4).break_even_s < 0, "no road is short enough"


def test_what_the_owner_gains_is_that_somebody_else_drafts() -> None:
    found = payoff(speeds(0.8), 4)
    assert found.owner_gain == pytest.approx(found.tokens_per_crossing)
    assert found.apart_gain == pytest.approx(1 + 4 * 0.01 / 0.1)


def test_the_best_length_goes_by_the_round_trip_and_by_what_is_kept() -> None:
    near, far = best(speeds(0.6, round_trip_s=0.0)), best(speeds(0.6, round_trip_s=1.0))
    assert near.length < far.length
    assert best(speeds(0.05)).length == 1
    assert best(speeds(0.6)).gain == max(payoff(speeds(0.6), n).gain for n in range(1, 9))


def test_prices() -> None:
    told = speeds(0.5, usd_token=2e-6, usd_crossing=1e-6, usd_drafted=0.5e-6)
    assert payoff(told, 2).usd == pytest.approx((1e-6 + 2 * 0.5e-6) / 1.75 / 2e-6)
    assert payoff(speeds(0.5), 2).usd == 1.0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and 8"):
        payoff(speeds(0.5), 9)
    with pytest.raises(ValueError, match="same lengths"):
        Speeds(survival=(0.5,), drafted=(), draft_s=0, token_s=1)
