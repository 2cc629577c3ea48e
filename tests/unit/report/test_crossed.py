"""What a reader is told of the record: counts, leaks by kind, examples, costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosilo.boundary.messages import Ask, Completion, Joint, JointSpent, Message, encode
from cosilo.boundary.messages.joint import JointLink
from cosilo.boundary.meter import Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.objectives.base import Item, Link, Run
from cosilo.objectives.reading import reading, together
from cosilo.report.cost import cost
from cosilo.report.crossed import LONGEST, SHARES, crossed
from cosilo.report.data import Tally
from cosilo.report.masking import BLOCK, Masker
from cosilo.tasks.base import Example, Secret
from cosilo.types import Answer, Generation, user

ANN = Secret("1/1", "person", "Ann Lee")
CARD = Secret("1/2", "card", "4000 1234")
BOB = Secret("2/1", "person", "Robert Kern")
EVE = Secret("t1/1", "person", "Eve Stone")


def ask(text: str) -> Ask:
    return Ask(chat=user(text))


def reply(text: str, seconds: float = 0.5) -> Completion:
    made = Generation(text, prompt_tokens=100, completion_tokens=4, seconds=seconds)
    return Completion(generation=made)


def sent(ledger: MemoryLedger, request: str, up: Message, down: Message | None = None) -> None:
    ledger.append(request, "up", up, encode(up))
    if down is not None:
        ledger.append(request, "down", down, encode(down))


def run_of(
    ledger: MemoryLedger, *, prepare: MemoryLedger | None = None, background: tuple = ()
) -> Run:
    examples = (
        Example("1", user("from Ann Lee, card 4000 1234"), ("a",), (ANN, CARD)),
        Example("2", user("from Robert Kern"), ("a",), (BOB,)),
        Example("3", user("hello"), ("a",)),
    )
    items = tuple(
        Item(e, Answer(Generation("a"), "large"), 1.0, seconds=0.01, cpu_seconds=0.02)
        for e in examples
    )
    return Run(
        items=items,
        entries=ledger.entries,
        prepare=(prepare or MemoryLedger()).entries,
        background=background,
        price=Price(2.0, 10.0),
        link=Link(rtt_ms=40.0, mbit_per_s=8.0),
        peak_memory=5_000_000,
    )


def masker(*more: Secret) -> Masker:
    return Masker([ANN, CARD, BOB, EVE, *more])


def test_messages_are_counted_by_kind_and_direction() -> None:
    ledger = MemoryLedger()
    sent(ledger, "1", ask("x"), reply("y"))
    sent(ledger, "2", ask("longer text"), reply("y"))
    found = crossed(run_of(ledger), masker(), refused=1, quote=True)
    up = sum(len(encode(ask(text))) for text in ("x", "longer text"))
    down = 2 * len(encode(reply("y")))
    assert found.tallies == (Tally("up", "Ask", 2, up), Tally("down", "Completion", 2, down))
    assert (found.items, found.asked, found.refused) == (3, 2, 1)
    assert found.size("up") == up


def test_what_crossed_to_each_of_several_other_sides_is_counted_apart() -> None:
    north, south = MemoryLedger("north"), MemoryLedger("south")
    sent(north, "1", ask("x"), reply("y"))
    for request in ("1", "2"):
        sent(south, request, ask("x"), reply("y"))
    sides = {"north": run_of(north), "south": replace(run_of(south), price=Price(0, 0))}
    run = replace(run_of(north), sides=sides, entries=together([north.entries, south.entries]))
    found = crossed(run, masker())
    assert [t.count for t in found.tallies] == [3, 3]
    assert [t.count for t in found.sides["north"].tallies] == [1, 1]
    assert [t.count for t in found.sides["south"].tallies] == [2, 2]
    assert found.sides["north"].usd_per_1k == pytest.approx(
        1000 * sum(t.usd for t in reading(sides["north"]).traffic.values()) / 3
    )
    assert found.sides["south"].usd_per_1k == 0


def test_leaks_are_counted_by_kind() -> None:
    ledger = MemoryLedger()
    sent(ledger, "1", ask("ANN LEE has PERSON_k7q2mx and card CARD_aaaaaa"), reply("y"))
    sent(ledger, "2", ask("from PERSON_k7q2my, yes PERSON_k7q2my"), reply("y"))
    found = crossed(run_of(ledger), masker(), quote=True)
    assert found.secrets == {"person": (1, 2), "card": (0, 1)}
    assert found.replaced == {"person": 2, "card": 1}
    assert found.background == {}


def test_what_preparing_sent_is_counted_apart() -> None:
    prepare = MemoryLedger()
    sent(prepare, "pool/t1", ask("from Eve Stone"), reply("y", seconds=2.0))
    example = Example("t1", user("from Eve Stone"), ("a",), (EVE,))
    run = run_of(MemoryLedger(), prepare=prepare, background=(example,))
    found = crossed(run, masker(), quote=True)
    assert found.tallies == ()
    assert [t.kind for t in found.prepare] == ["Ask", "Completion"]
    assert found.secrets == {"person": (0, 2), "card": (0, 1)}
    assert found.background == {"person": (1, 1)}
    assert [s.text for s in found.examples] == ["user: from ▇person▇", "y"]
    spent = cost(run)
    assert spent is not None
    assert (spent.prepare.messages, spent.prepare_seconds) == (1, 2.0)


def test_shares_beside_messages_are_counted_with_their_direction() -> None:
    ledger = MemoryLedger()
    links = (JointLink(0, 1, 300, 2), JointLink(1, 0, 200, 2))
    sent(ledger, "1", Joint(run=32 * "1", number=1, parties=2, most=999), JointSpent(links=links))
    run = run_of(ledger)
    tallies = {(t.direction, t.kind): (t.count, t.size) for t in crossed(run, masker()).tallies}
    assert tallies["up", SHARES] == (1, 200)
    assert tallies["down", SHARES] == (1, 300)
    sizes = {e.direction: e.size for e in ledger.entries()}
    traffic = reading(run).traffic["1"]
    assert (traffic.bytes_up, traffic.bytes_down) == (sizes["up"] + 200, sizes["down"] + 300)


def test_examples_are_masked_and_of_different_items() -> None:
    ledger = MemoryLedger()
    sent(ledger, "1", ask("from Ann Lee, like Robert Kern"), reply("Ann, yes"))
    sent(ledger, "1", ask("again Ann Lee"), reply("y"))
    sent(ledger, "2", ask("from robert  kern"), reply("n"))
    texts = [s.text for s in crossed(run_of(ledger), masker(), quote=True).examples]
    assert texts == [
        "user: from ▇person▇, like ▇person▇",
        "▇person▇, yes",
        "user: from ▇person▇",
        "n",
    ]


def test_a_message_that_cannot_be_masked_is_not_shown() -> None:
    ledger = MemoryLedger()
    sent(ledger, "2", ask("from Rob3rt Kern"))  # misspelt: the fuzzy attack still finds it
    sent(ledger, "elsewhere", ask("of no known item"))
    assert crossed(run_of(ledger), masker(), quote=True).examples == ()


def test_a_long_message_is_cut_beside_its_blocks() -> None:
    for extra in range(24):
        ledger = MemoryLedger()
        text = (
            "x" * (LONGEST // 2 - 16 + extra)
            + " Ann Lee "
            + "y" * 900
            + " Ann Lee "
            + "z" * (580 + extra)
        )
        sent(ledger, "1", ask(text))
        (shown,) = crossed(run_of(ledger), masker(), quote=True).examples
        assert shown.text.count(BLOCK) % 2 == 0
        assert "more characters" in shown.text
        assert len(shown.text) < LONGEST + 40


def test_a_record_of_digests_shows_counts_only() -> None:
    ledger = MemoryLedger(keep="digest")
    sent(ledger, "1", ask("from Ann Lee"), reply("y"))
    found = crossed(run_of(ledger), masker(), quote=True)
    assert [t.count for t in found.tallies] == [1, 1]
    assert found.secrets == {}
    assert found.examples == ()


def test_cost_splits_the_latency_of_an_item() -> None:
    ledger = MemoryLedger()
    up, down = ask("x" * 500), reply("y", seconds=0.9)
    sent(ledger, "1", up, down)
    found = cost(run_of(ledger))
    assert found is not None
    wire = 8 * (len(encode(up)) + len(encode(down))) / 8e6
    assert found.calls == pytest.approx(1 / 3)
    assert found.tokens_in == pytest.approx(100 / 3)
    assert found.usd == pytest.approx((100 * 2 + 4 * 10) / 1e6 / 3)
    assert found.local_seconds == pytest.approx(0.01)
    assert found.lm_seconds == pytest.approx(0.3)
    assert found.network_seconds == pytest.approx((0.04 + wire) / 3)
    assert found.p50_seconds == pytest.approx(0.01)
    assert found.p95_seconds > 0.5
    assert (found.cpu_seconds, found.peak_memory) == (pytest.approx(0.02), 5_000_000)


def test_a_run_without_items_costs_nothing_that_can_be_said() -> None:
    assert cost(Run(items=(), entries=MemoryLedger().entries)) is None


def test_where_no_secret_is_known_no_message_is_shown() -> None:
    ledger = MemoryLedger()
    sent(ledger, "3", ask("hello, I am somebody that no detector found"))
    run = run_of(ledger)
    assert len(crossed(replace(run, gold_secrets=True), Masker([]), quote=True).examples) == 1
    assert crossed(replace(run, gold_secrets=False), Masker([]), quote=True).examples == ()
    assert len(crossed(replace(run, gold_secrets=False), masker(), quote=True).examples) == 1


def test_a_system_turn_is_told_once() -> None:
    ledger = MemoryLedger()
    for request in ("1", "2"):
        sent(ledger, request, Ask(chat=user("hello", system="You are a desk.")))
    texts = [s.text for s in crossed(run_of(ledger), masker(), quote=True).examples]
    assert texts == ["system: You are a desk.\nuser: hello", "system: (as above)\nuser: hello"]


def test_nothing_is_quoted_unasked() -> None:
    ledger = MemoryLedger()
    sent(ledger, "1", ask("from Ann Lee"), reply("yes"))
    assert crossed(run_of(ledger), masker()).examples == ()
    assert crossed(run_of(ledger), masker()).tallies
