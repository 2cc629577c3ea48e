"""Several other sides: the worst single one and all together, and time along the longest way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from cosilo.boundary.messages import Ask, Completion, Joint, JointSpent, encode
from cosilo.boundary.messages.joint import JointLink
from cosilo.boundary.meter import Link, Price
from cosilo.boundary.record.ledger import Entry, MemoryLedger
from cosilo.objectives import attacked, item_values, measure_all
from cosilo.objectives.base import Item, Measurement, Run
from cosilo.objectives.reading import reading, together
from cosilo.objectives.scoring import made
from cosilo.tasks.base import Example, Secret
from cosilo.types import Answer, Generation, user

NAMES = ("Ann Lee", "Robert Kern", "Eve Stone", "Olga Novak")


class Clock:
    """Chains of several sides whose entries are written at the times given."""

    def __init__(self, *sides: str) -> None:
        self.ledgers = {name: MemoryLedger(name) for name in sides}
        self.at: dict[tuple[str, int], float] = {}

    def up(self, side: str, request: str, text: str, at: float) -> int:
        ask = Ask(chat=user(text))
        return self._put(side, request, "up", ask, at)

    def down(self, side: str, request: str, answers: int, seconds: float, at: float) -> None:
        said = Generation("yes", prompt_tokens=10, completion_tokens=1, seconds=seconds)
        self._put(side, request, "down", Completion(generation=said), at, answers)

    def _put(self, side: str, request: str, way, message, at: float, answers=None) -> int:  # type: ignore[no-untyped-def]
        ledger = self.ledgers[side]
        number = len(list(ledger.entries()))
        ledger.append(request, way, message, encode(message), answers)
        self.at[side, number] = at
        return number

    def run(
        self,
        items: Sequence[Item],
        prices: Mapping[str, Price] | None = None,
        links: Mapping[str, Link] | None = None,
    ) -> Run:
        def entries(side: str) -> list[Entry]:
            found = self.ledgers[side].entries()
            return [replace(e, at=self.at[side, e.number]) for e in found]

        sides = {
            name: Run(
                items=tuple(items),
                entries=lambda name=name: iter(entries(name)),  # type: ignore[misc]
                price=(prices or {}).get(name, Price()),
                link=(links or {}).get(name, Link(rtt_ms=100)),
            )
            for name in self.ledgers
        }
        whole = together([side.entries for side in sides.values()])
        return Run(items=tuple(items), entries=whole, sides=sides)


def item(id: str, name: str) -> Item:
    example = Example(id, user(f"I am {name}"), ("yes",), (Secret(f"{id}/0", "person", name),))
    return Item(example, Answer(Generation("yes"), by="large"), 1.0)


def measured(run: Run) -> dict[str, Measurement]:
    return {m.objective.name: m for m in measure_all(run)}


@pytest.fixture
def split() -> Run:
    """North is told two of four names, south one other: three of four, if they talk."""
    clock = Clock("north", "south")
    items = [item(str(i), name) for i, name in enumerate(NAMES)]
    told = {"north": ("Ann Lee", "Robert Kern"), "south": ("Eve Stone",)}
    for i, name in enumerate(NAMES):
        for side, known in told.items():
            number = clock.up(side, str(i), f"I am {name if name in known else 'somebody'}", i)
            clock.down(side, str(i), number, 1.0, i + 0.5)
    prices = {"north": Price(1e6, 0), "south": Price(0, 1e6)}
    return clock.run(items, prices)


async def test_privacy_is_the_worst_single_sides_and_all_together_stands_beside(split: Run) -> None:
    run = await attacked(split, names=["verbatim"])
    found = measured(run)
    leak = found["entity_leak"]
    assert (leak.value, leak.n) == (0.5, 4)
    assert "north, the worst of 2 other sides; all together: 0.75 [" in leak.note
    alone = {name: measured(side) for name, side in run.sides.items()}
    assert [alone[n]["entity_leak"].value for n in ("north", "south")] == [0.5, 0.25]
    assert found["privacy"].value == max(m["privacy"].value for m in alone.values())
    assert found["privacy"].low == alone["north"]["privacy"].low
    assert measured(replace(run, sides={}))["privacy"].value > found["privacy"].value


async def test_for_the_certificate_each_item_counts_as_for_its_worst_side(split: Run) -> None:
    run = await attacked(split, names=["verbatim"])
    assert item_values(run)["entity_leak"].tolist() == [1, 1, 1, 0]
    assert item_values(run)["privacy"].tolist() == [1, 1, 1, 0]
    assert item_values(run.sides["south"])["entity_leak"].tolist() == [0, 0, 1, 0]


async def test_guesses_of_each_side_are_told_apart_and_not_made_again(split: Run) -> None:
    run = await attacked(split, names=["verbatim"])
    known = made(run)
    assert set(known) == {"verbatim", "verbatim@north", "verbatim@south"}
    assert known["verbatim@north"] != known["verbatim@south"]
    again = await attacked(split, names=["verbatim"], known=known)
    assert made(again) == known
    fewer = {name: each for name, each in known.items() if name != "verbatim@south"}
    assert made(await attacked(split, names=["verbatim"], known=fewer)) == known


def test_money_tokens_and_bytes_add_up_each_at_its_price(split: Run) -> None:
    found = measured(split)
    assert found["round_trips"].value == 2.0
    assert found["tokens_in"].value == 20.0
    assert found["usd_per_1k"].value == pytest.approx(1000 * (10 + 1))
    sizes = {
        n: sum(e.size for e in s.entries() if e.direction == "up") for n, s in split.sides.items()
    }
    assert found["bytes_up"].value == pytest.approx(sum(sizes.values()) / 4)


LINKS = {"north": Link(rtt_ms=100), "south": Link(rtt_ms=500)}


def waited(clock: Clock) -> float:
    return reading(clock.run([item("i", "Ann Lee")], links=LINKS)).traffic["i"].waiting


def test_side_by_side_the_slowest_is_waited_for_over_its_own_link() -> None:
    clock = Clock("north", "south")
    north, south = (clock.up(side, "i", "x", 0.0) for side in ("north", "south"))
    clock.down("north", "i", north, 2.0, 2.1)
    clock.down("south", "i", south, 1.8, 2.3)
    assert waited(clock) == pytest.approx(2.3)


def test_one_after_the_other_both_are_waited_for() -> None:
    clock = Clock("north", "south")
    north = clock.up("north", "i", "x", 0.0)
    clock.down("north", "i", north, 2.0, 2.1)
    south = clock.up("south", "i", "y", 2.1001)
    clock.down("south", "i", south, 1.0, 4.0)
    assert waited(clock) == pytest.approx(2.1 + 1.5)


def test_what_left_in_the_moment_of_a_reply_did_not_wait_for_it() -> None:
    clock = Clock("north", "south")
    north = clock.up("north", "i", "x", 0.0)
    clock.down("north", "i", north, 2.0, 1.0)
    south = clock.up("south", "i", "y", 1.0)
    clock.down("south", "i", south, 1.0, 1.0)
    assert waited(clock) == pytest.approx(2.1)


def test_a_reply_is_paired_within_its_own_chain() -> None:
    """Numbers count each chain, so the first message of both is number 0."""
    clock = Clock("north", "south")
    for i in range(3):
        clock.up("south", "i", f"{i}", i * 0.1)
    clock.up("north", "i", "x", 0.0)
    clock.down("south", "i", 2, 1.0, 5.0)
    clock.down("south", "i", 0, 4.0, 6.0)
    clock.down("north", "i", 0, 0.5, 6.5)
    clock.down("south", "i", 1, 2.0, 7.0)
    found = reading(clock.run([item("i", "Ann Lee")], links=LINKS)).traffic["i"]
    assert found.waiting == pytest.approx(4.5)
    assert (found.messages, found.seconds) == (4, 7.5)


def test_a_reply_that_never_came_takes_the_round_trip_of_its_link() -> None:
    clock = Clock("north", "south")
    clock.up("north", "i", "x", 0.0)
    clock.up("south", "i", "x", 0.0)
    assert waited(clock) == pytest.approx(0.1 + 0.5)


def test_each_message_of_engines_waits_for_half_a_round_trip_at_most() -> None:
    clock = Clock("")
    asked = clock._put("", "a", "up", Joint(run="0" * 32, number=1, parties=2), at=1.0)
    links = (JointLink(1, 0, 3000, 7), JointLink(0, 1, 2000, 30))
    clock._put("", "a", "down", JointSpent(links=links, took=0.25), 2.0, asked)
    run = clock.run([item("a", NAMES[0])], links={"": Link(rtt_ms=100, mbit_per_s=1)})
    traffic = reading(run.sides[""]).traffic["a"]
    assert traffic.waiting == pytest.approx(0.25 + 0.1 + 30 * 0.05)
    own = sum(e.size for e in run.sides[""].entries())
    assert traffic.on_the_wire == pytest.approx(8 * (own + 5000) / 1e6)
    assert (traffic.bytes_up, traffic.bytes_down) == (
        next(run.sides[""].entries()).size + 3000,
        own - next(run.sides[""].entries()).size + 2000,
    )
