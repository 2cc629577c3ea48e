"""Building blocks that the sections of the report share."""

from __future__ import annotations

from cosilo.report.markup import Markup, tag
from cosilo.selection import Point


def section(id: str, title: str, *children: Markup | None) -> Markup:
    return tag("section", tag("h2", title), *children, id=id)


def table(head: list[str | Markup], rows: list[list[Markup]], *, label: str) -> Markup:
    """A table inside a box that scrolls on its own, so that the page never has to."""
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", [h if isinstance(h, Markup) else tag("th", h) for h in head])),
            tag("tbody", [tag("tr", row) for row in rows]),
        ),
        class_="box",
        tabindex=0,
        role="region",
        aria_label=label,
    )


def right(text: str, *, cell: str = "td") -> Markup:
    return tag(cell, text, class_="n")


def made_of(point: Point) -> str:
    """ "cascade + pseudonym": the strategy and the defences around it."""
    return " + ".join((point.strategy, *point.defences))
