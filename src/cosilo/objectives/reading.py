"""One reading of a run's record, shared by all measures: counts, replies, and what leaked.

The record is read lazily, in bounded memory: what is kept is a handful of numbers per item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from heapq import merge
from itertools import chain
from typing import NamedTuple

from cosilo.attacks.base import View
from cosilo.attacks.record import replies, texts
from cosilo.boundary.messages import Lent
from cosilo.boundary.messages.base import Message, classes
from cosilo.boundary.messages.federate import Contribute
from cosilo.boundary.meter import Price, Spent
from cosilo.boundary.record.ledger import Entry
from cosilo.boundary.wire.opinions import is_packed
from cosilo.matching import FuzzyPool, Pool, as_written, normalised
from cosilo.objectives.base import Link, Run
from cosilo.tasks.base import Example
from cosilo.types import last_user

Entries = Callable[[], Iterator[Entry]]


VERSION = 2  # steps of what parties compute together are waited for

CONTRIBUTE = Contribute.__name__
_LEAST = 8  # characters of a text that does not stand in another by chance


@dataclass(frozen=True, slots=True)
class Traffic:
    """What crossed for one request.

    Attributes:
        seconds: what the LM took, in all.
        waiting: seconds that the request waited for replies: the link's round trips, half of one for
            each step of what parties compute together, at most, and what the LM took; of messages that
            were under way together the longest.
        waiting_for_lm: of these, what the LM took.
        on_the_wire: seconds that the bytes took, one after another on the link that they crossed.
        unstated: messages that carried no ε.
        steps: of what parties compute together, one after another, at most.
    """

    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    waiting: float = 0.0
    waiting_for_lm: float = 0.0
    on_the_wire: float = 0.0
    epsilon: float = 0.0
    unstated: int = 0
    steps: int = 0


NOTHING = Traffic()


@dataclass(frozen=True, slots=True)
class Leak:
    """How one secret left: "verbatim", "normalised", "fuzzy" or "" (it did not); and whether a
    stranger of its kind, another item's secret, would have been found in its place."""

    how: str
    stranger: bool = False


class Reading:
    """A run's record, read at most once per question. Called, it is the run's `entries`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self) -> Iterator[Entry]:
        return self._run.entries()

    @cached_property
    def has_content(self) -> bool:
        """Whether the messages themselves were kept; with digests only, nothing can be read."""
        first = next(self.everything(), None)
        return first is None or first.payload is not None

    @cached_property
    def has_texts(self) -> bool:
        """Whether all that went up can be read as texts. Where token ids or states did, nobody can say
        what left, and there is no number for it."""
        kinds = {name for name, kind in classes().items() if kind.legible is not Message.legible}
        some = (e for e in self.everything() if e.direction == "up" and e.kind in kinds)
        return self.has_content and all(entry.message.legible() for entry in some)

    @cached_property
    def traffic(self) -> Mapping[str, Traffic]:
        return counted([(r.entries, r.price, r.link) for r in self._sides])

    @cached_property
    def prepared(self) -> Traffic:
        """Everything that crossed while the strategy was prepared."""
        total = NOTHING
        records = [(r.prepare, r.price, Link()) for r in self._sides]
        for found in counted(records).values():
            total = _add(total, found)
        return total

    @property
    def _sides(self) -> Sequence[Run]:
        return list(self._run.sides.values()) or [self._run]

    @cached_property
    def replies(self) -> Mapping[str, str]:
        """The LM's last reply to each request, of the items and of `prepare`."""
        return replies(View(self.everything))

    @cached_property
    def scored(self) -> int:
        """Places of replies that the LM gave its probabilities for."""
        kinds = {k.__name__ for k in classes().values() if k.places is not Message.places}
        return sum(entry.message.places() for entry in self.everything() if entry.kind in kinds)

    @cached_property
    def emulators(self) -> tuple[tuple[float, int], ...]:
        """Of each emulator that came down while preparing: how many nats per token it alone is worse by
        than the LM, as the LM's owner says, and its bytes."""
        some = (e.message for e in self._run.prepare() if e.kind == Lent.__name__)
        return tuple(
            (lent.about.alone - lent.about.whole, lent.size)
            for lent in some
            if isinstance(lent, Lent) and lent.about is not None
        )

    def everything(self) -> Iterator[Entry]:
        """What crossed while preparing, then what crossed for the items."""
        return chain(self._run.prepare(), self._run.entries())

    @cached_property
    def contributed(self) -> bool:
        """Whether preparing gave a federation updates of weights."""
        some = (e.message for e in self._run.prepare() if e.kind == CONTRIBUTE)
        return any(isinstance(m, Contribute) and not is_packed(m.packed) for m in some)

    @cached_property
    def records(self) -> frozenset[str]:
        """Ids of the background examples that stood in what was sent while preparing."""
        return find_records(self._run.background, self._run.prepare)

    @cached_property
    def leaks(self) -> tuple[tuple[Leak, ...], ...]:
        """Per item, per secret: whether it stands in what left for that item."""
        examples = [item.example for item in self._run.items]
        return find_leaks(examples, self._run.entries)

    @cached_property
    def background_leaks(self) -> tuple[tuple[Leak, ...], ...]:
        """Per background example, per secret: whether it stands in what left while preparing, or in
        texts that several items' messages share (worked examples, for instance).
        """
        known = {example.id for example in self._run.background}

        def entries() -> Iterator[Entry]:
            for entry in self._run.prepare():
                yield replace(entry, request=_example(entry.request, known))

        shared = _shared_texts(self._run.entries)
        return find_leaks(self._run.background, entries, everywhere=shared)


