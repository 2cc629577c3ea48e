"""All points with their numbers: sorted and filtered by the script, whole without it."""

from __future__ import annotations

import math

from cosilo.objectives.base import Measurement, Objective
from cosilo.report.data import Report
from cosilo.report.markup import Markup, joined, tag
from cosilo.report.page.blocks import made_of, section, table
from cosilo.report.words import arrow, bound, edge, interval, number, settings, titled
from cosilo.selection import Point


def points(report: Report) -> Markup:
    """The table of all points, and what is not finished."""
    columns = report.objectives
    first = _headline(report)
    head = [tag("th", tag("button", "point", type="button"), scope="col", data_first="ascending")]
    for o in columns:
        more = _limits_on(report, o)
        same_n, same_base = _shared(report, o)
        more += [f"n = {same_n:,}"] if same_n is not None else []
        more += [f"base rate {number(o, same_base)}"] if same_base is not None else []
        head.append(
            tag(
                "th",
                tag("button", f"{titled(o)} {arrow(o)}", type="button"),
                [tag("small", words) for words in more],
                scope="col",
                class_="n" if o.name in first else "n more",
                data_first="descending" if o.goal == "max" else "ascending",
            )
        )
    body = [
        tag(
            "tr",
            _named(report, point),
            [_cell(report, point, o, o.name in first) for o in columns],
            data_at=at,
            tabindex=0,
            aria_selected="false",
        )
        for at, point in enumerate(report.points)
    ]
    hides = len(first) < len(columns)
    return section(
        "points",
        "All points",
        tag(
            "p",
            "Numbers of the test items with 95 % intervals beneath. ✗ marks a number beyond its "
            "limit. Click a heading to sort, a row to find it in the front.",
            class_="note",
        ),
        tag(
            "div",
            tag("label", tag("input", type="checkbox", id="only-front"), " front only"),
            tag(
                "label",
                tag("input", type="checkbox", id="all-columns", checked=not hides),
                f" all {len(columns)} objectives",
                hidden=not hides,
            ),
            class_="controls",
        ),
        tag(
            "div",
            tag(
                "table",
                tag("thead", tag("tr", head)),
                tag("tbody", body),
                id="points-table",
                class_="points headline" if hides else "points",
            ),
            class_="box tall",
            id="points-box",
            tabindex=0,
            role="region",
            aria_label="All points",
        ),
        _passed_over(report),
        _unfinished(report),
    )


def no_points(report: Report) -> Markup:
    """The section in place of the table for a run without a finished point."""
    return section(
        "points", "All points", tag("p", "No point of this run is finished."), _unfinished(report)
    )


def _passed_over(report: Report) -> Markup | None:
    lines = report.passed_over
    if not lines:
        return None
    items = [tag("li", line) for line in lines]
    return joined(tag("h3", "With a defence more, and not shown or not chosen"), tag("ul", items))


def _unfinished(report: Report) -> Markup | None:
    if not report.unfinished:
        return None
    rows = [
        [tag("th", n, scope="row"), tag("td", why)] for n, why in sorted(report.unfinished.items())
    ]
    return joined(tag("h3", "Not finished"), table(["point", "why"], rows, label="Not finished"))


def _named(report: Report, point: Point) -> Markup:
    tags = []
    if point.name == report.chosen:
        tags.append(tag("span", "chosen", class_="tag chosen"))
    if point.name in report.front:
        tags.append(tag("span", "front", class_="tag"))
    how = made_of(point) + (f": {own}" if (own := settings(point)) else "")
    small = tag("small", how) if how != point.name else None
    return tag("th", point.name, " ", tags, small, scope="row", data_v=point.name)


def _cell(report: Report, point: Point, objective: Objective, first: bool) -> Markup:
    kind = "n" if first else "n more"
    found = point.test.get(objective.name)
    if found is None:
        return tag("td", "–", class_=kind, data_v="")
    same_n, same_base = _shared(report, objective)
    more = [f"n = {found.n:,}"] if same_n is None else []
    if found.baseline is not None and same_base is None:
        more.append(f"base {number(objective, found.baseline)}")
    missed = _misses(report, found)
    return tag(
        "td",
        tag("span", f"✗ {number(objective, found.value)}", class_="missed")
        if missed
        else number(objective, found.value),
        tag("small", interval(found)),
        tag("small", ", ".join(more)) if more else None,
        class_=kind,
        data_v=repr(found.value) if math.isfinite(found.value) else "",
        title=found.note or None,
    )


def _headline(report: Report) -> set[str]:
    """The columns shown at first: what was compared or limited, and one of each family."""
    names = {*report.front_objectives, *(limit.objective.name for limit in report.limits)}
    for family in dict.fromkeys(o.family for o in report.objectives):
        own = [o.name for o in report.objectives if o.family == family]
        if not names.intersection(own):
            names.add(own[0])
    return names.intersection(o.name for o in report.objectives)


def _shared(report: Report, objective: Objective) -> tuple[int | None, float | None]:
    """The column's n and base rate, where they are the same for all points."""
    found = [m for p in report.points if (m := p.test.get(objective.name)) is not None]
    sizes, bases = {m.n for m in found}, {m.baseline for m in found}
    return (
        next(iter(sizes)) if len(sizes) == 1 else None,
        next(iter(bases)) if len(bases) == 1 else None,
    )


def _limits_on(report: Report, objective: Objective) -> list[str]:
    return [
        f"limit {edge(limit)}" for limit in report.limits if limit.objective.name == objective.name
    ]


def _misses(report: Report, found: Measurement) -> bool:
    for limit in report.limits:
        if limit.objective.name == found.objective.name:
            most = bound(report, limit, "test")
            if most is None:
                continue
            if found.value > most if limit.direction == "at most" else found.value < most:
                return True
    return False
