"""Small drawings inside the report: bars in tables and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence

from cosilo.objectives.reliability import Reliability
from cosilo.report.markup import Markup, tag
from cosilo.report.words import count

_WIDE, _HIGH = 160.0, 14.0


def share_bar(share: float) -> Markup:
    """How much of a whole: a filled part of a track."""
    return _bar([("leak", 0.0, min(max(share, 0.0), 1.0))], f"{100 * share:.3g} %")


def stacked_bar(parts: Sequence[float], longest: float) -> Markup:
    """Up to three parts beside each other, on a scale where `longest` fills the track."""
    scale = longest or 1.0
    drawn, at = [], 0.0
    for kind, part in zip(("one", "two", "three"), parts, strict=False):
        drawn.append((kind, at / scale, part / scale))
        at += part
    return _bar(drawn, None)


def _bar(parts: Sequence[tuple[str, float, float]], words: str | None) -> Markup:
    return tag(
        "svg",
        tag("rect", width=_WIDE, height=_HIGH, rx=2, class_="track"),
        [
            tag("rect", x=start * _WIDE, width=width * _WIDE, height=_HIGH, class_=kind)
            for kind, start, width in parts
            if width > 0
        ],
        viewBox=f"0 0 {_WIDE:g} {_HIGH:g}",
        preserveAspectRatio="none",
        class_="bar",
        role="img" if words else None,
        aria_label=words,
        aria_hidden=None if words else "true",
    )


def reliability_diagram(about: str, found: Reliability) -> Markup:
    """Accuracy by confidence with intervals, the ideal line, and how many items each bin holds."""
    left, top, side, strip = 44.0, 10.0, 300.0, 44.0
    base = top + side
    most = int(found.count.max())

    def h(value: float) -> float:
        return left + value * side

    def v(value: float) -> float:
        return base - value * side

    drawn = [
        _line(h(0), v(0), h(1), v(1), "ideal"),
        *(_line(h(0), v(t), h(1), v(t), "grid") for t in (0.0, 0.25, 0.5, 0.75, 1.0)),
    ]
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        shown = f"{100 * t:g}"
        drawn.append(tag("text", shown, x=left - 7, y=v(t) + 4, text_anchor="end"))
        drawn.append(tag("text", shown, x=h(t), y=base + strip + 28, text_anchor="middle"))
    for i, n in enumerate(found.count.tolist()):
        start, end = h(float(found.lower[i])), h(float(found.upper[i]))
        sure, right = float(found.confidence[i]), float(found.grade[i])
        ends = float(found.low[i]), float(found.high[i])
        words = (
            f"confidence {100 * sure:.1f} %, right {100 * right:.1f} % "
            f"[{100 * ends[0]:.1f} – {100 * ends[1]:.1f}], {count(n, 'item')}"
        )
        middle, inside, wide = (start + end) / 2, start + 2, end - start - 4
        drawn.append(
            tag(
                "g",
                tag("title", words),
                _rect(inside, v(right), wide, right * side, "accuracy"),
                _line(middle, v(ends[0]), middle, v(ends[1]), "error"),
                _line(start + 1, v(sure), end - 1, v(sure), "sure"),
                _rect(inside, base + 10, wide, max(1.0, n / most * strip), "count"),
            )
        )
    drawn.append(
        tag(
            "text",
            "confidence (%); grey: how many items",
            x=h(0.5),
            y=base + strip + 48,
            text_anchor="middle",
        )
    )
    drawn.append(tag("text", "right (%)", text_anchor="middle",
                     transform=f"translate(12,{v(0.5):g}) rotate(-90)"))  # fmt: skip
    low, high = 100 * found.error_low, 100 * found.error_high
    ece = f"expected calibration error {100 * found.error:.1f} % [{low:.1f} – {high:.1f}]"
    return tag(
        "figure",
        tag("figcaption", about, tag("small", f"n = {found.n:,}, {ece}", class_="over")),
        tag("svg", drawn, viewBox=f"0 0 {left + side + 14:g} {base + strip + 56:g}", role="img",
            aria_label=f"{about}: {ece}"),
        class_="diagram",
    )  # fmt: skip


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return tag("rect", x=x, y=y, width=width, height=height, class_=kind)
