"""Whether two owners' records of the same crossings say the same, entry by entry.

Each side writes its own ledger, in its own order and by its own clock: requests that are under way
together overtake one another on the network. So a request is paired with the same one on the other
side, by its id where both have it and by its content otherwise, and the pair is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
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
    def content(self) -> tuple[bytes | None, bytes | None]:
        return (
            self.sent.content_digest,
            self.reply.content_digest if self.reply is not None else None,
        )

    @property
    def forgotten(self) -> bool:
        """Whether one of its contents is, so that it cannot be compared."""
        return any(e is not None and e.content_digest is None for e in (self.sent, self.reply))


@dataclass(frozen=True)
class Agreement:
    """What a comparison of two records found.

    Attributes:
        faults: where they say different things, in sentences.
        agreed: exchanges that are the same on both sides.
        unheard: requests without a reply that are on one side's record alone: they never arrived, or
            were refused without a record.
        forgotten: exchanges that are on both records and that one side has forgotten: what was in them
            cannot be compared any more.
        overtook: how many requests are in another order on the other side.
        clock: seconds by which the other side's clock is ahead, in the middle.
    """

    faults: tuple[str, ...]
    agreed: int
    unheard: int
    overtook: int
    clock: float
    forgotten: int = 0


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
    agreed = forgotten = 0
    for one, other in pairs:
        fault = _differs(one, other)
        gone = one.forgotten or other.forgotten
        forgotten += gone and not fault
        agreed += not gone and not fault
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
    return Agreement(
        tuple(faults), agreed, unheard, overtook, median(ahead) if ahead else 0.0, forgotten
    )


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
    ours: Sequence[RecordedExchange], theirs: Sequence[RecordedExchange], _: list[str]
) -> Paired:
    pairs, mine, others = _alike(
        ours, theirs, lambda exchange: None if exchange.forgotten else exchange.content
    )
    # What one side has forgotten may be any on the other that is as long and of the same kind: first
    # one that this side knows, so that what both have forgotten is left for what has no other.
    for gone_here, gone_there in ((True, False), (False, True), (True, True)):
        one_side = [e for e in mine if e.forgotten is gone_here]
        other_side = [e for e in others if e.forgotten is gone_there]
        found, _left, _others = _alike(one_side, other_side, _shape)
        pairs += found
        paired = {id(exchange) for pair in found for exchange in pair}
        mine = [e for e in mine if id(e) not in paired]
        others = [e for e in others if id(e) not in paired]
    order = {id(exchange): place for place, exchange in enumerate(ours)}
    return sorted(pairs, key=lambda pair: order[id(pair[0])]), mine, others


def _alike(
    mine: Sequence[RecordedExchange],
    others: Sequence[RecordedExchange],
    key: Callable[[RecordedExchange], Hashable],
) -> tuple[
    list[tuple[RecordedExchange, RecordedExchange]], list[RecordedExchange], list[RecordedExchange]
]:
    """Pairs with the same key, in order, and what is left on each side; None is like nothing."""
    waiting: dict[Hashable, list[RecordedExchange]] = {}
    for other in reversed(others):
        waiting.setdefault(key(other), []).append(other)
    pairs, left = [], []
    for one in mine:
        found = waiting.get(key(one)) if key(one) is not None else None
        if found:
            pairs.append((one, found.pop()))
        else:
            left.append(one)
    paired = {id(other) for _, other in pairs}
    return pairs, left, [other for other in others if id(other) not in paired]


def _shape(exchange: RecordedExchange) -> Hashable:
    sent, reply = exchange.sent, exchange.reply
    return sent.kind, sent.size, (reply.kind, reply.size) if reply is not None else None


def _differs(one: RecordedExchange, other: RecordedExchange) -> str:
    if not _same(one.sent, other.sent):
        return f"{_where(one.sent)} is another message than {_where(other.sent)} there"
    if one.reply is None and other.reply is None:
        return ""
    if one.reply is None:
        return f"the reply to {_where(one.sent)} is on record there, and did not come here"
    if other.reply is None:
        return f"the reply to {_where(one.sent)} came here, and is not on record there"
    if not _same(one.reply, other.reply):
        return f"{_where(one.reply)} is another message than {_where(other.reply)} there"
    return ""


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries may be of the same message, as far as neither side has forgotten it."""
    known = None not in (one.content_digest, other.content_digest)
    alike = not known or one.content_digest == other.content_digest
    return alike and (one.size, one.kind) == (other.size, other.kind)


def missing(ours: Iterable[Entry], record: Iterable[Entry]) -> int:
    """How many entries of `ours` have a content that is nowhere on `record`.

    One that is forgotten here is there if any as long is, and is one that is not known here where there
    is such a one; one that is forgotten there may be any as long.
    """
    mine = list(ours)
    here = {(e.direction, e.content_digest) for e in mine if e.content_digest is not None}
    known: set[tuple[str, bytes]] = set()
    gone: Counter[tuple[str, str, int]] = Counter()
    strange: Counter[tuple[str, str, int]] = Counter()  # known there and not here
    shapes: Counter[tuple[str, str, int]] = Counter()
    for entry in record:
        shape = (entry.direction, entry.kind, entry.size)
        shapes[shape] += 1
        if entry.content_digest is None:
            gone[shape] += 1
        else:
            known.add((entry.direction, entry.content_digest))
            strange[shape] += (entry.direction, entry.content_digest) not in here
    count = 0
    for entry in sorted(mine, key=lambda entry: entry.content_digest is not None):
        shape = (entry.direction, entry.kind, entry.size)
        if (entry.direction, entry.content_digest) in known:
            continue
        if entry.content_digest is None and strange[shape]:
            strange[shape] -= 1
        elif gone[shape]:
            gone[shape] -= 1
        else:
            count += entry.content_digest is not None or not shapes[shape]
    return count


def _where(entry: Entry) -> str:
    return f"{entry.kind} #{entry.number} of {entry.chain!r}"
