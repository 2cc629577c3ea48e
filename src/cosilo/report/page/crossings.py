"""What left the building, per point: counts, leaks by kind, masked examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosilo.report.data import Crossed, Report, Shown, Tally
from cosilo.report.diagrams import share_bar
from cosilo.report.markup import Markup, tag
from cosilo.report.masking import BLOCKS
from cosilo.report.page.blocks import right, section, table
from cosilo.report.words import count, number, size
from cosilo.selection import Point


def crossings(report: Report) -> Markup | None:
    """Per point, what was sent and what came back on the test items."""
    if not report.crossed:
        return None
    given = ""
    if not report.secrets_known:
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
            "preparing a point sent once stands beside it. " + _quoting(report) + given,
            class_="note",
        ),
        *(
            _crossing(at, point, report)
            for at, point in enumerate(report.points)
            if point.name in report.crossed
        ),
    )


def _quoting(report: Report) -> str:
    if not report.quoted:
        return (
            "No message is quoted: a text of which some values are masked is still private. "
            "`cosilo report --quote` shows examples."
        )
    return (
        "Example messages have the secrets masked that were given or detected, and those that could "
        "not be masked with certainty are left out. What is left of them is private text all the same: "
        "keep this file as the run is kept."
    )


def _crossing(at: int, point: Point, report: Report) -> Markup:
    crossed, chosen = report.crossed[point.name], report.chosen == point.name
    left, held = _total(crossed.secrets)
    secrets = "no secrets known" if not report.secrets_known else "no secrets in the items"
    if held:
        secrets = f"{left:,} of {count(held, 'secret')} left"
    others, _ = _total(crossed.background)
    secrets += f", {others:,} of other examples" if others else ""
    relinked = point.test.get("relink")
    if relinked is not None:
        secrets += f"; {number(relinked.objective, relinked.value)} % of messages re-linked"
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
            "div",
            tag("div", *_counts(crossed)),
            tag("div", *_messages(crossed.examples, nothing, report.quoted)),
        ),
        id=f"left-{at}",
        class_="point",
    )


def _counts(crossed: Crossed) -> Iterator[Markup]:
    if crossed.tallies:
        yield tag("h3", f"Messages for {count(crossed.items, 'test item')}")
        yield _tallies(crossed.tallies)
    for name, side in crossed.sides.items():
        cost = "" if side.usd_per_1k is None else f": ${side.usd_per_1k:.3g} per 1,000 items"
        yield tag("h3", f"Of these, to and from {name}{cost}")
        yield _tallies(side.tallies)
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
            f"{count(crossed.refused, 'item')} got no answer, because a defence or a model "
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


def _messages(examples: tuple[Shown, ...], nothing: bool, quoted: bool) -> Iterator[Markup]:
    if not quoted and not examples:
        return
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
