"""What is said of how long a run will take, and that it is said."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cosilo.benchmark import progress
from cosilo.benchmark.progress import Bars, Left, Lines, clock


def test_time_goes_by_the_calls_while_there_are_any_to_come() -> None:
    left = Left(items=700, calls=100, now=0.0)
    # The small model's hundred answers took no time; each of the large one's takes ten seconds.
    assert left.seconds(100, 0, 1.0) == pytest.approx(6)
    assert left.seconds(110, 10, 100.0) == pytest.approx(10 * 100 * 590 / 700)
    assert left.seconds(200, 99, 990.0) == pytest.approx(10)


def test_calls_that_were_not_needed_are_not_waited_for() -> None:
    left = Left(items=1000, calls=1000, now=0.0)
    assert left.seconds(500, 100, 1000.0) == pytest.approx(5000)
    assert left.seconds(1000, 200, 2000.0) == 0


def test_once_all_calls_were_made_the_other_answers_are_as_fast_as_they_are() -> None:
    left = Left(items=700, calls=100, now=0.0)
    left.seconds(200, 100, 1000.0)
    assert left.seconds(300, 100, 1002.0) == pytest.approx(8)
    assert left.seconds(700, 100, 1010.0) == 0


def test_without_calls_it_goes_by_the_answers() -> None:
    left = Left(items=40, calls=0, now=5.0)
    assert left.seconds(10, 0, 15.0) == pytest.approx(30)


def test_lines_say_how_far_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 4.0, 12.0))
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin(2, 20, 10)
    lines.trial("large", 10)
    lines.advance(1, 1, 0.25)  # too soon after the start to be said
    lines.advance(1, 2, 0.5)
    said = stream.getvalue().splitlines()
    assert said == [
        "trial 1/2: large (10 answers)",
        "2/20 answers, 2 calls, $0.5000 so far, about 48 s left",
    ]


def test_bars_show_this_trial_and_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 10.0, 20.0))  # of the start, and of both advances
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bars = Bars(console)
    bars.begin(2, 20, 20)
    bars.trial("large", 10)
    bars.advance(1, 2, 0.25)  # what came before it, preparing, is not taken for an answer's time
    assert bars._bars.tasks[1].fields["left"] == ""
    bars.advance(2, 4, 0.5)
    total, trial = bars._bars.tasks
    assert (total.completed, total.total, total.fields["left"]) == (3, 20, "80 s")
    assert (trial.completed, trial.total, trial.fields["left"]) == (3, 10, "35 s")
    assert trial.description == "1/2 large"
    assert total.fields["spent"] == "4 calls $0.5000"
    bars.end()


def test_a_reader_is_told_minutes_and_hours() -> None:
    assert [clock(s) for s in (8, 89.6, 120, 5_400)] == ["8 s", "90 s", "2 min", "1.5 h"]
