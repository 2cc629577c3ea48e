"""The front and the certificate on a console."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosilo.errors import of_point
from cosilo.objectives.base import Measurement, Objective
from cosilo.report.data import FAMILIES, Report
from cosilo.report.screen import Column, Screen, ScreenRow, wrapped
from cosilo.report.words import (
    arrow,
    bought,
    count,
    effort_in_words,
    found,
    interval,
    number,
    paced,
    titled,
    unit,
)
from cosilo.selection import Point

_COLUMNS = 6  # as many as fit into 80 characters


def show(report: Report, *, screen: Screen | None = None, every: bool = False) -> None:
    """Print the points of the front, test split, then the certificate and what is not finished.

    Args:
        every: print all points, the front ones marked.
    """
    out = screen or Screen()
    shown = [p for p in report.points if every or p.name in report.front or p.name == report.chosen]
    if shown:
        columns = _columns(report)
        rows = [_row(report, point, columns) for point in shown]
        out.table("point", [_column(objective) for objective in columns], rows)
        out.say(_legend(report, shown, columns), style="dim")
    else:
        out.say("No point of this run is finished.")
    for note in report.notes:
        out.say(note)
    for line in _prepared(report):
        out.say(line, style="dim", indent=2)
    for name, prepared in report.prepared.items():
        for card in prepared.cards:
            if card.warning:
                out.say(f"{name}: {card.warning}", style="warning", indent=2)
    for name, why in report.unfinished.items():
        out.say(f"no numbers: {of_point(name, why)}", indent=2)
    for line in report.passed_over:
        out.say(line)
    if report.certificate is not None:
        sure = report.chosen in report.certificate.certified
        sentence = report.certificate.sentence()
        out.say()
        out.say(f"{sentence[:1].upper()}{sentence[1:]}.", style="good" if sure else "bold")


def _column(objective: Objective) -> Column:
    heading = wrapped(titled(objective, bare=True), 10)
    return Column((*heading, f"{_short(objective)} {arrow(objective)}"), right=True)


def _row(report: Report, point: Point, columns: Sequence[Objective]) -> ScreenRow:
    usual = _usual(report.points)
    cells = tuple(_cell(point.test.get(objective.name), usual) for objective in columns)
    chosen = point.name == report.chosen
    return ScreenRow(f"{_mark(report, point)} {point.name}", cells, "bold" if chosen else "")


def _columns(report: Report) -> list[Objective]:
    """What was compared and limited first, then one of each family, as many as fit. Whoever sees that
    no secret left also sees whether messages can be told whose they are.
    """
    known = {o.name: o for o in report.objectives}
    wanted = [*(limit.objective.name for limit in report.limits), *report.front_objectives]
    for family in FAMILIES:
        own = [o.name for o in report.objectives if o.family == family]
        if own and not set(own).intersection(wanted):
            wanted.append(own[0])
    names = [name for name in dict.fromkeys(wanted) if name in known]
    if "relink" in known and "relink" not in names:
        names.insert(min(len(names), _COLUMNS - 1), "relink")
    chosen = [known[name] for name in names[:_COLUMNS]]
    return sorted(chosen, key=lambda o: FAMILIES.index(o.family))


def _prepared(report: Report) -> Iterator[str]:
    """Lines on what preparing each point found (one per card), and what that gained in utility and
    cost.
    """
    for name, prepared in report.prepared.items():
        for card in prepared.cards:
            facts = ", ".join(f"{key} {found(value)}" for key, value in card.facts.items())
            yield f"{name}: {card.title}: {facts}"
        if prepared.over_links is not None:
            yield f"{name}: {paced(prepared.over_links)}"
        if prepared.effort is not None:
            yield f"{name}: {effort_in_words(prepared.effort)}"
        if prepared.gain is not None:
            yield f"{name}: {', '.join(bought(prepared.gain))}"


def _short(objective: Objective) -> str:
    return "$" if objective.unit.startswith("USD") else unit(objective)


def _usual(points: Sequence[Point]) -> int | None:
    """How many items the utility of all the points rests on; None where they differ."""
    sizes = {m.n for p in points for m in p.test.values() if m.objective.family == "utility"}
    return sizes.pop() if len(sizes) == 1 else None


def _cell(measured: Measurement | None, usual: int | None) -> str:
    """The value, with its interval beneath, and its n where that is not the `usual` one."""
    if measured is None:
        return "–"
    value = number(measured.objective, measured.value)
    own = "" if measured.n == usual else f" n={measured.n:,}"
    return f"{value}\n{interval(measured).replace(' ', '')}{own}"


def _mark(report: Report, point: Point) -> str:
    if point.name == report.chosen:
        return ">"
    return "*" if point.name in report.front else " "


def _legend(report: Report, shown: Sequence[Point], columns: Sequence[Objective]) -> str:
    parts = ["* on the front of the validation items"]
    if report.chosen is not None:
        parts.append("> chosen")
    usual = _usual(report.points)
    n = f" (n = {usual:,} where no other stands there)" if usual is not None else ""
    parts.append("↑ more is better, ↓ less is better")
    parts.append(f"numbers: test items{n}, with 95 % intervals")
    left = len(report.points) - len(shown)
    if left:
        parts.append(f"{count(left, 'point')} not on the front left out")
    more = len(report.objectives) - len(columns)
    if more:
        parts.append(f"{count(more, 'more number')} a point: cosilo report")
    return "; ".join(parts)
