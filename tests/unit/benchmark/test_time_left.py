"""Time left: LM calls at their pace, all else as earlier trials took it."""

from __future__ import annotations

import pytest

from cosilo.benchmark.time_left import Moment, TimeLeft


def test_training_before_the_first_call_is_not_taken_for_the_pace_of_calls() -> None:
    left = TimeLeft(["distil", "large"], per_call=1.0)
    left.trial("distil", 100, calls=1000, after=100, at=Moment(0))
    # An hour of training, then the first calls: a tenth of a second each.
    at = Moment(3600 + 0.5, calls=5, busy=0.5)
    assert left.of_trial(at) == pytest.approx(99.5)
    assert left.of_run(at) == pytest.approx(99.5 + 10)


def test_before_the_first_calls_their_pace_is_the_one_known_before() -> None:
    left = TimeLeft(["large"], per_call=2.0)
    left.trial("large", 10, calls=10, after=0, at=Moment(0))
    assert left.of_run(Moment(1, calls=1, busy=1.0)) == pytest.approx(18)


def test_the_small_models_answers_take_their_own_time() -> None:
    left = TimeLeft(["small"], per_call=2.0)
    left.trial("small", 11, calls=0, after=0, at=Moment(0))
    left.answered(1, Moment(50))  # it was trained for fifty seconds
    left.answered(5, Moment(60))
    assert left.of_run(Moment(60)) == pytest.approx(10)


def test_a_later_trial_is_expected_to_take_what_one_of_its_strategy_took() -> None:
    left = TimeLeft(["small", "distil", "distil"], per_call=1.0)
    left.trial("small", 10, calls=0, after=0, at=Moment(0))
    left.trial("distil", 10, calls=0, after=0, at=Moment(4))  # so `small` took four
    assert left.of_run(Moment(4)) == pytest.approx(4 + 4)  # nothing better is known
    left.trial("distil", 10, calls=0, after=0, at=Moment(104))
    assert left.of_run(Moment(124)) == pytest.approx(80)
    left.ended(Moment(204))
    assert left.of_run(Moment(204)) == 0


def test_the_first_trial_of_a_strategy_tells_of_the_others_while_it_works() -> None:
    left = TimeLeft(["small", "router", "router", "other"], per_call=1.0)
    left.trial("small", 10, calls=0, after=0, at=Moment(0))
    left.trial("router", 10, calls=0, after=0, at=Moment(2))
    # Thirty seconds of preparing so far: the other router will take as long, at least.
    assert left.of_run(Moment(32)) == pytest.approx(0 + 30 + 2)


def test_measuring_after_the_last_answer_takes_time_too() -> None:
    left = TimeLeft(["small", "router"], per_call=1.0)
    left.trial("small", 2, calls=0, after=0, at=Moment(0))
    left.answered(2, Moment(1))
    left.trial("router", 3, calls=0, after=0, at=Moment(11))  # ten seconds of attacks
    left.answered(1, Moment(12))
    left.answered(1, Moment(13))
    assert left.of_run(Moment(13)) == pytest.approx(1 + 10)
    left.answered(1, Moment(14))
    assert left.of_run(Moment(18)) == pytest.approx(6)


def test_calls_that_answers_did_not_need_are_not_waited_for() -> None:
    left = TimeLeft(["cascade"], per_call=1.0)
    left.trial("cascade", 100, calls=100, after=0, at=Moment(0))
    left.answered(80, Moment(10, calls=10, busy=10.0))
    assert left.of_trial(Moment(10, calls=10, busy=10.0)) == pytest.approx(20)
    left.answered(20, Moment(12, calls=12, busy=12.0))
    assert left.of_run(Moment(12, calls=12, busy=12.0)) == 0


def test_the_pace_of_calls_is_that_of_the_last_ones() -> None:
    left = TimeLeft(["large"], per_call=1.0)
    left.trial("large", 200, calls=200, after=0, at=Moment(0))
    for calls in range(1, 51):  # a second each, on a machine that does nothing else
        left.answered(1, Moment(calls, calls=calls, busy=float(calls)))
        left.of_run(Moment(calls, calls=calls, busy=float(calls)))
    for calls in range(51, 101):  # and then four
        busy = 50 + 4.0 * (calls - 50)
        left.answered(1, Moment(busy, calls=calls, busy=busy))
        left.of_run(Moment(busy, calls=calls, busy=busy))
    assert left.of_run(Moment(250, calls=100, busy=250.0)) == pytest.approx(400)


def test_finished_trials_are_no_work() -> None:
    left = TimeLeft(["large"], per_call=3.0)  # nine others were done by an earlier process
    left.trial("large", 4, calls=4, after=0, at=Moment(0))
    assert left.of_run(Moment(0)) == pytest.approx(12)
