"""Where an item's time and money go, and whether the small model's confidence can be believed."""

from __future__ import annotations

from cosilo.report.data import Cost, Report
from cosilo.report.diagrams import reliability_diagram, stacked_bar
from cosilo.report.markup import Markup, tag
from cosilo.report.page.blocks import right, section, table
from cosilo.report.words import count, dollars, seconds, size


def costs(report: Report) -> Markup | None:
    """Where an item's time and money go, per point."""
    if not report.costs:
        return None
    shown = [(p, report.costs[p.name]) for p in report.points if p.name in report.costs]
    longest = max((_latency(cost) for _, cost in shown), default=0.0)
    rows = [
        [
            tag("th", point.name, scope="row"),
            right(f"{100 * cost.calls:.3g} %" if cost.calls <= 1 else f"{cost.calls:.3g} ×"),
            right(f"{cost.tokens_in:.3g} / {cost.tokens_out:.3g}"),
            right(dollars(1000 * cost.usd)),
            tag(
                "td",
                stacked_bar((cost.local_seconds, cost.network_seconds, cost.lm_seconds), longest),
            ),
            right(seconds(_latency(cost))),
            right(seconds(cost.p50_seconds)),
            right(seconds(cost.p95_seconds)),
            right(seconds(cost.cpu_seconds)),
            right(size(cost.peak_memory) if cost.peak_memory else "–"),
            right(_prepared(cost)),
        ]
        for point, cost in shown
    ]
    heads: list[str | Markup] = [
        "point",
        *(right(h, cell="th") for h in ("LM calls", "tokens in / out", "$ per 1,000")),
    ]
    heads += [
        "mean latency",
        *(
            right(h, cell="th")
            for h in ("mean", "median", "95 %", "CPU", "process memory", "preparing")
        ),
    ]
    return section(
        "cost",
        "Cost and latency",
        tag(
            "p",
            "Means per test item. Latency is the owner's own work, the stated link and the "
            "large model's service time, added up; not the time the benchmark took. Memory is the "
            "peak of the whole process: what earlier points loaded is still in it, so it bounds what a "
            "point needs from above. Preparing is paid once.",
            class_="note",
        ),
        tag(
            "div",
            [
                tag("span", tag("span", class_=f"swatch {kind}"), words)
                for kind, words in (
                    ("one", "own machine"),
                    ("two", "link"),
                    ("three", "large model"),
                )
            ],
            class_="swatches",
        ),
        tag("div", table(heads, rows, label="Cost and latency by point"), class_="tight"),
    )


def _latency(cost: Cost) -> float:
    return cost.local_seconds + cost.network_seconds + cost.lm_seconds


def _prepared(cost: Cost) -> str:
    spent = cost.prepare
    if not spent.messages:
        return "–"
    return f"{count(spent.messages, 'call')}, {dollars(spent.usd)}"


def confidence(report: Report) -> Markup | None:
    """Whether the small model's confidence can be believed."""
    if not report.reliability:
        return None
    return section(
        "confidence",
        "Can the small model's confidence be believed?",
        tag(
            "p",
            "A cascade asks the large model where the small one is unsure, so this decides how "
            "well it can choose. Bars: how often answers were right, with 95 % intervals. Marks: how "
            "sure the model was. Where both agree, the confidence is calibrated.",
            class_="note",
        ),
        tag(
            "div",
            [reliability_diagram(*each) for each in report.reliability.items()],
            class_="diagrams",
        ),
    )
