"""Numbers as people read them: without their unit in tables, with it in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cosilo.clock import Effort
from cosilo.objectives.base import Measurement, Objective
from cosilo.objectives.links import OverLinks
from cosilo.objectives.wording import amount, label
from cosilo.report.data import Gain, Report
from cosilo.selection import Limit, Point


def number(objective: Objective, value: float) -> str:
    """`value` without its unit: a share as a percentage, three digits of anything else."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if objective.unit.split(" ")[0] == "share":
        value *= 100
        shown = f"{value:.1f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    elif abs(value) >= 1000:
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.3g}"
    return "0" if float(shown.replace(",", "")) == 0 and value == 0 else shown.replace("-", "−")


def unit(objective: Objective) -> str:
    """What stands beside the number: "%", "$ per 1,000 requests", "ms"."""
    first, _, rest = objective.unit.partition(" ")
    return " ".join(filter(None, ({"share": "%", "USD": "$"}.get(first, first), rest)))


_PLAINLY = {"privacy": "leak", "integrity": "harm", "exposure": "copied"}
"""What is measured where an objective is named for what it guards, or for what is done with it."""


def titled(objective: Objective, *, bare: bool = False) -> str:
    """ "entity leak (%)"; "leak (privacy, %)", since 100 % privacy would sound like the best; a name
    that says its unit itself stands alone: "usd per 1k". `bare` leaves units out.
    """
    shown = "" if bare or objective.name.startswith("usd_per") else unit(objective)
    plainly = _PLAINLY.get(objective.name, "")
    noted = ", ".join(filter(None, (label(objective) if plainly else "", shown)))
    return f"{plainly or label(objective)} ({noted})" if noted else label(objective)


def arrow(objective: Objective) -> str:
    """Which way is better."""
    return "↑" if objective.goal == "max" else "↓"


def interval(measurement: Measurement) -> str:
    """ "91.2 – 95.1"; the unit stands elsewhere."""
    low, high = (
        number(measurement.objective, measurement.low),
        number(measurement.objective, measurement.high),
    )
    return low if low == high else f"{low} – {high}"


def size(count: float) -> str:
    """Bytes: "812 B", "41.2 kB"."""
    for power, name in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {name}"
    return f"{count:.0f} B" if count >= 10 or count == int(count) else f"{count:.1f} B"


def seconds(value: float) -> str:
    """A time: "0", "4.1 ms", "1.24 s", "3.2 min"."""
    if value == 0:
        return "0"
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def dollars(value: float) -> str:
    """Money: "$0", "$0.0042", "$12.40"."""
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}"


def count(number: int, noun: str) -> str:
    """ "1 item", "1,240 items"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def settings(point: Point) -> str:
    """The point's own settings: "calls = 0.4, seed = 1"."""
    return ", ".join(f"{key} = {_setting(value)}" for key, value in point.settings.items())


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def edge(limit: Limit) -> str:
    """A limit where its objective is known already: "≥ 0.95 × large", "≤ 5 %"."""
    sign = "≤" if limit.direction == "at most" else "≥"
    if limit.relative_to is not None:
        return f"{sign} {limit.bound:g} × {limit.relative_to}"
    return f"{sign} {amount(limit.objective, limit.bound)}"


def bound(report: Report, limit: Limit, split: str) -> float | None:
    """The number `limit` comes down to on a split; None when the point it refers to has none."""
    if limit.relative_to is None:
        return limit.bound
    for point in report.points:
        if point.name == limit.relative_to:
            found = (point.test if split == "test" else point.validation).get(limit.objective.name)
            return None if found is None else limit.bound * found.value
    return None


def clipped(text: str, most: int) -> str:
    """`text`, cut to `most` characters with an ellipsis where it is longer."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def found(value: int | float | str) -> str:
    """A value of a card: counts in full, three digits of anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


_AMISS = {
    "cut": "cut off at the limit of tokens",
    "empty": "empty",
    "unreadable": "without an answer that could be read",
}


def amiss(point: str, answers: int, faults: Mapping[str, int]) -> str:
    """ "large: of 30 test answers 28 were cut off at the limit of tokens, 30 empty"."""
    told = ", ".join(f"{faults[k]:,} {said}" for k, said in _AMISS.items() if faults.get(k))
    return f"{point}: of {count(answers, 'test answer')} {told}"


def paced(over: OverLinks) -> str:
    """ "a round of 3 took 1.2 s as it ran; predicted: 1.3 s over LAN, 4 s over 20 Mbit/s at 100 ms"."""
    said = ", ".join(f"{in_seconds(over.each(name))} over {name}" for name in over.seconds)
    ran = in_seconds(over.ran / over.turns)
    return f"a {over.turn} of {over.turns:,} took {ran} as it ran; predicted: {said}"


def effort_in_words(effort: Effort) -> str:
    """ "preparing took 12 s, 11 s of CPU and 412 MB at its peak"."""
    return (
        f"preparing took {in_seconds(effort.seconds)}, {in_seconds(effort.cpu_seconds)} of CPU and "
        f"{size(effort.memory)} at its peak"
    )


def in_seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 9.95 else f"{seconds:.2g} s"


def bought(gain: Gain) -> tuple[str, str]:
    """ "+2.4 points [0.3, 4.6]" and "18.2 kB, $0.013 per point"; nothing bought has no price."""
    value, low, high = (
        f"{100 * x:.1f}".replace("-", "−") for x in (gain.value, gain.low, gain.high)
    )
    plus = "+" if gain.value > 0 else ""
    said = f"{plus}{value} points of utility over small alone [{low}, {high}]"
    if not gain.size:
        return said, "nothing crossed"
    if gain.value <= 0:
        return said, f"{size(gain.size)}, {dollars(gain.usd)} in all"
    points = 100 * gain.value
    return said, f"{size(gain.size / points)}, {dollars(gain.usd / points)} per point"
