"""A breaker opens on too many failures, tries again one call at a time, and closes on success."""

from __future__ import annotations

import pytest

from cosilo.gateway.refusals import BreakerOpenError
from cosilo.gateway.serving.breaker import Breaker, BreakerConfig


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(**settings: float) -> tuple[Breaker, Clock]:
    clock = Clock()
    config = BreakerConfig(
        **{"consecutive": 3, "window": 10, "cooldown": 5, "longest": 15, **settings}
    )  # type: ignore[arg-type]
    return Breaker("lm", config, clock=clock, jitter=lambda: 1.0), clock


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(breaker.admit())


def test_failures_in_a_row_open_it() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(BreakerOpenError, match="'lm'") as caught:
        breaker.admit()
    assert caught.value.retry_after == 5.0


def test_a_success_between_starts_the_row_anew() -> None:
    breaker, _ = make(rate=1.0)
    for _ in range(20):
        fail(breaker, 2)
        breaker.succeeded(breaker.admit())
    assert breaker.state == "closed"


def test_a_rate_of_failures_opens_it_once_the_window_is_full() -> None:
    breaker, _ = make(rate=0.5)
    for i in range(9):
        call = breaker.admit()
        breaker.failed(call) if i % 2 else breaker.succeeded(call)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


def test_after_the_cooldown_one_probe_goes_through_at_a_time() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now = 4.9
    assert not breaker.willing
    clock.now = 5.0
    assert breaker.state == "half-open"
    assert breaker.willing
    probe = breaker.admit()
    assert not breaker.willing
    with pytest.raises(BreakerOpenError):
        breaker.admit()
    breaker.released(probe)  # the probe's client left: that says nothing
    breaker.succeeded(breaker.admit())
    assert breaker.state == "closed"
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_failed_probes_double_the_cooldown_up_to_the_longest() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    for wait in (5, 10, 15, 15):
        clock.now += wait - 0.1
        assert breaker.state == "open"
        clock.now += 0.1
        assert breaker.state == "half-open"
        breaker.failed(breaker.admit())
    clock.now += 15
    breaker.succeeded(breaker.admit())
    fail(breaker, 3)
    clock.now += 5
    assert breaker.state == "half-open"  # a success sets the doubling back


def test_calls_from_before_it_opened_change_nothing() -> None:
    breaker, clock = make()
    old = [breaker.admit() for _ in range(4)]
    fail(breaker, 3)
    breaker.succeeded(old[0])
    assert breaker.state == "open"
    clock.now = 5
    probe = breaker.admit()
    for end, call in zip((breaker.released, breaker.succeeded, breaker.failed), old, strict=False):
        end(call)
        assert breaker.state == "half-open"
        assert not breaker.willing  # the probe's place is the probe's
    breaker.failed(probe)
    assert breaker.state == "open"


def test_an_old_call_that_fails_after_the_upstream_came_back_does_not_count() -> None:
    breaker, clock = make(consecutive=1)
    old = breaker.admit()
    fail(breaker, 1)
    clock.now = 5
    breaker.succeeded(breaker.admit())
    breaker.failed(old)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


def test_cooldowns_are_jittered() -> None:
    clock = Clock()
    waits = set()
    for _ in range(20):
        breaker = Breaker("lm", BreakerConfig(consecutive=1, cooldown=5), clock=clock)
        fail(breaker, 1)
        with pytest.raises(BreakerOpenError) as caught:
            breaker.admit()
        waits.add(caught.value.retry_after)
        assert 4 <= caught.value.retry_after <= 6
    assert len(waits) > 10


@pytest.mark.parametrize("wrong", [{"consecutive": 0}, {"rate": 0}, {"rate": 2}, {"cooldown": 20}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)
