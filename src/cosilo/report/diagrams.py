"""Small drawings inside the report: bars in tables and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence

from cosilo.report.data import Reliability
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


def reliability_diagram(found: Reliability) -> Markup:
    """Accuracy by confidence with intervals, the ideal line, and how many items each bin holds."""
    left, top, side, strip = 44.0, 10.0, 300.0, 44.0
    base = top + side
    most = max(b.n for b in found.bins)

    def h(value: float) -> float:
        return left + value * side

    def v(value: float) -> float:
        return base - value * side

    drawn = [
        tag("line", x1=h(0), y1=v(0), x2=h(1), y2=v(1), class_="ideal"),
        *(
            tag("line", x1=h(0), y1=v(t), x2=h(1), y2=v(t), class_="grid")
            for t in (0.0, 0.25, 0.5, 0.75, 1.0)
        ),
    ]
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        shown = f"{100 * t:g}"
        drawn.append(tag("text", shown, x=left - 7, y=v(t) + 4, text_anchor="end"))
        drawn.append(tag("text", shown, x=h(t), y=base + strip + 28, text_anchor="middle"))
    for b in found.bins:
        middle, wide = h((b.low + b.high) / 2), (b.high - b.low) * side
        words = (
            f"confidence {100 * b.confidence:.1f} %, right {100 * b.accuracy:.1f} % "
            f"[{100 * b.accuracy_low:.1f} – {100 * b.accuracy_high:.1f}], {count(b.n, 'item')}"
        )
        drawn.append(
            tag(
                "g",
                tag("title", words),
                tag("rect", x=h(b.low) + 2, y=v(b.accuracy), width=wide - 4,
                    height=b.accuracy * side, class_="accuracy"),
                tag("line", x1=middle, x2=middle, y1=v(b.accuracy_low), y2=v(b.accuracy_high),
                    class_="error"),
                tag("line", x1=h(b.low) + 1, x2=h(b.high) - 1, y1=v(b.confidence),
                    y2=v(b.confidence), class_="sure"),
                tag("rect", x=h(b.low) + 2, y=base + 10, width=wide - 4,
                    height=max(1.0, b.n / most * strip), class_="count"),
            )
        )  # fmt: skip
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
    ece = f"expected calibration error {100 * found.ece:.1f} %"
    return tag(
        "figure",
        tag("figcaption", found.about, tag("small", f"n = {found.n:,}, {ece}", class_="over")),
        tag("svg", drawn, viewBox=f"0 0 {left + side + 14:g} {base + strip + 56:g}", role="img",
            aria_label=f"{found.about}: {ece}"),
        class_="diagram",
    )  # fmt: skip
