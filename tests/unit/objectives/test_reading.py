"""What is counted from a record: which reply belongs to which message, and what was waited for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask, Completion, Message, encode
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger, SqliteLedger
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.base import Access
from cosilo.models.kept.recorded import RecordedModel
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.base import Item, Link
from cosilo.objectives.efficiency import latency_ms
from cosilo.objectives.reading import count
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.lm_owner import LMOwner
from cosilo.tasks.base import Example
from cosilo.types import Answer, Delta, Generation, Sampling, user


def crossed(*steps: tuple[str, float] | str) -> float:
    """The milliseconds waited for one request under a link of 100 ms.

    ("a", 2.0) sends a message that the LM takes 2 s for, "a" again is its reply.
    """
    ledger, numbers, seconds = MemoryLedger(), dict[str, int](), dict[str, float]()
    for step in steps:
        if isinstance(step, str):
            reply = Completion(generation=Generation("yes", seconds=seconds[step]))
            ledger.append("item", "down", reply, encode(reply), numbers[step])
        else:
            name, seconds[step[0]] = step
            ask = Ask(chat=user(name))
            numbers[name] = len(list(ledger.entries()))
            ledger.append("item", "up", ask, encode(ask))
    link = Link(rtt_ms=100.0, mbit_per_s=math.inf)
    found = count(ledger.entries, Price(), link)["item"]
    return latency_ms(
        Item(Example("item", user("q"), ("yes",)), Answer(Generation(""), by="large"), 1.0),
        found,
    )


def test_messages_under_way_together_are_waited_for_together() -> None:
    eight = [(str(i), 2.0) for i in range(8)]
    assert crossed(*eight, *map(str, range(8))) == pytest.approx(2100)
    assert crossed(*eight, *map(str, reversed(range(8)))) == pytest.approx(2100)
    one_by_one = [step for name, took in eight for step in ((name, took), name)]
    assert crossed(*one_by_one) == pytest.approx(8 * 2100)


def test_the_longest_way_through_the_messages_counts() -> None:
    # Two at once, a third when the quick one is back, a last one when all are.
    steps: list[tuple[str, float] | str] = [
        ("slow", 3.0), ("quick", 1.0), "quick", ("next", 1.0), "slow", "next", ("last", 0.5), "last",
    ]  # fmt: skip
    assert crossed(*steps) == pytest.approx(3100 + 600)
    steps[3] = ("next", 4.0)  # quick and next together take longer than slow now
    assert crossed(*steps) == pytest.approx(1100 + 4100 + 600)


def test_a_message_that_was_never_answered_takes_a_round_trip() -> None:
    assert crossed(("lost", 9.0)) == pytest.approx(100)
    assert crossed(("lost", 9.0), ("again", 1.0), "again") == pytest.approx(100 + 1100)


async def test_each_reply_is_booked_to_the_message_it_answers() -> None:
    """Also when the second message is answered first, and neither reply states its usage."""

    class Uneven:
        async def handle(self, message: Message) -> Message:
            assert isinstance(message, Ask)
            few = message.sampling.max_tokens == 5
            for _ in range(9 if few else 1):
                await asyncio.sleep(0)
            return Completion(generation=Generation("x" if few else "y" * 1000))

        def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
            raise AssertionError(ask)

    ledger, meter = MemoryLedger(), Meter(price=Price(1.0, 1e6))
    road = Boundary(
        InProcess(Uneven()), declared=frozenset({Ask}), meter=meter, ledger=ledger, request="item"
    )
    await asyncio.gather(
        *(
            road.send(Ask(chat=user("which?" * most), sampling=Sampling(max_tokens=most)))
            for most in (5, 500)
        )
    )
    ups, downs = (
        [e for e in ledger.entries() if e.direction == direction] for direction in ("up", "down")
    )
    assert [e.size > 1000 for e in downs] == [True, False]  # the second was answered first
    assert [e.answers for e in downs] == [ups[1].number, ups[0].number]
    found = count(ledger.entries, meter.price)["item"]
    assert (found.tokens_in, found.tokens_out) == (meter.totals.tokens_in, meter.totals.tokens_out)
    assert found.usd == pytest.approx(meter.totals.usd)


def recorded(model: ScriptedModel, folder: Path) -> Handles:
    everything = LMOwner(model, exposes=Access.WEIGHTS.shows)
    return Recorded(everything, ReplayStore(folder / "replay.sqlite"), of=model)


def given(answers: ScriptedModel) -> Handles:
    """The same answers out of a data set's columns."""
    known = [(user(f"chunk {i}"), "yes", answers.seconds) for i in range(8)]
    return LMOwner(RecordedModel(known))


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
@pytest.mark.parametrize("source", ["asked", "replayed", "given"])
async def test_eight_chunks_side_by_side_take_as_long_as_one(
    tmp_path: Path, ledger: str, source: str
) -> None:
    """Also when all replies are recorded: these come at once, and say what each took."""
    model = ScriptedModel({"": "yes"}, seconds=2.0)
    party = given(model) if source == "given" else recorded(model, tmp_path)
    chunks = [Ask(chat=user(f"chunk {i}")) for i in range(8)]
    if source == "replayed":
        for chunk in chunks:
            await party.handle(chunk)
    record = MemoryLedger() if ledger == "memory" else SqliteLedger(tmp_path / "l.sqlite", "c")
    road = Boundary(InProcess(party), declared=frozenset({Ask}), ledger=record, request="item")
    await asyncio.gather(*map(road.send, chunks))
    link = Link(rtt_ms=100.0, mbit_per_s=math.inf)
    found = count(record.entries, Price(), link)["item"]
    assert (found.messages, found.seconds) == (8, 16.0)
    assert found.waiting == pytest.approx(2.1)
    await road.send(chunks[0])  # once all are answered: one after the other
    again = count(record.entries, Price(), link)["item"]
    assert again.waiting == pytest.approx(4.2)
    if isinstance(record, SqliteLedger):
        record.close()


def test_replies_of_an_older_record_are_taken_in_the_order_of_the_messages() -> None:
    ledger = MemoryLedger()
    for name in ("first", "second"):
        ask = Ask(chat=user(name))
        ledger.append("item", "up", ask, encode(ask))
    for seconds in (2.0, 1.0):
        reply = Completion(generation=Generation("yes", seconds=seconds))
        ledger.append("item", "down", reply, encode(reply))
    assert count(ledger.entries, Price(), Link(rtt_ms=0))["item"].waiting == pytest.approx(2.0)
