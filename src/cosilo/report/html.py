"""The report as one HTML file that needs nothing else: no network, no fonts, no images.

The Content-Security-Policy inside it allows exactly this style sheet and this script, by their
hashes. Everything that came with the run is escaped by `markup`, or is JSON that cannot end its
element.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path

from cosilo.errors import StoreError
from cosilo.objectives.base import Measurement, Objective
from cosilo.objectives.wording import wanted
from cosilo.report import sections
from cosilo.report.axes import default_axes
from cosilo.report.data import Report
from cosilo.report.markup import Markup, joined, tag, trusted
from cosilo.report.svg import COLOURS, SHAPES, front_picture
from cosilo.report.words import bound, count, edge, interval, number, settings, titled
from cosilo.selection import Point


def write_html(report: Report, path: Path) -> None:
    """Write the report to `path`.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        path.write_text(html(report), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write the report {str(path)!r}: {error.strerror}") from None


def html(report: Report) -> str:
    """The whole page."""
    style, script = _part("page.css"), _part("page.js")
    axes = default_axes(report) if report.points else None
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    body = joined(
        tag(
            "header",
            tag(
                "div",
                "Cosilo: large and small models, working together across silos",
                class_="over",
            ),
            tag("h1", report.title),
            sections.facts(report),
            _contents(report, axes is not None),
        ),
        tag(
            "main",
            sections.verdict(report),
            _front(report, axes) if axes else None,
            _points(report) if report.points else _no_points(report),
            sections.crossings(report),
            sections.costs(report),
            sections.confidence(report),
            sections.provenance(report),
        ),
        tag("footer", "Made by Cosilo. This file is whole: it asks no network for anything."),
        tag("script", trusted(_json(_data(report, *axes))), id="data", type="application/json")
        if axes
        else None,
        tag("script", trusted(script)) if axes else None,
    )
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", f"{report.title}: Cosilo report"),
            tag("style", trusted(style)),
        ),
        tag("body", body),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _contents(report: Report, has_front: bool) -> Markup:
    links = [
        ("certificate", "Certificate", True),
        ("front", "Front", has_front),
        ("points", "Points", True),
        ("left", "What left the building", bool(report.crossed)),
        ("cost", "Cost and latency", bool(report.costs)),
        ("confidence", "Confidence", bool(report.reliability)),
        ("made", "How this was made", True),
    ]
    shown = [tag("a", words, href=f"#{id}") for id, words, there in links if there]
    return tag("nav", shown, aria_label="Contents")


NOTHING_SHOWN = "No point is shown: none was measured on both objectives, or all are hidden."


# ── the front ────────────────────────────────────────────────────────────────


def _front(report: Report, axes: tuple[str, str]) -> Markup:
    x, y = axes
    known = report.objectives
    over = ", ".join(n.replace("_", " ") for n in report.front_objectives)
    filled = f"Filled marks are on the front of {over}" if over else "Filled marks are on the front"
    return sections.section(
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
        for at, strategy in enumerate(_strategies(report))
    ]
    return tag(
        "fieldset",
        tag("legend", "Strategies shown, here and in the table"),
        keys,
        class_="keys",
        id="keys",
    )


def _strategies(report: Report) -> list[str]:
    return list(dict.fromkeys(p.strategy for p in report.points))


# ── the table ────────────────────────────────────────────────────────────────


def _points(report: Report) -> Markup:
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
                tag("button", titled(o), type="button"),
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
    return sections.section(
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
        _unfinished(report),
    )


def _no_points(report: Report) -> Markup:
    return sections.section(
        "points", "All points", tag("p", "No point of this run is finished."), _unfinished(report)
    )


def _unfinished(report: Report) -> Markup | None:
    if not report.unfinished:
        return None
    rows = [
        [tag("th", n, scope="row"), tag("td", why)] for n, why in sorted(report.unfinished.items())
    ]
    return joined(
        tag("h3", "Not finished"), sections.table(["point", "why"], rows, label="Not finished")
    )


def _named(report: Report, point: Point) -> Markup:
    tags = []
    if point.name == report.chosen:
        tags.append(tag("span", "chosen", class_="tag chosen"))
    if point.name in report.front:
        tags.append(tag("span", "front", class_="tag"))
    how = _how(point) + (f": {own}" if (own := settings(point)) else "")
    small = tag("small", how) if how != point.name else None
    return tag("th", point.name, " ", tags, small, scope="row", data_v=point.name)


def _how(point: Point) -> str:
    return " + ".join((point.strategy, *point.defences))


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


# ── what the script draws from ───────────────────────────────────────────────


def _data(report: Report, x: str, y: str) -> dict[str, object]:
    strategies = _strategies(report)
    certificate = report.certificate
    sure = certificate is not None and report.chosen in certificate.certified
    return {
        "x": x,
        "y": y,
        "chosen": "certified" if sure else "chosen",
        "shapes": SHAPES,
        "strategies": strategies,
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
                "kind": strategies.index(point.strategy),
                "how": _how(point),
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


def _json(data: object) -> str:
    # "<" could end the script element; the others are what JSON and JavaScript disagree on.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _part(name: str) -> str:
    return files("cosilo.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