def reading(run: Run) -> Reading:
    """The reading that `run` carries already, or a new one."""
    return run.entries if isinstance(run.entries, Reading) else Reading(run)


def count(entries: Entries, price: Price, link: Link | None = None) -> dict[str, Traffic]:
    """Traffic by request, tokens and money booked as the meter books them.

    Args:
        link: what a round trip takes; `Link()` when unset.
    """
    return counted([(entries, price, link or Link())])


def counted(records: Sequence[tuple[Entries, Price, Link]]) -> dict[str, Traffic]:
    """Traffic by request, to and from all the other sides together, each at its price and over its
    link.

    Where an item was asked again after an interruption, its last attempt counts.
    """
    requests: dict[str, _Request] = {}
    for side, entry in _in_time([entries for entries, _, _ in records]):
        request = requests.get(entry.request)
        if request is None or entry.attempt > request.attempt:
            request = requests[entry.request] = _Request(entry.attempt)
        _, price, link = records[side]
        request.add(side, entry, price, link)
    return {name: request.traffic for name, request in requests.items()}


def together(records: Sequence[Entries]) -> Entries:
    """The entries of several chains as one record, in the order in which they were written."""
    return lambda: (entry for _, entry in _in_time(records))


def _in_time(records: Sequence[Entries]) -> Iterator[tuple[int, Entry]]:
    """The entries of all `records`, each with the place of its record among them.

    The entries of one record stay in their order; those of several were written by one process, so its
    clock tells which was first. What left in the same moment as a reply came did not wait for it.
    """
    if len(records) == 1:
        return ((0, entry) for entry in records[0]())

    def numbered(side: int) -> Iterator[tuple[int, Entry]]:
        return ((side, entry) for entry in records[side]())

    each = [numbered(side) for side in range(len(records))]
    return merge(*each, key=lambda found: (found[1].at, found[1].direction == "down"))


_Time = tuple[float, float]
"""Seconds since the first message left, and how many of these the LM worked."""


class _Sent(NamedTuple):
    """A message under way: when it left, and the round trip of its link in seconds."""

    entry: Entry
    left: _Time
    round_trip: float


