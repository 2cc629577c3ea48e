"""Every strategy that ships keeps the strategy contract."""

from __future__ import annotations

from cosilo.strategies.base import Strategy, strategies
from cosilo.testing import StrategyContract


class TestSmall(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("small")


class TestLarge(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("large")


class TestCascadeChoosesItsThreshold(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade")


class TestCascadeWithAShareOfCalls(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade", calls=0.5)


class TestCascadeThatAlwaysAsks(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade", threshold=1.0)


class TestRouter(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("router", calls=0.5)


class TestSuperICL(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("supericl")


class TestDistilLabels(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("distil_labels")


class TestDistilThenCascade(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("distil_labels", then="cascade", then_options={"calls": 0.3})


def test_every_registered_strategy_is_under_contract() -> None:
    covered = {
        "small", "large", "cascade", "router", "supericl", "distil_labels",
    }  # fmt: skip
    assert set(strategies.names()) == covered
