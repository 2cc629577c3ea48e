"""Two owners' records of the same crossings: what is the same, and every way to differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cosilo.boundary.messages import Ask, Completion, Message, encode
from cosilo.boundary.record.agreement import Agreement, compare, missing
from cosilo.boundary.record.ledger import Entry, MemoryLedger
from cosilo.types import Generation, user


def ask(text: str) -> Ask:
    return Ask(chat=user(text))


def reply(text: str) -> Completion:
    return Completion(generation=Generation(text))


class Written(MemoryLedger):
    def put(self, name: str, message: Message, answers: int | None = None) -> int:
        direction = "up" if answers is None else "down"
        self.append(name, direction, message, encode(message), answers)
        return len(self._entries) - 1

    def exchange(self, name: str, text: str, *, answered: bool = True) -> None:
        number = self.put(name, ask(text))
        if answered:
            self.put(name, reply(text), number)

    @property
    def all(self) -> list[Entry]:
        return list(self.entries())


def record(*names: str, chain: str = "clinic") -> Written:
    made = Written(chain)
    for name in names:
        made.exchange(name, f"text {name}")
    return made


def held(ours: Written, theirs: Written, *, by_id: bool = True) -> Agreement:
    return compare(ours.all, theirs.all, by_id=by_id)


@pytest.mark.parametrize("by_id", [True, False])
def test_the_same_on_both_sides(by_id: bool) -> None:
    found = held(record("a", "b", "c", chain="large/1"), record("a", "b", "c"), by_id=by_id)
    assert (found.faults, found.agreed, found.overtook, found.unheard) == ((), 3, 0, 0)


def test_requests_that_overtook_one_another_are_no_difference() -> None:
    ours, theirs = Written("large/1"), Written("clinic")
    for side, order in ((ours, "abc"), (theirs, "bac")):
        numbers = {name: side.put(name, ask(name)) for name in order}
        for name in reversed(order):
            side.put(name, reply(name), numbers[name])
    found = held(ours, theirs)
    assert (found.faults, found.agreed, found.overtook) == ((), 3, 1)


def test_what_one_side_has_forgotten_has_overtaken_nothing() -> None:
    ours = [
        replace(entry, key_id=b"gone", key=None) if entry.request == "a" else entry
        for entry in record("a", "b", "c").all
    ]
    found = compare(ours, record("a", "b", "c").all, by_id=False)
    assert (found.faults, found.agreed, found.forgotten, found.overtook) == ((), 2, 1, 0)


def test_the_clock_is_told() -> None:
    theirs = [replace(entry, at=entry.at + 3600) for entry in record("a").all]
    found = compare(record("a").all, theirs, by_id=True)
    assert found.faults == ()
    assert 3590 < found.clock < 3610


def one_more(written: Written) -> None:
    written.exchange("z", "text z")


def twice(written: Written) -> None:
    written.exchange("a", "text a")


def no_reply(written: Written) -> None:
    written._entries.pop()


def other_text(written: Written) -> None:
    written._entries.pop()
    written.put("b", reply("other"), 2)


def other_request(written: Written) -> None:
    del written._entries[2:]
    number = written.put("b", ask("other"))
    written.put("b", reply("text b"), number)


def of_nothing(written: Written) -> None:
    written.put("b", reply("text b"), 99)


SPOILT = (one_more, twice, no_reply, other_text, other_request, of_nothing)
# What an earlier process sent is on our record once more, so by its id a second one here is no fault.
CASES = [
    (spoil, side, by_id)
    for spoil in SPOILT
    for side in ("here", "there")
    for by_id in (True, False)
    if (spoil, side, by_id) != (twice, "here", True)
]


@pytest.mark.parametrize(("spoil", "side", "by_id"), CASES)
def test_every_difference_is_found(
    spoil: Callable[[Written], None], side: str, by_id: bool
) -> None:
    ours, theirs = record("a", "b"), record("a", "b")
    spoil(ours if side == "here" else theirs)
    assert held(ours, theirs, by_id=by_id).faults


def test_a_request_without_a_reply_may_be_on_one_record_alone() -> None:
    ours, theirs = record("a"), record("a")
    ours.exchange("lost", "on the way", answered=False)
    found = held(ours, theirs)
    assert (found.faults, found.unheard) == ((), 1)
    theirs.exchange("lost", "on the way")
    (fault,) = held(ours, theirs).faults
    assert "did not come here" in fault


def test_what_an_earlier_process_sent_is_answered_under_its_id() -> None:
    ours, theirs = record("a"), record("a")
    ours.exchange("b", "text b", answered=False)
    ours.exchange("b", "text b")
    theirs.exchange("b", "text b")
    assert held(ours, theirs).faults == ()


def test_what_is_nowhere_on_the_runs_record() -> None:
    crossed, run = record("a", "b"), record("a")
    assert missing(crossed.all, run.all) == 2
    assert missing(run.all, crossed.all) == 0