class _Request:
    """What has crossed for one request so far, and when, were the link as stated.

        ▲1 ▲2 ▼2 ▲3 ▼1 ▼3      1 and 2 were under way together; 3 was sent once 2 had been answered

    A message leaves when the last of the replies that were recorded before it has come. The order says
    more than the clock: answers that come from a replay come at once, whatever the LM took.
    """

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._counted = NOTHING
        self._under_way: dict[
            tuple[int, int], _Sent
        ] = {}  # by the side and the number of the message
        self._answered: _Time = (0.0, 0.0)  # when the last reply so far came
        self._bytes: dict[int, tuple[int, Link]] = {}  # by side

    def add(self, side: int, entry: Entry, price: Price, link: Link) -> None:
        self._bytes[side] = self._bytes.get(side, (0, link))[0] + entry.size, link
        if entry.direction == "up":
            self._under_way[side, entry.number] = _Sent(entry, self._answered, link.rtt_ms / 1000)
            crossed = Traffic(
                messages=1,
                bytes_up=entry.size,
                epsilon=entry.epsilon,
                unstated=int(entry.epsilon == 0),
            )
        else:
            up, left = self._asked(side, entry)
            crossed = _received(up, entry, price)
            beside = crossed.bytes_up + crossed.bytes_down - entry.size
            self._bytes[side] = self._bytes[side][0] + beside, link
            took = link.rtt_ms / 1000 * (1 + crossed.steps / 2) + crossed.seconds
            self._answered = max(self._answered, (left[0] + took, left[1] + crossed.seconds))
        self._counted = _add(self._counted, crossed)

    def _asked(self, side: int, down: Entry) -> tuple[Entry | None, _Time]:
        """The message that `down` answers, and when it left."""
        number = down.answers
        if number is None:  # an older record: replies are taken in the order of the messages
            number = next((n for of, n in self._under_way if of == side), None)
        if number is None or (side, number) not in self._under_way:
            return None, self._answered
        found = self._under_way.pop((side, number))
        return found.entry, found.left

    @property
    def traffic(self) -> Traffic:
        """The request's traffic so far; a message that was never answered counts as waited for, for
        one round trip at least.
        """
        lost = sum(sent.round_trip for sent in self._under_way.values())
        waiting, waiting_for_lm = self._answered
        return replace(
            self._counted,
            waiting=waiting + lost,
            waiting_for_lm=waiting_for_lm,
            on_the_wire=sum(8 * n / (link.mbit_per_s * 1e6) for n, link in self._bytes.values()),
        )


def _received(up: Entry | None, down: Entry, price: Price) -> Traffic:
    if down.payload is None:
        return Traffic(bytes_down=down.size)
    reply = down.message
    tokens_in, tokens_out = reply.usage()
    if up is not None and up.payload is not None:
        spent = price.bill(price.once(up.message, up.size), reply, down.size).spent
    else:
        spent = Spent(tokens_in, tokens_out, price.usd(tokens_in, tokens_out))
    beside = reply.beside()
    return Traffic(
        bytes_up=beside.up,
        bytes_down=down.size + beside.down,
        tokens_in=spent.tokens_in,
        tokens_out=spent.tokens_out,
        usd=spent.usd,
        seconds=reply.seconds(),
        steps=beside.steps,
    )


def _add(a: Traffic, b: Traffic) -> Traffic:
    return Traffic(
        a.messages + b.messages,
        a.bytes_up + b.bytes_up,
        a.bytes_down + b.bytes_down,
        a.tokens_in + b.tokens_in,
        a.tokens_out + b.tokens_out,
        a.usd + b.usd,
        a.seconds + b.seconds,
        a.waiting + b.waiting,
        a.waiting_for_lm + b.waiting_for_lm,
        a.on_the_wire + b.on_the_wire,
        a.epsilon + b.epsilon,
        a.unstated + b.unstated,
        a.steps + b.steps,
    )


def find_leaks(
    examples: tuple[Example, ...] | list[Example],
    entries: Entries,
    *,
    everywhere: frozenset[str] = frozenset(),
) -> tuple[tuple[Leak, ...], ...]:
    """Per example, per secret: how it stands in the messages bound to the example.

    Args:
        everywhere: texts that count as sent for every example. Messages bound to no example ("")
            count for every example too.
    """
    searches = {e.id: _Search(e, _strangers(e, i, examples)) for i, e in enumerate(examples)}
    common = set(everywhere)
    for entry in entries():
        if entry.direction != "up":
            continue
        search = searches.get(entry.request)
        if search is not None and search.wanted:
            for text in texts(entry.message):
                search.read(text)
        elif not entry.request:
            common.update(texts(entry.message))
    if common:
        _search_for_all([s for s in searches.values() if s.wanted], common)
    return tuple(searches[e.id].leaks() for e in examples)


