"""The section on what was made from the records: a picture of the graph, and a table of the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from cosilo.report.layered import HIGH, WIDE, Layered, layered
from cosilo.report.made_from import Became, MadeBox, MadeFromRecords
from cosilo.report.markup import Markup, tag
from cosilo.report.page.blocks import right, section, table
from cosilo.report.svg import SHAPES
from cosilo.report.words import clipped

_MOST = 26  # characters of a line in a box
_MARKS = dict(zip(Became, SHAPES, strict=True))


def lineage_section(id: str, title: str, made: MadeFromRecords, *said: str) -> Markup:
    """The picture, what its marks mean, and the same facts as a table.

    Args:
        said: what stands above it, a paragraph each.
    """
    return section(
        id,
        title,
        *(tag("p", text, class_="note") for text in said),
        tag(
            "div",
            _picture(made),
            class_="box lineage",
            tabindex=0,
            role="region",
            aria_label=f"{title}: a graph; the table below says the same",
        ),
        _legend(made),
        _table(made, title),
    )


def _picture(made: MadeFromRecords) -> Markup:
    plan = layered([box.layer for box in made.boxes], made.edges)
    return tag(
        "svg",
        [tag("path", d=_path(way), class_="edge") for way in plan.edges],
        [_arrow(plan, box) for box in sorted({b for _, b in made.edges})],
        [_box(box, *place) for box, place in zip(made.boxes, plan.boxes, strict=True)],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {plan.width:g} {plan.height:g}",
        width=plan.width,
        height=plan.height,
        role="img",
        aria_label=f"{_count(made)}, {len(made.edges):,} links from what each was made from",
    )


def _path(way: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = way
    path = f"M{x:g},{y:g}"
    for at, (to, v) in enumerate(rest):
        # To a lane or to the end it bends; along a lane it is straight.
        path += (
            f"H{to:g}" if at % 2 else f"C{(x + to) / 2:g},{y:g} {(x + to) / 2:g},{v:g} {to:g},{v:g}"
        )
        x, y = to, v
    return path


def _arrow(plan: Layered, box: int) -> Markup:
    x, y = plan.boxes[box]
    return tag("path", d=f"M{x - 8:g},{y + HIGH / 2 - 4:g}l8,4l-8,4Z", class_="head")


def _box(box: MadeBox, x: float, y: float) -> Markup:
    state = box.became
    return tag(
        "g",
        tag("title", ": ".join(filter(None, (_title(box), box.detail, state)))),
        tag("rect", x=0.0, y=0.0, width=WIDE, height=HIGH, rx=0 if state is None else 7),
        tag("text", clipped(_title(box), _MOST), x=10, y=19, class_="what"),
        tag("text", clipped(box.detail, _MOST), x=10, y=35),
        [_mark(state, 16, 49), tag("text", state, x=27, y=53, class_="state")] if state else None,
        transform=f"translate({x:g},{y:g})",
        class_=f"made {_class(state)}",
    )


def _mark(state: Became, x: float, y: float) -> Markup:
    return tag(
        "path", d=_MARKS[state], transform=f"translate({x:g},{y:g}) scale(.9)", class_="mark"
    )


def _class(state: Became | None) -> str:
    return "records" if state is None else state.name.lower()


def _legend(made: MadeFromRecords) -> Markup:
    there = {box.became for box in made.boxes}
    shown = [
        tag("span", tag("svg", _mark(state, 8, 8), viewBox="0 0 16 16", aria_hidden="true",
            class_=f"made {_class(state)}"), state)
        for state in Became
        if state in there
    ]  # fmt: skip
    return tag("div", shown, class_="swatches lineage-keys")


def _table(made: MadeFromRecords, title: str) -> Markup:
    sources: dict[int, list[int]] = defaultdict(list)
    for a, b in made.edges:
        sources[b].append(a)
    head: list[str | Markup] = [
        "what",
        "by, or of",
        right("how many", cell="th"),
        "state",
        "made from",
    ]
    rows = [
        [
            tag("th", box.title, scope="row"),
            tag("td", box.detail or "–"),
            right("" if box.became is None else f"{box.count:,}"),
            tag("td", box.became or "–"),
            tag("td", "; ".join(_names(made.boxes, sources[at])) or "–"),
        ]
        for at, box in enumerate(made.boxes)
    ]
    return table(head, rows, label=f"{title}: table")


def _names(boxes: Sequence[MadeBox], numbers: Sequence[int]) -> Iterator[str]:
    titles = Counter(box.title for box in boxes)
    for number in numbers:
        box = boxes[number]
        yield f"{box.title} ({box.detail})" if titles[box.title] > 1 else box.title


def _title(box: MadeBox) -> str:
    return f"{box.count:,} × {box.title}" if box.count > 1 else box.title


def _count(made: MadeFromRecords) -> str:
    sets = sum(box.became is None for box in made.boxes)
    return f"{sets} sets of records, {made.artifacts:,} things made from them"
