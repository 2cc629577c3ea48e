"""The front as a picture that stands alone: one SVG, light or dark as its reader likes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cosilo.errors import ConfigError
from cosilo.objectives.base import Measurement, Objective
from cosilo.objectives.wording import wanted
from cosilo.registry import unknown
from cosilo.report.axes import Axis, axis, default_axes, known_on, staircase
from cosilo.report.data import Report
from cosilo.report.markup import Markup, joined, tag, trusted
from cosilo.report.words import bound, clipped, number, titled
from cosilo.selection import Point

SHAPES = (
    "M-5,0A5,5 0 1,0 5,0A5,5 0 1,0 -5,0Z",
    "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "M0,-6L5.5,4.4H-5.5Z",
    "M0,-6.3L6.3,0L0,6.3L-6.3,0Z",
    "M0,6L5.5,-4.4H-5.5Z",
    "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
)
"""Marks around the origin; with the ten colours they tell 30 strategies apart."""

COLOURS = 10

STYLE = """
.front{--ink:#20262d;--muted:#5c6670;--line:#e1e5e8;--card:#fff;font:12px system-ui,sans-serif;
--c0:#2f6db3;--c1:#c76f16;--c2:#3c8a4e;--c3:#b94348;--c4:#7d5bab;--c5:#81614c;--c6:#b35a93;
--c7:#66707a;--c8:#84841f;--c9:#21899a}
@media(prefers-color-scheme:dark){.front{--ink:#e4e8eb;--muted:#9da7b0;--line:#30373e;--card:#1b1f24;
--c0:#7fb0ea;--c1:#efa45a;--c2:#7cc68d;--c3:#ec8a8d;--c4:#b99be3;--c5:#c3a28d;--c6:#e29ac8;
--c7:#a9b3bc;--c8:#c5c55e;--c9:#64c5d4}}
"""

_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 16, 16, 56
_LEGEND_ROW = 20
_CHARACTER = 6.2  # about the width of one, for placing names


def front_svg(
    report: Report,
    *,
    x: str | None = None,
    y: str | None = None,
    width: int = 760,
    height: int = 440,
) -> str:
    """The points over two objectives on the test split, with intervals, limits and the best of both.

    Args:
        x, y: names of objectives; utility over money where not given.

    Raises:
        ConfigError: no point was measured on such an objective, or on fewer than two.
    """
    return front_picture(report, x=x, y=y, width=width, height=height, style=STYLE)


def front_picture(
    report: Report,
    *,
    x: str | None = None,
    y: str | None = None,
    width: int = 760,
    height: int = 440,
    style: str = "",
) -> Markup:
    """The picture of `front_svg`, for a page that has its own colours; `style` is put into the
    picture.
    """
    axes = default_axes(report)
    if axes is None:
        raise ConfigError("a front needs points that were measured on two objectives")
    known = {o.name: o for o in report.objectives}
    for name in (x, y):
        if name is not None and name not in known:
            raise ConfigError(unknown("objective", name, known))
    across, up = known[x or axes[0]], known[y or axes[1]]
    legend = _legend(report, width)
    rows = 1 + max((row for _, row, _ in legend), default=-1)
    plot = _plot(report, across, up, width, height - rows * _LEGEND_ROW)
    return tag(
        "svg",
        tag("style", trusted(style)) if style else None,
        _grid(plot),
        _limits(plot),
        _stairs(plot),
        [_mark(plot, *found) for found in plot.found],
        _names(plot),
        [
            _key(plot, strategy, left, height - (rows - row) * _LEGEND_ROW + 8)
            for strategy, row, left in legend
        ],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        class_="front",
        role="img",
        aria_label=f"{len(plot.found)} operating points: {titled(up)} over {titled(across)}",
    )


@dataclass(frozen=True)
class _Plot:
    """Where values lie in the picture; `found` are points with their numbers across and up."""

    report: Report
    x: Objective
    y: Objective
    across: Axis
    up: Axis
    right: float
    base: float
    found: list[tuple[Point, Measurement, Measurement]]
    strategies: list[str]

    def h(self, value: float) -> float:
        return round(_LEFT + self.across.at(value, self.right - _LEFT), 1)

    def v(self, value: float) -> float:
        return round(self.base - self.up.at(value, self.base - _TOP), 1)

    def limits(self, objective: Objective) -> Iterator[tuple[float, str]]:
        yield from _bounds(self.report, objective)


def _plot(report: Report, x: Objective, y: Objective, width: int, height: int) -> _Plot:
    found = known_on(report.points, x.name, y.name)
    strategies = list(dict.fromkeys(p.strategy for p in report.points))
    across = axis([*_ends([x for _, x, _ in found]), *(v for v, _ in _bounds(report, x))])
    up = axis([*_ends([y for _, _, y in found]), *(v for v, _ in _bounds(report, y))])
    return _Plot(report, x, y, across, up, width - _RIGHT, height - _BOTTOM, found, strategies)


def _bounds(report: Report, objective: Objective) -> Iterator[tuple[float, str]]:
    for limit in report.limits:
        value = bound(report, limit, "test") if limit.objective.name == objective.name else None
        if value is not None:
            yield value, wanted(limit.objective, limit.bound, limit.relative_to)


def _ends(measurements: list[Measurement]) -> Iterator[float]:
    for m in measurements:
        yield from (m.low, m.value, m.high)


def _grid(plot: _Plot) -> Iterator[Markup]:
    for value in plot.up.ticks:
        yield _line(_LEFT, plot.v(value), plot.right, plot.v(value), "var(--line)")
        yield _text(_LEFT - 8, plot.v(value) + 4, number(plot.y, value), "end")
    for value in plot.across.ticks:
        yield _line(plot.h(value), plot.base, plot.h(value), plot.base + 4, "var(--muted)")
        yield _text(plot.h(value), plot.base + 18, number(plot.x, value), "middle")
    yield _line(_LEFT, plot.base, plot.right, plot.base, "var(--muted)")
    yield _text((_LEFT + plot.right) / 2, plot.base + 40, _better(plot.x), "middle")
    yield _text(
        0, 0, _better(plot.y), "middle",
        transform=f"translate(14,{(_TOP + plot.base) / 2:g}) rotate(-90)",
    )  # fmt: skip


def _better(objective: Objective) -> str:
    if objective.goal == "max":
        return f"{titled(objective)}, more is better →"
    return f"← less is better, {titled(objective)}"


def _limits(plot: _Plot) -> Iterator[Markup]:
    for value, words in plot.limits(plot.x):
        at = plot.h(value)
        yield _line(at, _TOP, at, plot.base, "var(--muted)", stroke_dasharray="5 4")
        yield _text(0, 0, words, "end", transform=f"translate({at - 5:g},{_TOP + 4}) rotate(-90)")
    for value, words in plot.limits(plot.y):
        at = plot.v(value)
        yield _line(_LEFT, at, plot.right, at, "var(--muted)", stroke_dasharray="5 4")
        yield _text(plot.right - 4, at - 5, words, "end")


def _stairs(plot: _Plot) -> Markup | None:
    places = [(plot.h(x.value), plot.v(y.value)) for x, y in staircase(plot.found)]
    if len(places) < 2:
        return None
    path = f"M{places[0][0]},{places[0][1]}"
    for h, v in places[1:]:
        # The corner lies on the side that the points before and after it both dominate.
        path += f"H{h}V{v}" if plot.x.goal == "min" else f"V{v}H{h}"
    return tag("path", d=path, fill="none", stroke="var(--muted)", stroke_opacity="0.6")


def _mark(plot: _Plot, point: Point, x: Measurement, y: Measurement) -> Markup:
    at = plot.strategies.index(point.strategy)
    colour = f"var(--c{at % COLOURS})"
    h, v = plot.h(x.value), plot.v(y.value)
    on_front = point.name in plot.report.front
    bars = {"stroke": colour, "stroke_opacity": "0.45"}
    chosen = plot.report.chosen == point.name
    return tag(
        "g",
        tag("title", f"{point.name}: {titled(plot.y)} {number(plot.y, y.value)}, "
            f"{titled(plot.x)} {number(plot.x, x.value)}"),
        _line(plot.h(x.low), v, plot.h(x.high), v, **bars) if _spread(x) else None,
        _line(h, plot.v(y.low), h, plot.v(y.high), **bars) if _spread(y) else None,
        tag("circle", cx=h, cy=v, r=10, fill="none", stroke="var(--ink)", stroke_width=1.5)
        if chosen
        else None,
        tag("path", d=SHAPES[at % len(SHAPES)], transform=f"translate({h:g},{v:g})",
            fill=colour if on_front else "var(--card)", stroke=colour, stroke_width=1.5),
    )  # fmt: skip


def _spread(measurement: Measurement) -> bool:
    finite = math.isfinite(measurement.low) and math.isfinite(measurement.high)
    return finite and measurement.low < measurement.high


def _names(plot: _Plot) -> Iterator[Markup]:
    """The names of the best points of both axes, where they cover neither each other nor a mark."""
    best = {(id(x), id(y)) for x, y in staircase(plot.found)}
    marks = [(plot.h(x.value), plot.v(y.value)) for _, x, y in plot.found]
    taken: list[tuple[float, ...]] = [(h - 7, v - 7, h + 7, v + 7) for h, v in marks]
    for value, words in plot.limits(plot.y):  # the limits' own words stand at the right end
        v, start = plot.v(value), plot.right - 4 - len(words) * _CHARACTER
        taken.append((start, v - 17, plot.right, v - 2))
    for value, words in plot.limits(plot.x):  # … and at the top
        h, end = plot.h(value), _TOP + 4 + len(words) * _CHARACTER
        taken.append((h - 18, _TOP, h, end))
    for point, x, y in plot.found:
        if (id(x), id(y)) not in best and point.name != plot.report.chosen:
            continue
        words = clipped(point.name, 34)
        long = len(words) * _CHARACTER
        h, v = plot.h(x.value), plot.v(y.value)
        for left, base, anchor in (
            (h + 11, v + 14, "start"),
            (h + 11, v - 6, "start"),
            (h - 11 - long, v - 6, "end"),
            (h - 11 - long, v + 14, "end"),
        ):
            box = left, base - 10, left + long, base + 3
            inside = box[0] > _LEFT and box[2] < plot.right and box[3] < plot.base
            if inside and box[1] > _TOP - 8 and not any(_meet(box, other) for other in taken):
                taken.append(box)
                start = left if anchor == "start" else left + long
                yield _text(start, base, words, anchor, fill="var(--ink)")
                break


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(report: Report, width: int) -> list[tuple[str, int, float]]:
    """strategy, row, left edge; as many to a row as fit."""
    found, row, left = [], 0, float(_LEFT)
    for strategy in dict.fromkeys(p.strategy for p in report.points):
        long = 30 + len(clipped(strategy, 34)) * _CHARACTER
        if left + long > width - _RIGHT and left > _LEFT:
            row, left = row + 1, float(_LEFT)
        found.append((strategy, row, left))
        left += long
    return found


def _key(plot: _Plot, strategy: str, left: float, base: float) -> Markup:
    at = plot.strategies.index(strategy)
    return joined(
        tag("path", d=SHAPES[at % len(SHAPES)], transform=f"translate({left + 6:g},{base - 4:g})",
            fill=f"var(--c{at % COLOURS})"),
        _text(left + 17, base, clipped(strategy, 34), "start"),
    )  # fmt: skip


def _line(
    x1: float, y1: float, x2: float, y2: float, stroke: str = "currentColor", **more: object
) -> Markup:
    return tag(
        "line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), stroke=stroke, **more
    )


def _text(h: float, v: float, words: str, anchor: str, **more: object) -> Markup:
    more.setdefault("fill", "var(--muted)")
    return tag("text", words, x=float(h), y=float(v), text_anchor=anchor, **more)
