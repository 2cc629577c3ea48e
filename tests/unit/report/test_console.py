"""The console's table fits any width with names and numbers whole, and says what it leaves out."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

import made_up
from cosilo.objectives.base import Objective
from cosilo.report.console import show
from cosilo.report.data import Report
from cosilo.report.screen import Screen
from cosilo.report.words import number

LONG = "cascade-with-a-name-that-somebody-generated-from-each-and-every-setting-it-has,x=1"


class Terminal(io.StringIO):
    """A terminal that writes one character set."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def printed(report: Report, *, every: bool = False, width: int | None = 80) -> str:
    out = io.StringIO()
    show(report, screen=Screen(out, width=width), every=every)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120, None])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_every_name_and_number_is_whole_at_any_width(width: int | None, encoding: str) -> None:
    report = made_up.report((*made_up.POINTS, (LONG, *made_up.POINTS[5][1:])))
    out = Terminal(encoding)
    show(report, screen=Screen(out, width=width), every=True)
    text = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    text.encode(encoding)
    if width is not None:
        assert all(len(line) <= width for line in text.splitlines() if LONG not in line)
    numbers = set(text.replace("(", " ").replace(")", " ").split())
    for point in report.points:
        assert point.name in text
        for name in ("utility", "privacy", "usd_per_1k", "exposure", "integrity"):
            measured = point.test[name]
            assert number(measured.objective, measured.value) in numbers


def test_without_a_terminal_it_is_plain() -> None:
    assert "\x1b" not in printed(made_up.report(), every=True)


def test_a_terminal_gets_weight_and_colour_unless_it_wants_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for wanted in (True, False):
        if not wanted:
            monkeypatch.setenv("NO_COLOR", "1")
        out = Terminal()
        show(made_up.report(), screen=Screen(out, width=80))
        assert ("\x1b[" in out.getvalue()) == wanted


def test_the_headings_say_what_is_bad_and_which_way_is_better() -> None:
    said = printed(made_up.report(), width=None, every=True)
    heading = " ".join(said[: said.index("small")].split())
    assert "leak" in heading
    assert "(privacy)" in heading
    assert "harm" in heading
    assert "% ↑" in heading
    assert "% ↓" in heading
    assert "↑ more is better, ↓ less is better" in said


def test_relinking_stands_beside_what_leaked() -> None:
    report = made_up.report()
    relink = Objective("relink", "privacy", "min", "share")
    more = {"relink": made_up.measured(relink, 0.7213, 400, None)}
    points = tuple(
        replace(p, test=p.test | more, validation=p.validation | more) for p in report.points
    )
    said = printed(replace(report, points=points), every=True)
    assert "relink" in said
    assert said.count("72.1\n") + said.count("72.1 ") == len(points)


def test_only_the_front_is_shown_and_the_rest_is_counted() -> None:
    report = made_up.report()
    text = printed(report)
    rows = [line for line in text.splitlines() if line.startswith("* ") and "front" not in line]
    assert len(rows) == len(report.front) == 8
    assert "2 points not on the front left out" in " ".join(text.split())
    assert "left out" not in printed(report, every=True)


def test_the_certificate_is_said_and_the_chosen_point_marked() -> None:
    report = made_up.report(limits=((made_up.UTILITY, 0.85, None), (made_up.PRIVACY, 0.15, None)))
    assert report.certificate is not None
    assert report.chosen is not None
    text = printed(report)
    said = " ".join(text.split())
    assert report.certificate.sentence()[1:] in said
    (marked,) = [line for line in text.splitlines() if line.startswith("> ")]
    assert marked.split()[1] == report.chosen.split()[0]


def test_names_are_never_read_as_markup() -> None:
    points = (("[red]small[/red] [link=x]", *made_up.POINTS[0][1:]), *made_up.POINTS[1:])
    text = printed(made_up.report(points, limits=()), every=True)
    assert "[red]small[/red]" in text


def test_unfinished_points_and_empty_runs_are_named() -> None:
    empty = replace(made_up.report((), limits=()), unfinished={"large": "the endpoint is down"})
    text = printed(empty)
    assert "No point of this run is finished." in text
    assert "no numbers: large: the endpoint is down" in text


def test_an_error_that_names_its_point_is_not_said_to_be_that_points_once_more() -> None:
    said = {"offset": "offset came no nearer", "route": "router: no model"}
    text = printed(replace(made_up.report(), unfinished=said))
    assert "no numbers: offset came no nearer" in text
    assert "no numbers: route: router: no model" in text, "another word begins as its name does"


def test_a_number_of_fewer_items_than_the_others_says_of_how_many() -> None:
    report = made_up.report()
    usual = report.points[0].test["utility"].n
    fidelity = made_up.measured(made_up.FIDELITY, 1.0, 2, None)
    last = replace(report.points[-1], test=report.points[-1].test | {"exposure": fidelity})
    for width in (60, None):
        before = printed(report, every=True, width=width)
        assert " n=" not in before
        assert f"(n = {usual} where no other stands there)" in " ".join(before.split())
        said = printed(replace(report, points=(*report.points[:-1], last)), every=True, width=width)
        assert said.count(" n=2") == 1
