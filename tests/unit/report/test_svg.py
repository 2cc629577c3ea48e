"""The front as a picture: every point in its place, limits, the best of both axes."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_up
from cosilo.errors import ConfigError
from cosilo.objectives.base import Measurement
from cosilo.report.axes import axis, known_on, staircase
from cosilo.report.svg import front_svg
from cosilo.selection import Point

SVG = "{http://www.w3.org/2000/svg}"


def marks(picture: ET.Element) -> dict[str, tuple[float, float]]:
    found = {}
    for group in picture.iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        path = group.find(f"{SVG}path")
        assert title is not None
        assert path is not None
        h, v = re.findall(r"[\d.]+", path.attrib["transform"])
        found[str(title.text).partition(": ")[0]] = (float(h), float(v))
    return found


def test_every_point_stands_where_its_numbers_say() -> None:
    report = made_up.report()
    places = marks(ET.fromstring(front_svg(report)))
    assert set(places) == {p.name for p in report.points}
    for a in report.points:
        for b in report.points:
            (ha, va), (hb, vb) = places[a.name], places[b.name]
            if a.test["usd_per_1k"].value < b.test["usd_per_1k"].value:
                assert ha < hb
            if a.test["utility"].value < b.test["utility"].value:
                assert va >= vb


def test_the_limit_of_an_axis_is_drawn() -> None:
    report = made_up.report()
    assert "utility ≥ 0.95 × large" in front_svg(report)
    assert "privacy ≤ 5 %" in front_svg(report, x="privacy")
    assert "privacy ≤ 5 %" not in front_svg(report, x="calls")


def test_an_unknown_objective_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'privacy'"):
        front_svg(made_up.report(), x="privcy")


def test_a_front_needs_two_objectives() -> None:
    with pytest.raises(ConfigError, match="two objectives"):
        front_svg(made_up.report((), limits=()))


@pytest.mark.parametrize("x", ["usd_per_1k", "privacy", "exposure"])
def test_the_staircase_is_what_no_point_beats(x: str) -> None:
    found = known_on(made_up.report().points, x, "utility")
    best = {(a.value, b.value) for a, b in staircase(found)}
    for _, a, b in found:
        beaten = any(
            c.value <= a.value and d.value >= b.value and (c.value, d.value) != (a.value, b.value)
            for _, c, d in found
        )
        assert ((a.value, b.value) in best) == (not beaten)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_the_staircase_of_ties(places: list[tuple[int, int]]) -> None:
    found = [
        (
            Point("", "", ""),
            Measurement(made_up.USD, a, 1, a, a),
            Measurement(made_up.UTILITY, b, 1, b, b),
        )
        for a, b in places
    ]
    best = [(x.value, y.value) for x, y in staircase(found)]
    assert best == sorted(
        (a, b)
        for a, b in places
        if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in places)
    )


def test_a_corner_of_the_line_is_reached_by_a_point() -> None:
    picture = ET.fromstring(front_svg(made_up.report()))
    (line,) = (p for p in picture.iter(f"{SVG}path") if p.get("fill") == "none")
    at = [float(n) for n in re.findall(r"[\d.]+", line.attrib["d"])]
    path, (h, v) = line.attrib["d"], at[:2]
    places = marks(picture).values()
    for step, to in re.findall(r"([HV])([\d.]+)", path):
        h, v = (float(to), v) if step == "H" else (h, float(to))
        # Cheaper is to the left, better is up: some point is both at least.
        assert any(a <= h + 0.2 and b <= v + 0.2 for a, b in places)


@given(st.lists(st.floats(-1e9, 1e9).map(lambda v: round(v, 6)), max_size=20))
def test_an_axis_holds_all_values_between_round_numbers(values: list[float]) -> None:
    found = axis(values)
    assert found.low < found.high
    for value in values:
        assert found.low <= value <= found.high
    assert 1 <= len(found.ticks) <= 7
    assert all(found.low <= t <= found.high for t in found.ticks)
    if values and min(values) >= 0:
        assert min(found.ticks) >= 0


def test_values_that_are_no_numbers_do_not_stretch_an_axis() -> None:
    assert axis([math.inf, math.nan, 1.0, 2.0]) == axis([1.0, 2.0])
