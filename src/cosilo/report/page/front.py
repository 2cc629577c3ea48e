"""The front over any two objectives: controls, and the data that the script draws from."""

from __future__ import annotations

import math

from cosilo.objectives.base import Measurement, Objective
from cosilo.objectives.wording import wanted
from cosilo.report.data import Report
from cosilo.report.markup import Markup, tag
from cosilo.report.page.blocks import made_of, section
from cosilo.report.svg import COLOURS, SHAPES, front_picture
from cosilo.report.words import bound, count, interval, number, settings, titled

NOTHING_SHOWN = "No point is shown: none was measured on both objectives, or all are hidden."


def front(report: Report, axes: tuple[str, str]) -> Markup:
    """The section; `axes` are the first (x, y)."""
    x, y = axes
    known = report.objectives
    over = ", ".join(n.replace("_", " ") for n in report.front_objectives)
    filled = f"Filled marks are on the front of {over}" if over else "Filled marks are on the front"
    return section(
        "front",
        "The front",
        tag(
            "p",
            f"{count(len(report.points), 'operating point')}, each with its 95 % intervals. "
            f"{filled}, as compared on the validation items; the line joins what no other point "
            "beats on the two axes shown; dashed lines are limits. A circle marks the chosen point.",
            class_="note",
        ),
        tag("noscript", front_picture(report)),
        tag(
            "div",
            tag(
                "div",
                _select("axis-y", "Up", known, y),
                _select("axis-x", "Across", known, x),
                tag("button", "Swap axes", type="button", id="swap", class_="button"),
                tag(
                    "fieldset",
                    tag("legend", "Items"),
                    tag(
                        "div",
                        _radio("test", "test", on=True),
                        _radio("validation", "validation", on=False),
                        class_="switch",
                    ),
                ),
                class_="controls",
            ),
            tag(
                "div",
                tag("div", id="tip", class_="tip", role="status", hidden=True),
                id="chart",
                class_="chart",
            ),
            tag("p", NOTHING_SHOWN, id="chart-empty", class_="note", hidden=True),
            _keys(report),
            tag(
                "div",
                id="picked",
                class_="picked",
                role="region",
                aria_label="Picked point",
                hidden=True,
            ),
            id="front-live",
            hidden=True,
        ),
    )


def _select(id: str, words: str, known: tuple[Objective, ...], chosen: str) -> Markup:
    groups = [
        tag(
            "optgroup",
            [
                tag("option", titled(o), value=o.name, selected=o.name == chosen)
                for o in known
                if o.family == family
            ],
            label=family,
        )
        for family in dict.fromkeys(o.family for o in known)
    ]
    return tag("label", words, tag("select", groups, id=id))


def _radio(value: str, words: str, *, on: bool) -> Markup:
    return tag("label", tag("input", type="radio", name="split", value=value, checked=on), words)


def _keys(report: Report) -> Markup:
    keys = [
        tag(
            "label",
            tag("input", type="checkbox", value=at, checked=True),
            tag(
                "svg",
                tag("path", d=SHAPES[at % len(SHAPES)]),
                viewBox="-8 -8 16 16",
                class_=f"s{at % COLOURS}",
                aria_hidden="true",
            ),
            strategy,
        )
        for at, strategy in enumerate(strategies(report))
    ]
    return tag(
        "fieldset",
        tag("legend", "Strategies shown, here and in the table"),
        keys,
        class_="keys",
        id="keys",
    )


def drawn_from(report: Report, x: str, y: str) -> dict[str, object]:
    """What the script needs, as JSON has it; the first axes are `x` and `y`."""
    kinds = strategies(report)
    certificate = report.certificate
    sure = certificate is not None and report.chosen in certificate.certified
    return {
        "x": x,
        "y": y,
        "chosen": "certified" if sure else "chosen",
        "shapes": SHAPES,
        "strategies": kinds,
        "objectives": [
            {
                "name": o.name,
                "title": titled(o),
                "goal": o.goal,
                "share": o.unit.split(" ")[0] == "share",
            }
            for o in report.objectives
        ],
        "limits": [
            {
                "objective": limit.objective.name,
                "words": wanted(limit.objective, limit.bound, limit.relative_to),
                "test": bound(report, limit, "test"),
                "validation": bound(report, limit, "validation"),
            }
            for limit in report.limits
        ],
        "points": [
            {
                "at": at,
                "name": point.name,
                "strategy": point.strategy,
                "kind": kinds.index(point.strategy),
                "how": made_of(point),
                "settings": settings(point),
                "front": point.name in report.front,
                "chosen": point.name == report.chosen,
                "test": {name: _numbers(m) for name, m in point.test.items() if _drawn(m)},
                "validation": {
                    name: _numbers(m) for name, m in point.validation.items() if _drawn(m)
                },
            }
            for at, point in enumerate(report.points)
        ],
    }


def _drawn(measurement: Measurement) -> bool:
    return math.isfinite(measurement.value)


def _numbers(m: Measurement) -> list[object]:
    """[value, low, high, n, its text, the interval's text, the base rate's text, note]."""
    base = number(m.objective, m.baseline) if m.baseline is not None else ""
    ends = [v if math.isfinite(v) else None for v in (m.low, m.high)]
    return [m.value, *ends, m.n, number(m.objective, m.value), interval(m), base, m.note]


def strategies(report: Report) -> list[str]:
    return list(dict.fromkeys(p.strategy for p in report.points))
