"""What a client may take: reserved before, settled after, in all and by the day."""

from __future__ import annotations

import pytest

from cosilo.errors import BudgetExceededError
from cosilo.host.limits import ClientAccount, ClientLimits, Taken


def account(
    total: ClientLimits | None = None, day: ClientLimits | None = None, **more: object
) -> ClientAccount:
    before = {"before": Taken(), "today": Taken(), "held": Taken(), **more}
    return ClientAccount("clinic", total or ClientLimits(), day or ClientLimits(), **before)  # type: ignore[arg-type]


def test_what_is_set_aside_counts_until_it_is_settled() -> None:
    one = account(ClientLimits(logits=10))
    one.hold(Taken(logits=6))
    with pytest.raises(BudgetExceededError, match="10 logits in all; 6 are taken or set aside"):
        one.hold(Taken(logits=5))
    one.settle(Taken(logits=6), Taken(logits=1))
    one.hold(Taken(logits=9))
    assert not one.fits(Taken(logits=1))
    assert one.fits(Taken(states=99))


def test_what_was_set_aside_when_the_host_died_counts() -> None:
    one = account(ClientLimits(usd=1.0), before=Taken(usd=0.4), held=Taken(usd=0.5))
    assert not one.fits(Taken(usd=0.2))
    one.settle(Taken(usd=0.5), Taken(usd=0.1))
    assert one.fits(Taken(usd=0.5))


def test_a_day_ends_and_a_clock_put_back_begins_none() -> None:
    now = [86400.0 * 10]
    one = account(day=ClientLimits(messages=1), clock=lambda: now[0])
    one.hold(Taken(messages=1))
    one.settle(Taken(messages=1), Taken(messages=1))
    with pytest.raises(BudgetExceededError, match="1 messages a day"):
        one.hold(Taken(messages=1))
    now[0] -= 86400
    assert not one.fits(Taken(messages=1))
    now[0] += 2 * 86400
    assert one.fits(Taken(messages=1))


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_limit_is_a_number(wrong: float) -> None:
    with pytest.raises(ValueError, match="is no limit"):
        ClientLimits(usd=wrong)
