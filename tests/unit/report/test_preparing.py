"""What preparing found is shown with what it bought, and nothing in it can break the page."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

import made_up
from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.meter import Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.clock import Effort
from cosilo.objectives.base import Item, Run
from cosilo.objectives.links import OverLinks
from cosilo.report.console import show
from cosilo.report.data import Gain, Prepared, Report
from cosilo.report.gain import gain
from cosilo.report.html import html
from cosilo.report.screen import Screen
from cosilo.report.words import bought, found
from cosilo.strategies.cards import Card
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation, user

CARD = Card(
    by="zerogen",
    title="generated data",
    facts={"kept": 1412, "bytes up per kept example": 211.3},
    tables={"dropped": {"too short": 31, "near-duplicate": 104}},
    examples=("</pre><script>alert(1)</script>",),
)
GAIN = Gain(value=0.0312, low=0.004, high=0.058, items=400, up=212_000, down=100_000, usd=0.78)
EFFORT = Effort(12.0, 41.0, 812_000_000)


def report() -> Report:
    made = made_up.report()
    over = OverLinks("round", 4, 8.0, {"LAN": 8.4, "20 Mbit/s at 100 ms": 61.2})
    prepared = Prepared(cards=(CARD,), gain=GAIN, over_links=over, effort=EFFORT)
    return replace(made, prepared={"distil_labels": prepared})


def test_the_page_shows_cards_and_gain() -> None:
    page = html(report())
    for words in (
        "1,412",
        "211",
        "near-duplicate",
        "+3.1 points",
        "[0.4, 5.8]",
        "100 kB, $0.25 per",
        "Seconds of a round, of 4",
        "predicted over 20 Mbit/s at 100 ms",
        'bytes up in a round</th><td class="n">53 kB',
        'bytes down for a point gained</th><td class="n">32.1 kB',
        'CPU of this process</th><td class="n">41 s',
        'peak memory of this process</th><td class="n">812 MB',
    ):
        assert words in page
    assert "<script>alert(1)" not in page
    assert "What preparing found" not in html(made_up.report())


def test_the_console_says_it_in_a_line() -> None:
    out = io.StringIO()
    show(report(), screen=Screen(out, width=80))
    said = " ".join(out.getvalue().split())
    assert "distil_labels: generated data: kept 1,412, bytes up per kept example 211" in said
    assert "distil_labels: preparing took 12 s, 41 s of CPU and 812 MB at its peak" in said
    assert "+3.1 points of utility over small alone [0.4, 5.8]" in said
    assert (
        "a round of 4 took 2 s as it ran; predicted: 2.1 s over LAN, 15 s over 20 Mbit/s at 100 ms"
    ) in said


def test_what_must_not_be_missed_stands_in_red() -> None:
    made = report()
    warned = replace(CARD, warning="nothing is hidden <here>")
    prepared = {"distil_labels": replace(made.prepared["distil_labels"], cards=(warned,))}
    made = replace(made, prepared=prepared)
    assert '<p class="warning"><strong>nothing is hidden &lt;here&gt;</strong></p>' in html(made)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, plain = Terminal(), io.StringIO()
    show(made, screen=Screen(out, width=80))
    show(made, screen=Screen(plain, width=80))
    assert "distil_labels: nothing is hidden <here>" in plain.getvalue()
    assert "\x1b[1;31m" in out.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_what_bought_nothing_has_no_price_per_point() -> None:
    said, price = bought(replace(GAIN, value=-0.01, low=-0.03, high=0.01))
    assert said.startswith("−1.0 points")
    assert price == "312 kB, $0.78 in all"
    assert bought(replace(GAIN, up=0, down=0))[1] == "nothing crossed"


def test_values_of_cards_are_written_for_people() -> None:
    assert [found(v) for v in (3, 12345, 0.12345, 4321.0, -0.5, "x")] == [
        "3", "12,345", "0.123", "4,321", "−0.5", "x",
    ]  # fmt: skip


def test_the_gain_is_paired_and_counts_what_preparing_sent() -> None:
    def run(grades: list[float], ledger: MemoryLedger) -> Run:
        items = tuple(
            Item(Example(str(i), user("q"), ("a",)), Answer(Generation("a"), "small"), g)
            for i, g in enumerate(grades)
        )
        return Run(items, MemoryLedger().entries, ledger.entries, price=Price(2.0, 10.0))

    ledger = MemoryLedger()
    up = Ask(chat=user("label this"))
    down = Completion(generation=Generation("a", prompt_tokens=50, completion_tokens=1))
    ledger.append("pool/1", "up", up, encode(up))
    ledger.append("pool/1", "down", down, encode(down))
    before = run([0, 0, 1, 1] * 10, MemoryLedger())
    after = run([1, 0, 1, 1] * 10, ledger)
    bought_ = gain(before, after)
    assert bought_ is not None
    assert bought_.value == pytest.approx(0.25)
    assert 0 < bought_.low < 0.25 < bought_.high
    assert (bought_.up, bought_.down) == (len(encode(up)), len(encode(down)))
    assert bought_.usd == pytest.approx((50 * 2 + 1 * 10) / 1e6)
    assert gain(run([], ledger), after) is None
