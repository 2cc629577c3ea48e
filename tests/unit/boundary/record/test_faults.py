"""What is wrong with a chain is said in words: missing, altered, moved, cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.faults import chain_faults
from cosilo.boundary.record.ledger import Entry, Head, MemoryLedger, head_mac
from cosilo.types import user

COUNT = 60


def made() -> tuple[Entry, ...]:
    ledger = MemoryLedger("trial")
    for i in range(COUNT):
        ask = Ask(chat=user(f"message {i}"))
        ledger.append(f"item-{i // 2}", "up" if i % 2 == 0 else "down", ask, encode(ask))
    return tuple(ledger.entries())


CHAIN = made()


def chain() -> list[Entry]:
    return list(CHAIN)


def head(entries: list[Entry]) -> Head:
    count, last = len(entries), entries[-1].hash
    return Head("trial", count, last, head_mac(b"", "trial", count, last))


def reordered(*order: int) -> list[Entry]:
    """The chain with the entries at `sorted(order)` standing in that order."""
    entries = chain()
    for number, old in zip(sorted(order), order, strict=True):
        entries[number] = replace(chain()[old], number=number)
    return entries


def without(*numbers: int) -> list[Entry]:
    return [entry for entry in chain() if entry.number not in numbers]


def altered(number: int, **fields: object) -> list[Entry]:
    entries = chain()
    entries[number] = replace(entries[number], **fields)  # type: ignore[arg-type]
    return entries


CUT = "the head counts 60 entries, the ledger holds {}: {} were cut off the end"
WRONG = {
    "two exchanged": (
        reordered(9, 4),
        ["entry 4 was moved: it was entry 9", "entry 9 was moved: it was entry 4"],
    ),
    "neighbours exchanged": (
        reordered(5, 4),
        ["entry 4 was moved: it was entry 5", "entry 5 was moved: it was entry 4"],
    ),
    "first and last exchanged": (
        reordered(59, 0),
        [
            "entry 0 was moved: it was entry 59",
            "entry 59 was moved: it was entry 0",
            "the last entry is not the one that the head was made of",
        ],
    ),
    "three turned round": (
        reordered(20, 10, 30),
        ["entry 10 was moved: it was entry 20", "entry 20 was moved: it was entry 10"],
    ),
    "another item's": (altered(6, request="item-9"), ["entry 6 was altered"]),
    "other side": (altered(6, direction="down"), ["entry 6 was altered"]),
    "another time": (altered(59, at=1.0), ["entry 59 was altered"]),
    "content": (altered(7, payload=b""), ["the content of entry 7 was altered"]),
    "content and digest": (
        altered(7, payload=None, digest=bytes(32)),
        ["entry 7 was altered"],
    ),
    "one gone": (without(5), ["entry 5 is missing (next is 6)"]),
    "the first gone": (without(0, 1), ["entry 0 is missing (next is 2)"]),
    "many gone": (without(*range(5, 55)), ["entry 5 is missing (next is 55)"]),
    "end gone": (chain()[:50], [CUT.format(50, 10)]),
    "all gone": ([], ["all of its 60 entries are gone"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str) -> None:
    entries, faults = WRONG[what]
    assert chain_faults(entries, head(chain())) == faults


def test_a_whole_chain_has_no_fault() -> None:
    assert chain_faults(chain(), head(chain())) == []
    assert chain_faults([], None) == []
    assert chain_faults(chain(), None) == ["the head is missing"]


def test_many_entries_out_of_place_are_not_compared_one_with_another() -> None:
    entries = [replace(entry, at=entry.at + 1) for entry in chain()]
    faults = chain_faults(entries, head(chain()))
    assert faults[0] == "entry 0 was altered or moved"
    assert len(faults) == COUNT
