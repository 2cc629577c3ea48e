"""The front and the certificate on a console, within 80 columns; plain text where it is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cosilo.objectives.base import Measurement, Objective
from cosilo.objectives.wording import label
from cosilo.report.data import FAMILIES, Report
from cosilo.report.words import bought, count, found, interval, number, unit
from cosilo.selection import Point

_COLUMNS = 5  # that fit beside a name


def show(report: Report, *, console: Console | None = None, every: bool = False) -> None:
    """Print the points of the front, test split, then the certificate and what is not finished.

    Args:
        every: print all points, the front ones marked.
    """
    out = console or Console(highlight=False)
    shown = [p for p in report.points if every or p.name in report.front or p.name == report.chosen]
    if shown:
        out.print(_table(report, shown, terminal=out.is_terminal))
        out.print(Text(_legend(report, shown), style="dim"))
    else:
        out.print(Text("No point of this run is finished."))
    for note in report.notes:
        out.print(Text(note))
    for line in _prepared(report):
        out.print(Text(line, style="dim"))
    for name, why in report.unfinished.items():
        out.print(Text(f"{name} has no numbers: {why}"))
    for line in report.passed_over:
        out.print(Text(line))
    if report.certificate is not None:
        sure = report.chosen in report.certificate.certified
        sentence = report.certificate.sentence()
        out.print()
        out.print(
            Text(f"{sentence[:1].upper()}{sentence[1:]}.", style="bold green" if sure else "bold")
        )


def _table(report: Report, points: Sequence[Point], *, terminal: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if terminal else None, padding=(0, 1), show_edge=False)
    table.add_column("", width=1)
    table.add_column("point", overflow="fold", min_width=16)
    columns = _columns(report)
    for objective in columns:
        table.add_column(Text(f"{label(objective)}\n{_short(objective)}"), justify="right")
    for point in points:
        name = Text(point.name, style="bold" if point.name == report.chosen else "")
        cells = [_cell(point.test.get(objective.name)) for objective in columns]
        table.add_row(_mark(report, point), name, *cells)
    return table


def _columns(report: Report) -> list[Objective]:
    """What was compared and limited first, then one of each family, as many as fit."""
    known = {o.name: o for o in report.objectives}
    wanted = [*(limit.objective.name for limit in report.limits), *report.front_objectives]
    for family in FAMILIES:
        own = [o.name for o in report.objectives if o.family == family]
        if own and not set(own).intersection(wanted):
            wanted.append(own[0])
    chosen = [known[name] for name in dict.fromkeys(wanted) if name in known][:_COLUMNS]
    return sorted(chosen, key=lambda o: FAMILIES.index(o.family))


def _prepared(report: Report) -> Iterator[str]:
    """What preparing found, a line a card, and what it bought."""
    for name, prepared in report.prepared.items():
        for card in prepared.cards:
            facts = ", ".join(f"{key} {found(value)}" for key, value in card.facts.items())
            yield f"{name}: {card.title}: {facts}"
        if prepared.gain is not None:
            yield f"{name}: {', '.join(bought(prepared.gain))}"


def _short(objective: Objective) -> str:
    return "$" if objective.unit.startswith("USD") else unit(objective)


def _cell(measured: Measurement | None) -> Text:
    if measured is None:
        return Text("–")
    text = Text(number(measured.objective, measured.value))
    return text.append(f"\n{interval(measured).replace(' ', '')}", style="dim")


def _mark(report: Report, point: Point) -> str:
    if point.name == report.chosen:
        return ">"
    return "*" if point.name in report.front else ""


def _legend(report: Report, shown: Sequence[Point]) -> str:
    parts = ["* on the front of the validation items"]
    if report.chosen is not None:
        parts.append("> chosen")
    sizes = {m.n for p in shown for m in p.test.values() if m.objective.family == "utility"}
    n = f" (n = {sizes.pop():,})" if len(sizes) == 1 else ""
    parts.append(f"numbers: test items{n}, 95 % intervals beneath")
    left = len(report.points) - len(shown)
    if left:
        parts.append(f"{count(left, 'point')} not on the front left out")
    return "; ".join(parts)
