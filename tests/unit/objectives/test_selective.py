"""Shares of the answers that a point chose to give, or to give at home."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cosilo.objectives import item_values, measure_all
from cosilo.objectives.base import Measurement, Run

C = Any  # the `Crossing` class of this folder's conftest, handed over by its fixture
MakeRun = Callable[..., Run]


def measured(run: Run) -> dict[str, Measurement]:
    return {m.objective.name: m for m in measure_all(run)}


def test_what_is_wrong_at_home_is_counted_among_what_is_kept(
    crossing: C, make_run: MakeRun
) -> None:
    run = make_run(
        [
            crossing("a", grade=1, by="small"),
            crossing("b", grade=0, by="small"),
            crossing("c", grade=0, by="large", sent="c"),
            crossing("d", grade=1, by="large", sent="d"),
        ]
    )
    found = measured(run)
    assert (found["wrong_at_home"].value, found["wrong_at_home"].n) == (0.5, 2)
    values = item_values(run)["wrong_at_home"]
    assert np.array_equal(values, [0, 1, np.nan, np.nan], equal_nan=True)
    assert "answered" not in found  # nothing was abstained from
    assert "wrong_answered" not in found


def test_what_is_abstained_from_is_no_answer(crossing: C, make_run: MakeRun) -> None:
    run = make_run(
        [
            crossing("a", grade=1, sent="a"),
            crossing("b", grade=0, sent="b"),
            crossing("c", grade=0, sent="c", abstained=True, reply=""),
            crossing("d", grade=0, by="small", abstained=True, reply=""),
        ]
    )
    found = measured(run)
    assert found["answered"].value == pytest.approx(0.5)
    assert (found["wrong_answered"].value, found["wrong_answered"].n) == (0.5, 2)
    assert "wrong_at_home" not in found
    assert found["utility"].value == pytest.approx(0.25)


def test_nothing_is_said_where_nothing_was_kept(crossing: C, make_run: MakeRun) -> None:
    assert "wrong_at_home" not in measured(make_run([crossing("a", sent="a")]))
