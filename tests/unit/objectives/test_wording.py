"""Numbers are written as people read them."""

from __future__ import annotations

import pytest

from cosilo.objectives.base import Objective
from cosilo.objectives.wording import amount, label, wanted

LEAK = Objective("entity_leak", "privacy", "min", "share")
MONEY = Objective("usd_per_1k", "efficiency", "min", "USD per 1,000 requests", None)
TAIL = Objective("latency_p95_ms", "efficiency", "min", "ms", None, 0.95)
UTILITY = Objective("utility", "utility", "max", "share")


@pytest.mark.parametrize(
    ("objective", "value", "text"),
    [
        (LEAK, 0.02, "2 %"),
        (LEAK, 0.1234, "12.3 %"),
        (MONEY, 0.4, "$0.40"),
        (MONEY, 0.0123, "$0.012"),
        (MONEY, 0, "$0.00"),
        (TAIL, 812.34, "812.3 ms"),
        (TAIL, 12345.6, "12,346 ms"),
    ],
)
def test_amounts(objective: Objective, value: float, text: str) -> None:
    assert amount(objective, value) == text


def test_limits() -> None:
    assert label(LEAK) == "entity leak"
    assert wanted(LEAK, 0.02) == "entity leak ≤ 2 %"
    assert wanted(UTILITY, 0.95, "large") == "utility ≥ 0.95 × large"
    assert wanted(MONEY, 0.4) == "at most $0.40 per 1,000 requests"
    assert wanted(TAIL, 800) == "latency ≤ 800 ms for 95 % of requests"
