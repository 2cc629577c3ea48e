"""Whether two owners' records of the same crossings say the same, entry by entry.

Each side writes its own ledger, in its own order and by its own clock: requests that are under way
together overtake one another on the network. So a request is paired with the same one on the other
side, by its id where both have it and by its content otherwise, and the pair is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from cosilo.boundary.record.ledger import Entry


@dataclass(frozen=True)
class RecordedExchange:
    """A request on record, and its reply where there is one."""

    sent: Entry
    reply: Entry | None

    @property
    def content(self) -> tuple[bytes, bytes | None]:
        return self.sent.digest, self.reply.digest if self.reply is not None else None


@dataclass(frozen=True)
class Agreement:
    """What a comparison of two records found.

    Attributes:
        faults: where they say different things, in sentences.
        agreed: exchanges that are the same on both sides.
        unheard: requests without a reply that are on one side's record alone: they never arrived, or
            were refused without a record.
        overtook: how many requests are in another order on the other side.
        clock: seconds by which the other side's clock is ahead, in the middle.
    """

    faults: tuple[str, ...]
    agreed: int
    unheard: int
    overtook: int
    clock: float


def exchanges(entries: Iterable[Entry]) -> tuple[list[RecordedExchange], list[str]]:
    """The exchanges on record, in the order in which they began; and what is no part of any."""
    begun: dict[tuple[str, int], Entry] = {}
    replies: dict[tuple[str, int], Entry] = {}
    faults: list[str] = []
    for entry in entries:
        if entry.direction == "up":
            begun[entry.chain, entry.number] = entry
        elif entry.answers is None or (entry.chain, entry.answers) not in begun:
            faults.append(f"{_where(entry)} answers nothing that was sent")
        elif (entry.chain, entry.answers) in replies:
            faults.append(f"{_where(entry)} answers what was answered before")
        else:
            replies[entry.chain, entry.answers] = entry
    return [RecordedExchange(sent, replies.get(key)) for key, sent in begun.items()], faults


def compare(ours: Iterable[Entry], theirs: Iterable[Entry], *, by_id: bool) -> Agreement:
    """Hold our record against theirs.

    Args:
        by_id: both have the requests under the same ids.
    """
    mine, faults = exchanges(ours)
    others, more = exchanges(theirs)
    faults += more
    pairs, left_mine, left_others = (_by_id if by_id else _by_content)(mine, others, faults)
    agreed = 0
    for one, other in pairs:
        fault = _differs(one, other)
        agreed += not fault
        faults += [fault] if fault else []
    unheard = 0
    for found, side in ((left_mine, "there"), (left_others, "here")):
        for exchange in found:
            if exchange.reply is None:
                unheard += 1
            else:
                faults.append(f"{_where(exchange.sent)} and its reply are not on record {side}")
    places = {id(other): place for place, other in enumerate(others)}
    order = [places[id(other)] for _, other in pairs]
    overtook = sum(a > b for a, b in pairwise(order))
    ahead = [other.sent.at - one.sent.at for one, other in pairs]
    return Agreement(tuple(faults), agreed, unheard, overtook, median(ahead) if ahead else 0.0)


Paired = tuple[
    list[tuple[RecordedExchange, RecordedExchange]], list[RecordedExchange], list[RecordedExchange]
]


def _by_id(
    mine: Sequence[RecordedExchange], others: Sequence[RecordedExchange], faults: list[str]
) -> Paired:
    here: dict[str, RecordedExchange] = {}
    for exchange in mine:  # one that an earlier process sent is there again, with its answer
        before = here.setdefault(exchange.sent.request, exchange)
        if before is not exchange and before.reply is None:
            here[exchange.sent.request] = exchange
    there: dict[str, RecordedExchange] = {}
    for exchange in others:
        if there.setdefault(exchange.sent.request, exchange) is not exchange:
            faults.append(f"{_where(exchange.sent)} is on record there twice")
    pairs = [(one, there[name]) for name, one in here.items() if name in there]
    return (
        pairs,
        [one for name, one in here.items() if name not in there],
        [other for name, other in there.items() if name not in here],
    )


def _by_content(
    mine: Sequence[RecordedExchange], others: Sequence[RecordedExchange], _: list[str]
) -> Paired:
    waiting: dict[tuple[bytes, bytes | None], list[RecordedExchange]] = {}
    for other in reversed(others):
        waiting.setdefault(other.content, []).append(other)
    pairs, left = [], []
    for one in mine:
        found = waiting.get(one.content)
        if found:
            pairs.append((one, found.pop()))
        else:
            left.append(one)
    return pairs, left, [other for rest in waiting.values() for other in reversed(rest)]


def _differs(one: RecordedExchange, other: RecordedExchange) -> str:
    mine, theirs = one.sent, other.sent
    if (mine.digest, mine.size, mine.kind) != (theirs.digest, theirs.size, theirs.kind):
        return f"{_where(mine)} is another message than {_where(theirs)} there"
    if one.reply is None and other.reply is None:
        return ""
    if one.reply is None:
        return f"the reply to {_where(mine)} is on record there, and did not come here"
    if other.reply is None:
        return f"the reply to {_where(mine)} came here, and is not on record there"
    if (one.reply.digest, one.reply.size) != (other.reply.digest, other.reply.size):
        return f"{_where(one.reply)} is another message than {_where(other.reply)} there"
    return ""


def missing(ours: Iterable[Entry], record: Iterable[Entry]) -> int:
    """How many entries of `ours` have a content that is nowhere on `record`."""
    known = Counter((entry.direction, entry.digest) for entry in record)
    return sum((entry.direction, entry.digest) not in known for entry in ours)


def _where(entry: Entry) -> str:
    return f"{entry.kind} #{entry.number} of {entry.chain!r}"
