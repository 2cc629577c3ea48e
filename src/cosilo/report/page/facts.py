"""What was compared, on what, with which models; how it was made, and how to make it again."""

from __future__ import annotations

from collections.abc import Iterator

from cosilo.report.data import ModelFacts, Report
from cosilo.report.markup import Markup, joined, tag
from cosilo.report.page.blocks import section, table
from cosilo.report.words import number, titled


def facts(report: Report) -> Markup:
    """What was compared, on what, with which models."""
    task = report.task
    splits = ", ".join(f"{n:,} {split}" for split, n in task.items.items() if n)
    answers = f", {task.labels} labels" if task.labels else ""
    shown: list[tuple[str, str, str]] = [
        ("Task", f"{task.kind}{answers}", task.name),
        ("Items", f"{sum(task.items.values()):,}", splits),
        ("Secrets", *_secrets(report)),
    ]
    for model in report.models:
        shown.append((f"{model.role.capitalize()} model", model.name, _prices(model)))
    link = f"{report.link.rtt_ms:g} ms round trip, {report.link.mbit_per_s:g} Mbit/s"
    shown.append(("Link stated for latency", link, ""))
    shown.append(("Seed", str(report.seed), report.made))
    return tag(
        "dl",
        [
            tag("div", tag("dt", name), tag("dd", value, tag("small", more) if more else None))
            for name, value, more in shown
        ],
        class_="facts",
    )


def _secrets(report: Report) -> tuple[str, str]:
    if report.task.gold_secrets:
        return "given with the data", ""
    if not report.secrets_known:
        return "none known", "none given, none detected"
    return "detected, not given", ""


def provenance(report: Report) -> Markup:
    """How it was made, and how to make it again."""
    notes = [*_standing_notes(report), *report.task.notes, *report.notes]
    versions = ", ".join(f"{part} {version}" for part, version in report.versions.items())
    return section(
        "made",
        "How this was made",
        tag("h3", "What to know"),
        tag("ul", [tag("li", note) for note in notes], class_="notes"),
        tag("h3", "Models"),
        _models(report.models),
        joined(
            tag("h3", "Make it again"),
            tag("pre", "\n".join(report.commands), class_="commands"),
        )
        if report.commands
        else None,
        joined(tag("h3", "Versions"), tag("p", versions)) if versions else None,
    )


def _standing_notes(report: Report) -> Iterator[str]:
    yield (
        "Points are compared on the validation items, certified on the certificate items, and "
        "reported on the test items, which nothing else has read."
    )
    yield "Intervals are 95 %. A base rate is what the same number is without the method at hand."
    if not report.secrets_known:
        yield (
            "No secrets were given with the data and none were detected: a privacy number here says "
            "only what re-linking finds. Name a secrets column, or install cosilo[pii]."
        )
    elif not report.task.gold_secrets:
        yield (
            "Secrets were detected, not given: a leak of something the detector missed is not "
            "counted, so every privacy number is a lower bound of the leak."
        )
    if report.hypervolume is not None:
        known = {o.name: o for o in report.objectives}
        corner = ", ".join(
            f"{titled(known[name])} {number(known[name], value)}"
            for name, value in report.reference.items()
            if name in known
        )
        corner = f", up to {corner}" if corner else ""
        yield f"Hypervolume of the front on the validation items: {report.hypervolume:.4g}{corner}."


def _models(models: tuple[ModelFacts, ...]) -> Markup:
    rows = [
        [
            tag("th", m.role, scope="row"),
            tag("td", m.name, tag("small", m.kind) if m.kind else None),
            tag("td", m.access),
            tag("td", m.licence or "not stated"),
            tag("td", _prices(m) or "–"),
        ]
        for m in models
    ]
    return table(["role", "model", "shows", "licence", "price"], rows, label="Models")


def _prices(model: ModelFacts) -> str:
    price = model.price
    said = []
    if price.usd_per_m_in or price.usd_per_m_out:
        said.append(
            f"${price.usd_per_m_in:g} / ${price.usd_per_m_out:g} per million tokens in / out"
        )
    if price.usd_per_m_cached is not None:
        said.append(f"${price.usd_per_m_cached:g} of those in that were read before")
    if price.usd_per_hour:
        said.append(f"${price.usd_per_hour:g} per hour of work")
    if price.usd_per_gb:
        said.append(f"${price.usd_per_gb:g} per GB both ways")
    return ", ".join(said)
