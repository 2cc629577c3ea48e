"""What is said of how long a run will take, and that it is said."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cosilo.benchmark import progress
from cosilo.benchmark.progress import Bars, Lines, RunSpent, clock

SPENT = RunSpent(calls=2, usd=0.5)


def test_lines_say_how_far_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 4.0, 12.0))
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin(2, 20)
    lines.trial("large", 10)
    lines.advance(1, SPENT, 90.0, 40.0)  # too soon after the start to be said
    lines.advance(1, SPENT, 48.0, 20.0)
    said = stream.getvalue().splitlines()
    assert said == [
        "trial 1/2: large (10 answers)",
        "2/20 answers, 2 calls, $0.5000 so far, about 48 s left",
    ]


def test_bars_show_this_trial_and_the_whole_run() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bars = Bars(console)
    bars.begin(2, 20)
    bars.trial("large", 10)
    assert bars._bars.tasks[1].fields["left"] == ""
    bars.advance(3, SPENT, 80.0, 35.0)
    total, trial = bars._bars.tasks
    assert (total.completed, total.total, total.fields["left"]) == (3, 20, "80 s")
    assert (trial.completed, trial.total, trial.fields["left"]) == (3, 10, "35 s")
    assert trial.description == "1/2 large"
    assert total.fields["spent"] == "2 calls, $0.5000"
    bars.end()


def test_a_reader_is_told_minutes_and_hours() -> None:
    assert [clock(s) for s in (8, 89.6, 120, 5_400)] == ["8 s", "90 s", "2 min", "1.5 h"]
