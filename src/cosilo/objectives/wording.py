"""How the numbers of an objective are written for people: units, signs, names."""

from __future__ import annotations

from cosilo.objectives.base import Objective


def label(objective: Objective) -> str:
    """ "entity_leak" → "entity leak"; a unit that the number will carry is left off the end."""
    name = objective.name
    unit = objective.unit.split(" ")[0].lower()
    return name.removesuffix(f"_{unit}").replace("_", " ")


def amount(objective: Objective, value: float) -> str:
    """`value` with its unit: "2 %", "$0.40 per 1,000 requests", "120 ms"."""
    unit = objective.unit.split(" ")[0]
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit == "USD":
        return f"${value:.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"
    return f"{_digits(value)} {objective.unit}".rstrip()


def wanted(objective: Objective, bound: float, relative_to: str | None = None) -> str:
    """A limit as part of a sentence: "utility ≥ 0.95 × large", "at most $0.40 per 1,000 requests"."""
    sign, words = ("≤", "at most") if objective.goal == "min" else ("≥", "at least")
    if relative_to is not None:
        text = f"{label(objective)} {sign} {bound:g} × {relative_to}"
    elif objective.unit.startswith("USD "):
        text = f"{words} {amount(objective, bound)} {objective.unit.removeprefix('USD ')}"
    else:
        text = f"{label(objective)} {sign} {amount(objective, bound)}"
    if objective.quantile is None or relative_to is not None:
        return text
    percent = f"{100 * objective.quantile:g}"
    return f"{text.replace(f' p{percent} ', ' ')} for {percent} % of requests"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
