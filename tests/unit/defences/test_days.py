"""Days of the year, where a plan asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.days import DayDetector
from cosilo.defences.hiding import Hiding
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.types import user


def found(text: str) -> list[str]:
    return [text[s.start : s.end] for s in DayDetector().detect(text)]


@pytest.mark.parametrize(
    "day",
    [
        *("03/14/2024", "3/14/24", "14.03.2024", "2024-03-14", "14-3-2024", "3/14"),
        *("March 14, 2024", "March 14", "14 Mar 2024", "the 14th of March".removeprefix("the ")),
        *(
            "14. März 2024",
            "14 marzo 2024",
            "14 de março de 2024",
            "1er avril 2024",
            "14 marca 2024",
        ),
    ],
)
def test_days_are_found_in_many_forms(day: str) -> None:
    assert day in found(f"He was admitted {day} and went home.")
    assert day in found(f"Admitted {day}.")


@pytest.mark.parametrize(
    "text",
    [
        "in 2024 as in March 2024",
        "1/2 tablet, 3/4 cup",
        "version 1.2.3, 192.168.1.12 and 10.12.24.7",
        "a score of 12/99 and 25/31",
        "path/12/24 and 3/4/5/6",
        "24 hours, May we?",
    ],
)
def test_years_fractions_and_versions_are_no_days(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("dates", [False, True])
async def test_they_are_hidden_only_where_the_plan_says_so(dates: bool, tmp_path: Path) -> None:
    defence = Pseudonym(detectors=["patterns"], dates=dates, key_file=tmp_path / "key")
    assert isinstance(defence.hiding, Hiding)
    (spans,) = await defence.hiding.spans(Ask(chat=user("The parcel left on March 14, 2024.")))
    assert [s.kind for s in spans] == (["EVENT_DATE"] if dates else [])
