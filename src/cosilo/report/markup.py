"""HTML and SVG as nested calls, escaped unless made here.

    tag("td", "a < b", class_="n")  ──▶  <td class="n">a &lt; b</td>

A plain string is always text. Only `tag`, `joined` and `trusted` make `Markup`, so forgetting to
escape is not possible, only doing it twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "br", "hr", "input", "link", "img"})
_CONTROL = {c: "�" for c in range(32) if chr(c) not in "\t\n\r"} | {127: "�"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Markup | None | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element.

    Args:
        attributes: `class_` stands for `class`, other underscores for hyphens (`viewBox` keeps its
            case). None and False leave an attribute out; True writes it without a value.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Children one after another: strings escaped, None left out."""
    return Markup("".join(_flat(children)))


def trusted(text: str) -> Markup:
    """`text` as it is: for parts that came with this package, never for anything else."""
    return Markup(text)


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(child.translate(_CONTROL))
        else:
            yield from _flat(child)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(shown.translate(_CONTROL))}"'
