"""Limits: what the user asks of a point, e.g. "privacy=0.02", "privacy=2%" or "utility=0.95x-large"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cosilo.errors import ConfigError
from cosilo.objectives.base import Objective
from cosilo.registry import unknown

Direction = Literal["at most", "at least"]


@dataclass(frozen=True)
class Limit:
    """An objective must be at most (goal "min") or at least (goal "max") `bound`.

    Attributes:
        bound: in the objective's unit; a factor where `relative_to` is set.
        relative_to: the name of a point: the limit is `bound` times that point's value.
    """

    objective: Objective
    bound: float
    relative_to: str | None = None

    @property
    def direction(self) -> Direction:
        return "at most" if self.objective.goal == "min" else "at least"

    def __str__(self) -> str:
        wanted = f"{self.bound:g}x-{self.relative_to}" if self.relative_to else f"{self.bound:g}"
        return f"{self.objective.name}={wanted}"


_VALUE = re.compile(r"(?P<number>[^x\s]+(?: %)?)(?:x-(?P<point>.+))?", re.DOTALL)


def parse_limit(
    text: str,
    objectives: Mapping[str, Objective],
    *,
    points: Iterable[str] | None = None,
    direction: Direction | None = None,
) -> Limit:
    """The limit that `text` states: `NAME=NUMBER` or `NAME=FACTORx-POINT`; 5% is 0.05.

    Args:
        objectives: what can be limited, by name.
        points: the names a relative limit may refer to; unchecked when None.
        direction: what the flag that brought `text` says, refused if the objective runs the other
            way; None to take the objective's own.

    Raises:
        ConfigError: the text is no limit, names an unknown objective or point, or is a number that
            the objective cannot be.
    """
    name, equals, value = text.partition("=")
    name, match = name.strip(), _VALUE.fullmatch(value.strip())
    if not equals or match is None:
        raise ConfigError(
            f"{text!r} is no limit; write NAME=NUMBER (privacy=0.02, privacy=2%) "
            "or NAME=FACTORx-POINT (utility=0.95x-large)"
        )
    if name not in objectives:
        raise ConfigError(unknown("objective", name, objectives))
    bound, percent = _number(match["number"])
    if not math.isfinite(bound):
        raise ConfigError(f"limit {text!r}: {match['number']!r} is not a number")
    point = match["point"]
    if point is not None and bound <= 0:
        raise ConfigError(f"limit {text!r}: the factor must be above 0")
    if point is None:
        _check_range(text, objectives[name], bound, percent=percent)
    if point is not None and points is not None:
        known = tuple(points)
        if point not in known:
            raise ConfigError(f"limit {text!r}: {unknown('point', point, known)}")
    limit = Limit(objectives[name], bound, point)
    if direction is not None and direction != limit.direction:
        place = {"at most": "--limit, or in [limits]", "at least": "--at-least, or in [at_least]"}
        raise ConfigError(
            f"limit {text!r}: {name!r} is to be {limit.direction} something, not {direction}; "
            f"give it with {place[limit.direction]} of the plan"
        )
    return limit


def _number(text: str) -> tuple[float, bool]:
    """The number, and whether it was written as a percentage."""
    digits = text.removesuffix("%")
    try:
        value = float(digits)
    except ValueError:
        return math.nan, False
    return (value, False) if digits == text else (value / 100, True)


def _check_range(text: str, objective: Objective, bound: float, *, percent: bool) -> None:
    """Refuse a number that `objective` cannot be: every point would keep the limit, or none."""
    share = objective.unit.split(" ")[0] == "share"
    if percent and not share:
        raise ConfigError(
            f"limit {text!r}: {objective.name!r} is no share and takes no %, but "
            f"{objective.unit or 'a number'}"
        )
    low, high = objective.bounds or (0.0, math.inf)
    if low <= bound <= high:
        return
    if math.isinf(high):
        raise ConfigError(f"limit {text!r}: {objective.name!r} cannot be below {low:g}")
    hint = "; 5% is 0.05" if share else ""
    raise ConfigError(f"limit {text!r}: {objective.name!r} lies between {low:g} and {high:g}{hint}")
