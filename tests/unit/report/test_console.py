"""The console table fits 80 columns, is plain where it is no terminal, and says what it leaves out."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

import made_up
from cosilo.report.console import show
from cosilo.report.data import Report


def printed(report: Report, *, every: bool = False, terminal: bool = False) -> str:
    out = io.StringIO()
    colours = "standard" if terminal else "auto"
    console = Console(file=out, width=80, force_terminal=terminal, color_system=colours)
    show(report, console=console, every=every)
    return out.getvalue()


def test_it_fits_80_columns_and_is_plain() -> None:
    long = ("cascade with a name that somebody generated from each and every setting it has, x=1",)
    points = tuple((*long, *row[1:]) if at == 5 else row for at, row in enumerate(made_up.POINTS))
    text = printed(made_up.report(points), every=True)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    left = " ".join(line[:24] for line in text.splitlines()).split()
    assert all(word in left for word in long[0].split())


def test_a_long_word_is_folded_and_not_cut() -> None:
    points = (("x" * 70, *made_up.POINTS[0][1:]), *made_up.POINTS[1:])
    text = printed(made_up.report(points, limits=()), every=True)
    assert text.count("x") >= 70
    assert max(map(len, text.splitlines())) <= 80


def test_a_terminal_gets_weight_and_colour() -> None:
    assert "\x1b[" in printed(made_up.report(), terminal=True)


def test_only_the_front_is_shown_and_the_rest_is_counted() -> None:
    report = made_up.report()
    text = printed(report)
    rows = [line for line in text.splitlines() if line.startswith(" *")]
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
    (marked,) = [line for line in text.splitlines() if line.startswith(" >")]
    assert marked.split()[1] == report.chosen.split()[0]


def test_names_are_never_read_as_markup() -> None:
    points = (("[red]small[/red] [link=x]", *made_up.POINTS[0][1:]), *made_up.POINTS[1:])
    text = printed(made_up.report(points, limits=()), every=True)
    assert "[red]small[/red]" in text


def test_unfinished_points_and_empty_runs_are_named() -> None:
    empty = replace(made_up.report((), limits=()), unfinished={"large": "the endpoint is down"})
    text = printed(empty)
    assert "No point of this run is finished." in text
    assert "large has no numbers: the endpoint is down" in text
