"""The section on preparing: what each point's strategies found, and the utility gained for its
cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosilo.objectives.links import OverLinks
from cosilo.report.data import Prepared, Report
from cosilo.report.markup import Markup, tag
from cosilo.report.page.blocks import right, section, table
from cosilo.report.words import bought, found, in_seconds, size
from cosilo.strategies.cards import Card, Number


def preparing(report: Report) -> Markup | None:
    """Per point, the cards and the gain; None where no strategy had anything to tell."""
    shown = [(p, report.prepared[p.name]) for p in report.points if p.name in report.prepared]
    if not shown:
        return None
    return section(
        "preparing",
        "What preparing found",
        tag(
            "p",
            "Counted once, while the point was prepared. Texts shown here were written by the large "
            "model or are public; none is an item of the data owner's. CPU and memory are of the whole "
            "process, with the large model's where it runs in it; the other side has its own with "
            "`cosilo host used`.",
            class_="note",
        ),
        *(_prepared(point.name, prepared) for point, prepared in shown),
    )


def _prepared(name: str, prepared: Prepared) -> Markup:
    gain = bought(prepared.gain) if prepared.gain else ("", "")
    return tag(
        "details",
        tag(
            "summary",
            tag("b", name),
            tag("span", ", ".join(card.title for card in prepared.cards)),
            tag("span", gain[0]),
            tag("span", gain[1]),
        ),
        [
            tag("div", tag("div", *_counts(card)), tag("div", *_texts(card)))
            for card in prepared.cards
        ],
        _took(prepared),
        _over_links(prepared.over_links),
        class_="point",
    )


def _took(prepared: Prepared) -> Markup | None:
    """What preparing took: of the owner's machine, and bytes each way, by round and by point gained."""
    gain, over, effort = prepared.gain, prepared.over_links, prepared.effort
    told: list[tuple[str, str]] = []
    if gain is not None:
        for way, sent in (("up", gain.up), ("down", gain.down)):
            told.append((f"bytes {way}", size(sent)))
            if over is not None:
                told.append((f"bytes {way} in a {over.turn}", size(sent / over.turns)))
            if gain.value > 0:
                told.append((f"bytes {way} for a point gained", size(sent / (100 * gain.value))))
    if effort is not None:
        told.append(("on the clock", in_seconds(effort.seconds)))
        told.append(("CPU of this process", in_seconds(effort.cpu_seconds)))
        told.append(("peak memory of this process", size(effort.memory)))
    if not told:
        return None
    rows = [[tag("th", name, scope="row"), right(said)] for name, said in told]
    head: list[str | Markup] = ["", right("", cell="th")]
    label = "What preparing took here"
    return tag("div", tag("h3", label), table(head, rows, label=label))


def _over_links(over: OverLinks | None) -> Markup | None:
    """Seconds of a round or a step, as it ran and as predicted for each stated link."""
    if over is None:
        return None
    measured = [tag("th", "as it ran", scope="row"), right(in_seconds(over.ran / over.turns))]
    predicted = [
        [tag("th", f"predicted over {name}", scope="row"), right(in_seconds(over.each(name)))]
        for name in over.seconds
    ]
    label = f"Seconds of a {over.turn}, of {over.turns:,}"
    head: list[str | Markup] = ["", right("", cell="th")]
    return tag("div", tag("h3", label), table(head, [measured, *predicted], label=label))


def _counts(card: Card) -> Iterator[Markup]:
    yield tag("h3", f"{card.title} ({card.by})")
    if card.warning:
        yield tag("p", tag("strong", card.warning), class_="warning")
    rows = [[tag("th", name, scope="row"), right(found(v))] for name, v in card.facts.items()]
    if rows:
        yield table(["", right("", cell="th")], rows, label=card.title)


def _texts(card: Card) -> Iterator[Markup]:
    for title, numbers in card.tables.items():
        yield tag("h3", title)
        yield _numbers(title, numbers)
    for text in card.examples:
        yield tag("figure", tag("pre", text), class_="message")


def _numbers(title: str, numbers: Mapping[str, Number]) -> Markup:
    rows = [[tag("th", name, scope="row"), right(found(n))] for name, n in numbers.items()]
    return tag("div", table(["", right("", cell="th")], rows, label=title), class_="tall")
