"""Draws docs/img/partial.svg: what each split of a prompt costs, and what is found of its span.

    python benchmarks/secure_partial_picture.py

From benchmarks/results/secure_partial.json; `secure_partial.py` calls it, too.
"""

from __future__ import annotations

import math
from typing import Any

from cosilo.report.markup import Markup, tag, trusted
from cosilo.report.svg import SHAPES, STYLE
from kept import ROOT, load

PICTURE = ROOT / "docs" / "img" / "partial.svg"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 400, 62, 24, 20, 56
TICKS = (0, 50, 250, 500, 1000, 2000, 3000, 4000, 5000)
CLEAR, CUT, SECRET, NAMES = range(4)
NAMED = {
    "clear": ("all in clear", CLEAR, 8, 18, "start"),
    "first 2": ("first 2 layers in secret, from the span on", CUT, 10, -10, "start"),
    "first 15": ("first 15 layers in secret", CUT, 12, 24, "start"),
    "span": ("the span's places alone (at least)", CUT, 12, 4, "start"),
    "pseudonym": ("placeholder (often another answer)", NAMES, 6, 20, "start"),
    "secret": ("all in secret", SECRET, 8, 20, "end"),
}


def picture(rows: Any) -> Markup:
    most = 1.04 * max(row["online_mb"]["value"] for row in rows.values() if "online_mb" in row)

    def h(megabytes: float) -> float:
        return round(LEFT + math.sqrt(megabytes / most) * (WIDTH - LEFT - RIGHT), 1)

    def v(share: float) -> float:
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def mark(name: str, megabytes: float, found: Any, kind: int) -> Markup:
        at = h(megabytes)
        return tag(
            "g",
            tag("title", f"{name}: {megabytes:,.0f} MB, {100 * found['value']:.0f} % found"),
            tag("line", x1=at, x2=at, y1=v(found["low"]), y2=v(found["high"]),
                stroke=f"var(--c{kind})", stroke_opacity="0.45"),
            tag("path", d=SHAPES[kind], transform=f"translate({at},{v(found['value'])})",
                fill=f"var(--c{kind})"),
        )  # fmt: skip

    def text(said: str, x: float, y: float, anchor: str = "start", **more: object) -> Markup:
        return tag("text", said, x=x, y=y, text_anchor=anchor, fill="var(--muted)", **more)

    grid = [
        (tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=v(y), y2=v(y), stroke="var(--line)"),
         text(f"{100 * y:.0f}", LEFT - 8, v(y) + 4, "end"))
        for y in (0, 0.25, 0.5, 0.75, 1)
    ]  # fmt: skip
    ticks = [text(f"{mb:,}", h(mb), HEIGHT - BOTTOM + 18, "middle") for mb in TICKS if mb < most]
    guess = rows["guess"]["found"]
    band = tag(
        "rect", x=LEFT, width=WIDTH - LEFT - RIGHT, y=v(guess["high"]),
        height=round(v(guess["low"]) - v(guess["high"]), 1), fill="var(--line)",
    )  # fmt: skip
    begins = [row for row in rows if row.startswith("begins at ") and row != "begins at 0"]
    suffix = rows["suffix"]["found"]
    places = [(int(row.split()[-1]), rows[row]["online_mb"]["value"]) for row in begins]
    line = "M" + "L".join(
        f"{h(mb)},{v(suffix['value'])}"
        for mb in sorted([mb for _, mb in places] + [rows["secret"]["online_mb"]["value"]])
    )
    return tag(
        "svg",
        tag("style", trusted(STYLE)),
        band,
        grid,
        ticks,
        text("MB that all parties send for one answer, less is better", 403, HEIGHT - 16, "middle"),
        text("found of the span by the LM's owner (%)", 0, 0, "middle",
             transform=f"translate(14,{v(0.5)}) rotate(-90)"),
        text("what the LM guesses from the prefix, with its 95 % interval", WIDTH - RIGHT - 4,
             v(guess["high"]) - 6, "end"),
        tag("path", d=line, fill="none", stroke="var(--c2)", stroke_opacity="0.6"),
        [mark(f"in secret from token {at} on", mb, suffix, SECRET) for at, mb in places],
        [text(f"{at // 8}/8", h(mb), v(suffix["value"]) - 10, "middle") for at, mb in places],
        [mark(said, rows[name]["online_mb"]["value"], rows[name]["found"], kind)
         for name, (said, kind, *_) in NAMED.items()],
        [text(said, h(rows[name]["online_mb"]["value"]) + x,
              v(rows[name]["found"]["value"]) + y, anchor)
         for name, (said, _, x, y, anchor) in NAMED.items()],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="front",
        role="img",
        aria_label="found of a private span over bytes, by how a prompt is split",
    )  # fmt: skip


def draw() -> None:
    PICTURE.write_text(picture(load("secure_partial")["rows"]), "utf-8")


if __name__ == "__main__":
    draw()
