"""Which candidate is within the limits, and which of those is chosen: no model is needed for that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosilo.benchmark.leak_limit.candidates import (
    HomeLimits,
    LeakCandidate,
    TokenLeak,
    chosen,
    nearest,
    point_text,
    rows,
)
from cosilo.objectives.intervals import wilson

LIMITS = HomeLimits(memory=10**9, ms=100.0, leak=0.3)
GOOD = LeakCandidate(
    options={"layers": 4, "rank": 4}, precision="float32", memory=10**8, ms=50.0, size=600, per="token",
    nats=0.01, leak=TokenLeak(2, 90, 0.05),
)  # fmt: skip


def test_a_leak_is_what_goes_beyond_the_base() -> None:
    leak = TokenLeak(45, 90, 0.2)
    assert leak.value == pytest.approx((0.5 - 0.2) / 0.8)
    assert leak.interval == pytest.approx(tuple((x - 0.2) / 0.8 for x in wilson(45, 90)))
    assert TokenLeak(1, 90, 0.2).value == 0.0
    assert TokenLeak(90, 90, 0.2).value == 1.0
    assert TokenLeak(90, 90, 1.0).value == 0.0  # nothing was left to learn


def test_the_upper_end_of_a_leak_counts() -> None:
    leak = TokenLeak(26, 90, 0.0)
    assert leak.value < 0.3 < leak.interval[1]
    assert LIMITS.broken(replace(GOOD, leak=leak)) == ["leak"]
    assert not LIMITS.broken(GOOD)


def test_a_leak_that_was_not_measured_is_within_no_limit() -> None:
    unknown = replace(GOOD, leak=None, failed="ModelError")
    assert HomeLimits(10**12, 1e9, 1.0).broken(unknown) == ["leak not measured"]
    assert chosen([unknown], HomeLimits(10**12, 1e9, 1.0)) is None
    assert nearest([unknown], LIMITS) is None
    assert rows([unknown], LIMITS)[0][-2:] == ["–", "leak not measured"]


def test_time_and_memory_and_what_is_no_number() -> None:
    assert LIMITS.broken(replace(GOOD, memory=2 * 10**9)) == ["memory"]
    assert LIMITS.broken(replace(GOOD, ms=101.0)) == ["time"]
    assert LIMITS.broken(replace(GOOD, ms=float("nan"))) == ["time"]


def test_the_model_that_is_least_the_worse_is_chosen_then_rank_bytes_and_leak() -> None:
    worse = replace(GOOD, nats=0.2, options={"layers": 1, "rank": 16})
    higher = replace(GOOD, options={"layers": 4, "rank": 16})
    smaller = replace(higher, size=300)
    safer = replace(smaller, leak=TokenLeak(0, 90, 0.05))
    assert chosen([worse, GOOD], LIMITS) is GOOD
    assert chosen([GOOD, higher], LIMITS) is higher
    assert chosen([higher, smaller], LIMITS) is smaller
    assert chosen([smaller, safer], LIMITS) is safer
    luckier = replace(GOOD, nats=-0.3)
    assert chosen([luckier, higher], LIMITS) in (luckier, higher)
    assert (
        chosen([replace(higher, nats=0.0), luckier], LIMITS) != luckier
    )  # no gain is made of noise


def test_a_shallow_head_that_leaks_more_gives_way_to_a_deeper_one() -> None:
    shallow = replace(GOOD, options={"layers": 1}, ms=10.0, leak=TokenLeak(44, 90, 0.0))
    deep = replace(GOOD, options={"layers": 8}, ms=80.0, nats=0.02, leak=TokenLeak(9, 90, 0.0))
    assert chosen([shallow, deep], replace(LIMITS, leak=0.7)) is shallow
    assert chosen([shallow, deep], LIMITS) is deep
    assert nearest([shallow, deep], replace(LIMITS, leak=0.05)) is deep


def test_rows_say_why_and_the_text_is_a_plans() -> None:
    over = replace(GOOD, memory=2 * 10**9, ms=200.0)
    shown = rows([GOOD, over], LIMITS)
    assert [row[-1] for row in shown] == ["chosen", "memory, time"]
    text = point_text("split_learning", 'model = "m"', GOOD)
    assert 'strategy = "split_learning"\nlayers = 4\nrank = 4\n' in text