def find_records(examples: tuple[Example, ...], entries: Entries) -> frozenset[str]:
    """Ids of those of `examples` that a message was bound to, or whose text stands in one.

    A text that the LM had written itself before is the LM's, whoever's example it equals.
    """
    known = {example.id for example in examples}
    found: set[str] = set()
    own = [last_user(example.chat) for example in examples]
    alone: dict[str, list[int]] = {}
    for i, text in enumerate(own):
        alone.setdefault(text, []).append(i)
    long = [i for i, text in enumerate(own) if len(text) >= _LEAST]
    pool = Pool([own[i] for i in long], as_written)
    sent: set[int] = set()
    told: set[int] = set()
    read: dict[str, set[bytes]] = {"up": set(), "down": set()}
    for entry in entries():
        if entry.direction == "up" and (id := _example(entry.request, known)):
            found.add(id)
        if entry.payload is None:
            continue
        for text in texts(entry.message):
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest in read[entry.direction]:
                continue
            read[entry.direction].add(digest)
            here = {long[k] for k in pool.found(as_written(text))} | {*alone.get(text, ())}
            if entry.direction == "down":
                told |= here
            else:
                sent |= here - told
    return frozenset(found | {examples[i].id for i in sent})


def _strangers(
    example: Example, at: int, examples: tuple[Example, ...] | list[Example]
) -> list[str]:
    """For each secret, a value of its kind that belongs to another example; "" where there is none."""
    own = {secret.value for secret in example.secrets}
    found = []
    for secret in example.secrets:
        value = ""
        for step in range(1, min(len(examples), 50)):
            other = examples[(at + step) % len(examples)]
            value = next(
                (s.value for s in other.secrets if s.kind == secret.kind and s.value not in own), ""
            )
            if value:
                break
        found.append(value)
    return found


class _Search:
    """The secrets of one example, and strangers of their kinds, looked for in many texts."""

    def __init__(self, example: Example, strangers: list[str]) -> None:
        self.values = [*(secret.value for secret in example.secrets), *strangers]
        self._how = [""] * len(example.secrets)
        self._strangers: set[int] = set()

    @property
    def wanted(self) -> bool:
        return bool(self._how)

    @cached_property
    def _pools(self) -> tuple[FuzzyPool, Pool]:
        return FuzzyPool(self.values), Pool(self.values, as_written)

    def read(self, text: str) -> None:
        fuzzy, verbatim = self._pools
        for i, similarity in fuzzy.found(_normalised(text)).items():
            self.note(i, "fuzzy" if similarity < 1 else "normalised")
        for i in verbatim.found(_as_written(text)):
            self.note(i, "verbatim")

    def note(self, i: int, how: str) -> None:
        """Note that the value at `i` was found in the way `how`; the plainest way it was found in
        is kept.
        """
        if i >= len(self._how):
            self._strangers.add(i - len(self._how))
        elif _PLAINNESS.index(how) > _PLAINNESS.index(self._how[i]):
            self._how[i] = how

    def leaks(self) -> tuple[Leak, ...]:
        return tuple(Leak(how, i in self._strangers) for i, how in enumerate(self._how))


_PLAINNESS = ("", "fuzzy", "normalised", "verbatim")


def _search_for_all(searches: list[_Search], shared: set[str]) -> None:
    """Look for everybody's values at once: the texts are few, the values many."""
    owners = [(search, i) for search in searches for i in range(len(search.values))]
    values = [search.values[i] for search, i in owners]
    fuzzy, verbatim = FuzzyPool(values), Pool(values, as_written)
    for text in shared:
        for k, similarity in fuzzy.found(_normalised(text)).items():
            search, i = owners[k]
            search.note(i, "fuzzy" if similarity < 1 else "normalised")
        for k in verbatim.found(_as_written(text)):
            search, i = owners[k]
            search.note(i, "verbatim")


# A system prompt stands in every message; it is folded once.
_normalised = lru_cache(maxsize=64)(normalised)
_as_written = lru_cache(maxsize=64)(as_written)


def _example(request: str, known: set[str]) -> str:
    """The example that `request` ("pool/17", "17") belongs to; "" when it belongs to none."""
    if request in known:
        return request
    tail = request.partition("/")[2]
    return tail if tail in known else ""


def _shared_texts(entries: Entries) -> frozenset[str]:
    """Texts that crossed for more than one request."""
    first: dict[bytes, str] = {}  # by digest, so that a long record takes little memory
    shared = set()
    for entry in entries():
        if entry.direction == "up":
            for text in texts(entry.message):
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if first.setdefault(digest, entry.request) != entry.request:
                    shared.add(text)
    return frozenset(shared)
