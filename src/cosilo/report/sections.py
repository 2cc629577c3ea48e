"""The sections of the HTML report that need no script: what was certified, crossed, cost and used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosilo.objectives.wording import amount, wanted
from cosilo.report.data import Cost, Crossed, ModelFacts, Report, Shown, Tally
from cosilo.report.diagrams import reliability_diagram, share_bar, stacked_bar
from cosilo.report.markup import Markup, joined, tag
from cosilo.report.masking import BLOCKS
from cosilo.report.words import count, dollars, number, seconds, size, titled
from cosilo.selection import Certificate, LimitTest, Point

METHODS = {
    "binomial": "exact binomial",
    "hoeffding-bentkus": "Hoeffding–Bentkus",
    "betting": "betting, paired",
    "measured": "measured only",
}


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


# ── at the top ───────────────────────────────────────────────────────────────


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
    if _none_known(report):
        return "none known", "none given, none detected"
    return "detected, not given", ""


def _none_known(report: Report) -> bool:
    """Nobody gave secrets and none were detected, so no number says how private anything is."""
    known = (
        kinds
        for crossed in report.crossed.values()
        for kinds in (crossed.secrets, crossed.background)
    )
    return not report.task.gold_secrets and bool(report.crossed) and not any(known)


def verdict(report: Report) -> Markup:
    """The limits and the certificate, as one sentence and the tests behind it."""
    certificate = report.certificate
    if certificate is None:
        return _verdict(
            "",
            "Nothing is certified",
            "No limits were given, so every number here is a measurement and no promise.",
            tag(
                "p", "Give limits in the plan or to cosilo select, and report again.", class_="note"
            ),
        )
    chosen = certificate.chosen
    sure = chosen is not None and any(t.p is not None for t in chosen.limits)
    kind, head = (
        ("good", "Certified")
        if sure
        else ("doubt", "Measured, not certified" if chosen else "Not certified")
    )
    test = chosen or certificate.nearest
    sentence = certificate.sentence()
    return _verdict(
        kind,
        head,
        f"{sentence[:1].upper()}{sentence[1:]}.",
        _limit_tests(test.point, test.limits) if test is not None else None,
        tag("p", _how(certificate), class_="note"),
        _sequence(certificate),
    )


def _verdict(kind: str, head: str, sentence: str, *more: Markup | None) -> Markup:
    return tag(
        "section",
        tag("h2", head),
        tag("p", sentence, class_="sentence"),
        *more,
        id="certificate",
        class_=f"verdict {kind}".rstrip(),
    )


def _limit_tests(point: str, tests: tuple[LimitTest, ...]) -> Markup:
    rows = []
    for test in tests:
        objective = test.limit.objective
        words = wanted(objective, test.limit.bound, test.limit.relative_to)
        rows.append(
            [
                tag("th", words, scope="row"),
                right(amount(objective, test.value)),
                right(amount(objective, test.bound)),
                right(f"{test.n:,}"),
                right("–" if test.p is None else _p(test.p)),
                tag("td", METHODS[test.method]),
                tag(
                    "td",
                    "kept" if test.holds else "missed",
                    class_="kept" if test.holds else "missed",
                ),
            ]
        )
    heads: list[str | Markup] = [
        "limit",
        *(right(h, cell="th") for h in ("found", "limit comes to", "n", "p")),
    ]
    return table([*heads, "test", "as found"], rows, label=f"Limits, tested on {point}")


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _how(certificate: Certificate) -> str:
    return (
        f"Learn-then-Test: the order of points was fixed on the validation items, then each was "
        f"tested on {certificate.n:,} certificate items that nothing else has used, until one "
        f"failed. The probability of certifying any point that breaks a limit is at most "
        f"{100 * certificate.delta:g} %."
    )


def _sequence(certificate: Certificate) -> Markup | None:
    if not certificate.tested:
        return None
    items = [
        tag(
            "li",
            f"{test.point}: p = {_p(test.p)}, "
            + ("certified" if test.certified else "not certified, so testing stopped"),
        )
        for test in certificate.tested
    ]
    left = len(certificate.order) - len(certificate.tested)
    if left:
        items.append(tag("li", f"{count(left, 'point')} not tested"))
    return tag("details", tag("summary", "Points in the order they were tested"), tag("ol", items))


# ── what left the building ───────────────────────────────────────────────────


def crossings(report: Report) -> Markup | None:
    """Per point, what was sent and what came back on the test items."""
    if not report.crossed:
        return None
    given = ""
    if _none_known(report):
        given = (
            " No secrets were given with the data and none were detected in it, so nothing could "
            "be masked, and no message is shown."
        )
    elif not report.task.gold_secrets:
        given = (
            " The secrets were detected in the data, not given with it: what the detector missed "
            "counts as no secret here."
        )
    return section(
        "left",
        "What left the building",
        tag(
            "p",
            "Every message is counted after all defences, as it was sent, for the test items; what "
            "preparing a point sent once stands beside it. Example messages have their secrets "
            "masked, and those that could not be masked with certainty are left out." + given,
            class_="note",
        ),
        *(
            _crossing(at, point, report)
            for at, point in enumerate(report.points)
            if point.name in report.crossed
        ),
    )


def _crossing(at: int, point: Point, report: Report) -> Markup:
    crossed, chosen = report.crossed[point.name], report.chosen == point.name
    left, held = _total(crossed.secrets)
    secrets = "no secrets known" if _none_known(report) else "no secrets in the items"
    if held:
        secrets = f"{left:,} of {count(held, 'secret')} left"
    others, _ = _total(crossed.background)
    secrets += f", {others:,} of other examples" if others else ""
    nothing = not crossed.tallies and not crossed.prepare
    asked = f"asked for {crossed.asked:,} of {crossed.items:,}"
    if not crossed.asked:
        asked = "nothing left" if nothing else "nothing left but in preparing"
    return tag(
        "details",
        tag(
            "summary",
            tag("b", point.name, tag("span", "chosen", class_="tag chosen") if chosen else None),
            tag("span", asked),
            tag("span", f"{size(crossed.size('up'))} up"),
            tag("span", secrets),
        ),
        tag(
            "div", tag("div", *_counts(crossed)), tag("div", *_messages(crossed.examples, nothing))
        ),
        id=f"left-{at}",
        class_="point",
    )


def _counts(crossed: Crossed) -> Iterator[Markup]:
    if crossed.tallies:
        yield tag("h3", f"Messages for {count(crossed.items, 'test item')}")
        yield _tallies(crossed.tallies)
    if crossed.prepare:
        yield tag("h3", "Messages while preparing, once")
        yield _tallies(crossed.prepare)
    if crossed.secrets:
        yield tag("h3", "Secrets of the test items that left readable")
        yield _leaks(crossed.secrets)
    if any(left for left, _ in crossed.background.values()):
        yield tag("h3", "Secrets of other examples that left, in preparing or as worked examples")
        yield _leaks(crossed.background)
    if crossed.replaced:
        yield tag("h3", "Placeholders that left instead")
        rows = [[tag("th", k, scope="row"), right(f"{n:,}")] for k, n in crossed.replaced.items()]
        yield table(["kind", right("count", cell="th")], rows, label="Placeholders by kind")
    if crossed.refused:
        yield tag(
            "p",
            f"{count(crossed.refused, 'item')} got no answer, because a defence or the endpoint "
            "refused them; they count as answered wrongly.",
            class_="note",
        )


def _tallies(tallies: tuple[Tally, ...]) -> Markup:
    rows = [
        [
            tag("th", f"{_way(t.direction)} {t.kind}", scope="row"),
            right(f"{t.count:,}"),
            right(size(t.size)),
            right(size(t.size / t.count) if t.count else "–"),
        ]
        for t in tallies
    ]
    heads = (right(h, cell="th") for h in ("messages", "bytes", "each"))
    return table(["message", *heads], rows, label="Messages by kind and direction")


def _way(direction: str) -> str:
    return "↑ sent:" if direction == "up" else "↓ received:"


def _leaks(secrets: Mapping[str, tuple[int, int]]) -> Markup:
    rows = [
        [
            tag("th", kind, scope="row"),
            right(f"{left:,} of {held:,}"),
            tag("td", share_bar(left / held if held else 0.0)),
        ]
        for kind, (left, held) in secrets.items()
    ]
    return table(["kind", right("left", cell="th"), "share"], rows, label="Secrets by kind")


def _messages(examples: tuple[Shown, ...], nothing: bool) -> Iterator[Markup]:
    yield tag("h3", "Example messages, secrets masked")
    if not examples:
        why = (
            "Nothing crossed."
            if nothing
            else "None could be masked with certainty, so none is shown."
        )
        yield tag("p", why, class_="note")
    for shown in examples:
        yield tag(
            "figure",
            tag("figcaption", f"{_way(shown.direction)} {shown.kind}"),
            tag("pre", *_masked(shown.text)),
            class_="message",
        )


def _masked(text: str) -> Iterator[str | Markup]:
    for i, part in enumerate(BLOCKS.split(text)):
        yield tag("span", part, class_="mask") if i % 2 else part


def _total(secrets: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    return sum(left for left, _ in secrets.values()), sum(held for _, held in secrets.values())


# ── cost, confidence, provenance ─────────────────────────────────────────────


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
        *(right(h, cell="th") for h in ("mean", "median", "95 %", "CPU", "memory", "preparing")),
    ]
    return section(
        "cost",
        "Cost and latency",
        tag(
            "p",
            "Means per test item. Latency is the owner's own work, the stated link and the "
            "large model's service time, added up; not the time the benchmark took. Preparing is "
            "paid once.",
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
    if _none_known(report):
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
    if not price.usd_per_m_in and not price.usd_per_m_out:
        return ""
    return f"${price.usd_per_m_in:g} / ${price.usd_per_m_out:g} per million tokens in / out"
