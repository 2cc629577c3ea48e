"""What a run will cost, said before anything is spent.

Calls are an upper bound: what a strategy cannot know beforehand (how often a threshold that is yet to
be chosen will be passed) counts as a call for every item. Points behind the same defences that send
the items' own questions share their answers, so these are counted once; recorded answers are free.

Money is said twice. *About*: prompts at the usual bytes a token, replies as long as asked for.
*At most*: a token for each byte, every call tried as often as the model's back end would, and twice
that where the prompts are not known yet. The runner spends no more than that (`Paid.promise`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from time import perf_counter, process_time

from cosilo.benchmark.identity import plain
from cosilo.benchmark.parts import Parts
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask
from cosilo.boundary.messages.bounds import FIELDS, LONGEST_TOKEN, TEMPLATE, in_utf8
from cosilo.boundary.meter import Price
from cosilo.errors import CosiloError
from cosilo.models.gguf.llamacpp import usable_cores
from cosilo.models.kept.recorded import RecordedModel
from cosilo.session import PointConfig, make_strategy
from cosilo.strategies.base import About, Expected, Text, forecast
from cosilo.tasks.base import Example, Split
from cosilo.types import Chat, Demonstration, Sampling, last_user

BYTES_PER_TOKEN = 3.5
REMOTE_SECONDS = 2.0
"""What a call of a hosted model takes, before any was made."""

FREE = ("recorded", "scripted")
"""Kinds of model whose answers take no time."""

LOCAL = ("llamacpp", "torch")
"""Kinds that run on this machine, so that trying one out costs no money."""

PROBED = 4
TRIED: tuple[Split, ...] = ("validation", "certificate")
"""Whose questions are asked to try a model out."""

_WRAPPING = 500  # bytes that asking for texts puts around the system turn, or around a text

DEFENDED = 2.0
"""How many times its size a prompt can have behind defences: placeholders are longer than names."""

FORM = 8
"""Bytes around a text in a message."""

PLACE = 1 << 14
"""Bytes that say what an LM thinks of one token, at most: its likeliest tokens, or its state."""

BUSY = 0.7
"""A model that gets less of the processor than this shares it with others."""


@dataclass(frozen=True)
class Pace:
    """Seconds from one answer to the next, as measured.

    Attributes:
        share: of the processor's time that the model got meanwhile, 0 to 1; 1 where that is unknown.
    """

    seconds: float
    share: float = 1.0


Work = Sequence[tuple[Split, Sequence[Example]]]


@dataclass(frozen=True)
class Estimate:
    """What is still to be spent.

    Attributes:
        calls: LM calls, at most.
        recorded: calls that are free because their answers are recorded.
        tokens_in, tokens_out: of these calls, about.
        usd, usd_most: what they cost, about and at most.
        minutes: of the LM's time, waiting included.
        small_minutes: of the small model's time for its answers; training comes on top.
        measured: the minutes come from calls made before, not from a rule of thumb.
        share: of the processor's time that the LM got in these calls.
        trains: a point trains the small model, which takes a time that nobody knows before.
        bulk: bytes of messages that are no texts, and of what crosses beside them, at most.
    """

    calls: int
    recorded: int
    tokens_in: int
    tokens_out: int
    usd: float
    usd_most: float
    minutes: float
    small_minutes: float = 0.0
    measured: bool = False
    share: float = 1.0
    trains: bool = False
    bulk: int = 0

    def __str__(self) -> str:
        own = f"{_minutes(self.small_minutes)} of the small model's"
        if self.trains:
            own += ", and what it takes to train it"
        if not self.calls:
            free = f"no LM call to make ({self.recorded} answers are recorded)"
            return f"{free}; {own}" if self.small_minutes >= _SOON or self.trains else free
        free = f" ({self.recorded} more are recorded and free)" if self.recorded else ""
        source = "as measured so far" if self.measured else "a rough guess"
        if self.share < BUSY:
            alone = self.minutes * self.share
            source += f", on a busy machine; {_minutes(alone)} on one that does nothing else"
        return (
            f"at most {self.calls} LM calls{free}, "
            f"about {self.tokens_in:,} tokens in and {self.tokens_out:,} out, "
            f"{self._bulk()}{self._money()}; {_minutes(self.minutes)} of LM time ({source}), {own}"
        )

    def _money(self) -> str:
        if not self.usd_most:
            return "$0"
        return f"about {_usd(self.usd)} and at most {_usd(self.usd_most, up=True)}"

    def _bulk(self) -> str:
        if self.bulk < _LITTLE:
            return ""
        return f"at most {self.bulk / 1e6:,.0f} MB of what is no text, "


_LITTLE = 10**6  # bytes: less is not worth a word
_SOON = 0.1  # minutes: less is not worth a word


def _minutes(minutes: float) -> str:
    return f"{minutes:.1f} min"


def _usd(usd: float, *, up: bool = False) -> str:
    """Dollars with two digits that say something; rounded up where it is a bound."""
    digits = 2 if usd >= 0.1 else max(2, 1 - math.floor(math.log10(usd))) if usd > 0 else 2
    scale = 10**digits
    return f"${math.ceil(usd * scale - 1e-9) / scale if up else usd:.{digits}f}"


def estimate(
    plan: Plan,
    parts: Parts,
    left: Sequence[tuple[PointConfig, Work]],
    *,
    pace: Pace | None,
    small: float = 0.0,
) -> Estimate:
    """The cost of `left`: points with the items they still have to answer, by split.

    Args:
        pace: None when it was not measured.
        small: seconds from one answer of the small model to the next.
    """

    @cache  # most points ask the same questions
    def held(peer: str, chat: Chat) -> bool:
        ask = Ask(chat=chat, sampling=parts.task.sampling)
        return parts.peers[peer].recorded.holds(ask)

    shared: dict[tuple[str, str, str], _Batch] = {}
    alone: list[tuple[str, _Batch]] = []
    for point, splits in left:
        peers = list(plan.peers_of(point))
        around = str(plain(point.defences))
        for exchange in forecast(make_strategy(point)):
            found = _about(parts, splits, exchange.about)
            asked = peers if exchange.to == "each" else peers[:1]
            for peer, (name, items) in product(asked, found):
                if exchange.asks_questions:
                    known, sure = partial(held, peer), not point.defences
                    batch = _batch(parts, peer, exchange, items, known, sure=sure)
                else:
                    batch = _guessed(parts, exchange, items)
                if not exchange.plain:
                    alone.append((peer, batch))
                elif batch.calls >= shared.get((peer, around, name), _Batch()).calls:
                    shared[peer, around, name] = batch
    batches = [*((peer, batch) for (peer, _, _), batch in shared.items()), *alone]
    bills = [
        _billed(parts.peers[name].price, [b for peer, b in batches if peer == name])
        for name in parts.peers
    ]
    takes_time = [b.calls for peer, b in batches if plan.peers[peer].kind not in FREE]
    seconds = REMOTE_SECONDS / plan.concurrency * sum(takes_time)
    calls = sum(b.calls for _, b in batches)
    return Estimate(
        calls=calls,
        recorded=sum(b.recorded for _, b in batches),
        tokens_in=sum(bill.tokens_in for bill in bills),
        tokens_out=sum(bill.tokens_out for bill in bills),
        usd=sum(bill.usd for bill in bills),
        usd_most=sum(bill.usd_most for bill in bills),
        minutes=(seconds if pace is None else calls * pace.seconds) / 60,
        small_minutes=small * _small_answers(parts, left) / 60,
        bulk=sum(b.most_bytes for _, b in batches if b.sized),
        trains=any(make_strategy(point).needs.trainable for point, _ in left),
        measured=pace is not None,
        share=1.0 if pace is None else pace.share,
    )


@dataclass(frozen=True)
class _Billed:
    """What one large model's owner will bill, about and at most."""

    tokens_in: int
    tokens_out: int
    usd: float
    usd_most: float


def _billed(price: Price, batches: Sequence[_Batch]) -> _Billed:
    calls = sum(b.calls for b in batches)
    thought = price.reasoning * sum(b.calls for b in batches if b.tokens_out)
    tokens_in = sum(b.tokens_in for b in batches)
    tokens_out = sum(b.tokens_out for b in batches) + thought
    most = price.usd(
        sum(b.most_in for b in batches),
        sum(b.most_out for b in batches) + thought,
        seconds=calls * price.longest_s,
        size=sum(b.most_bytes for b in batches),
    )
    size = round(BYTES_PER_TOKEN * (tokens_in + tokens_out))
    about = price.usd(tokens_in, tokens_out, seconds=calls * REMOTE_SECONDS, size=size)
    return _Billed(tokens_in, tokens_out, about, most * price.attempts)


async def measured_pace(plan: Plan, parts: Parts, store: Store) -> Pace | None:
    """How fast the LM answers: by the calls this run made last, or by a few made now.

    Only a model that runs on this machine is tried out, since that costs no money; its answers are
    recorded like all others. The first few are not timed: they load the model, and each of its slots
    reads what all prompts begin with. None for a model that would have to be paid, or takes no time.
    """
    before = store.seconds_per_call()
    if before is not None:
        return Pace(before / plan.concurrency)
    if plan.large.kind not in LOCAL:
        return None
    sampling, splits, lm = parts.task.sampling, parts.task.splits, parts.large.recorded
    asks = [Ask(chat=e.chat, sampling=sampling) for s in TRIED for e in splits.get(s, ())]
    new = [ask for ask in asks if not lm.holds(ask)][: 2 * PROBED]
    half = (len(new) + 1) // 2
    first, others = new[:half], new[half:]
    try:
        await asyncio.gather(*map(lm.handle, first))
        wall, cpu = perf_counter(), process_time()
        await asyncio.gather(*map(lm.handle, others))
    except CosiloError:  # what is wrong with it will be said where it matters
        return None
    wall, cpu = perf_counter() - wall, process_time() - cpu
    if not others:
        return None
    return Pace(wall / len(others), min(1.0, cpu / (wall * usable_cores())))


def _small_answers(parts: Parts, left: Sequence[tuple[PointConfig, Work]]) -> int:
    """Answers of the small model: one to each item, and again wherever it is trained anew."""
    known: set[str] = set()
    again = 0
    for point, splits in left:
        examples = [e.id for _, some in splits for e in some]
        if make_strategy(point).needs.trainable:
            again += len(examples)
        else:
            known.update(examples)
    return again + len(known)


async def small_pace(parts: Parts) -> float:
    """Seconds from one answer of the small model to the next, by a few made now; they are kept."""
    task, model = parts.task, parts.owner.model
    chats = [e.chat for s in TRIED for e in task.splits.get(s, ())][: 2 * PROBED]
    half = len(chats) // 2
    try:
        await asyncio.gather(*(model.generate(c, task.sampling) for c in chats[:half]))
        started = perf_counter()
        found = [await model.generate(c, task.sampling) for c in chats[half:]]
    except CosiloError:  # what is wrong with it will be said where it matters
        return 0.0
    took = perf_counter() - started
    # Answers that were kept from before say themselves what they took.
    return max(took, sum(g.seconds for g in found)) / max(1, len(found))


@dataclass(frozen=True)
class _Batch:
    """Calls that belong together.

    Attributes:
        most_in, most_out: tokens of one attempt of each, at most.
        most_bytes: of the messages of one attempt, both ways.
        sized: they are no texts, and the bytes are those of what they carry.
    """

    calls: int = 0
    recorded: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    most_in: int = 0
    most_out: int = 0
    most_bytes: int = 0
    sized: bool = False


Item = Demonstration | Example


def _about(parts: Parts, splits: Work, about: About) -> Sequence[tuple[str, Sequence[Item | None]]]:
    """What messages of this kind are about, under the names that strategies share their answers by;
    None for what is no item."""
    owner = parts.owner
    if about == "answers":
        return splits
    items: dict[About, Sequence[Item | None]] = {
        "tune": owner.calibration,
        "pool": owner.pool or owner.private,
        "public": owner.public,
        "gold": owner.private,
        "labels": [None] * len(parts.task.labels),
        "once": [None],
    }
    return [(about, items[about])]


def _guessed(parts: Parts, exchange: Expected, items: Sequence[Item | None]) -> _Batch:
    """Messages whose words are not known yet. All count as new, although some may be recorded."""
    calls, chosen = exchange.count(len(items)), items[: exchange.items]
    if exchange.per is not None:
        calls = math.ceil(calls * max(1.0, _length(parts, exchange.per, chosen)))

    def tokens(texts: Sequence[Text | int]) -> float:
        return calls * sum(t if isinstance(t, int) else _length(parts, t, chosen) for t in texts)

    tokens_in, tokens_out = tokens(exchange.reads), tokens(exchange.writes)
    most_in = math.ceil(2 * BYTES_PER_TOKEN * tokens_in) + TEMPLATE * calls
    most_out = math.ceil(2 * tokens_out)
    return _Batch(
        calls=calls,
        tokens_in=round(tokens_in),
        tokens_out=round(tokens_out),
        most_in=most_in,
        most_out=most_out,
        most_bytes=_bytes(parts, exchange, calls, most_in, most_out),
        sized=exchange.size is not None,
    )


def _bytes(parts: Parts, exchange: Expected, calls: int, most_in: int, most_out: int) -> int:
    """The most bytes of so many messages and their replies: a byte makes a token at most."""
    if exchange.size is not None:
        return calls * exchange.size
    sampling = parts.task.sampling
    up = FIELDS + sum(FORM + in_utf8(choice) for choice in sampling.choices)
    down = most_out * LONGEST_TOKEN * (3 + sampling.top_logprobs)
    if exchange.message is not Ask:
        down = most_in * PLACE
    return calls * (up + FIELDS) + most_in + down


def _length(parts: Parts, text: Text, items: Sequence[Item | None]) -> float:
    """About how many tokens `text` has, on average over `items`."""
    match text:
        case "instructions":
            chat = parts.task.splits["test"][0].chat
            system = sum(len(t.content.encode()) for t in chat if t.role == "system")
            return round((system + _WRAPPING) / BYTES_PER_TOKEN)
        case "request":
            return _WRAPPING / BYTES_PER_TOKEN
        case "answer":
            return _answer(parts.task.sampling)
    known = [item for item in items if item is not None]
    match text:
        case "question":
            sizes = [_tokens(item.chat) for item in known]
        case "text":
            sizes = [_size(last_user(item.chat)) for item in known]
        case "target":
            sizes = [_size(item.target) for item in known]
    return sum(sizes) / max(1, len(sizes))


def _answer(sampling: Sampling) -> float:
    """About how many tokens a reply has at most."""
    longest = max((len(c) for c in sampling.choices), default=0) / BYTES_PER_TOKEN + 1
    return longest if sampling.choices else sampling.max_tokens


def _tokens(chat: Chat) -> float:
    return sum(len(t.content.encode()) for t in chat) / BYTES_PER_TOKEN + 8


def _size(text: str) -> float:
    return len(text.encode()) / BYTES_PER_TOKEN


def _batch(
    parts: Parts,
    peer: str,
    exchange: Expected,
    items: Sequence[Item | None],
    held: Callable[[Chat], bool],
    *,
    sure: bool,
) -> _Batch:
    """The calls that ask the items' own questions.

    Args:
        held: whether the answer to a chat is recorded.
        sure: the prompts will be sent as they are, which holds only without defences.
    """
    chats = [item.chat for item in items[: exchange.items] if item is not None]
    sampling = parts.task.sampling
    free = isinstance(parts.peers[peer].model, RecordedModel)
    new = [c for c in chats if not (free or (sure and held(c)))]
    calls = exchange.count(len(items))
    fresh = min(calls, len(new))
    sizes = [_tokens(chat) for chat in new]
    bounds = [Ask(chat=chat, sampling=sampling).tokens_bound() for chat in new]
    longest = sorted((tokens for tokens, _ in bounds), reverse=True)[:fresh]
    most_in = math.ceil(sum(longest) * (1 if sure else DEFENDED))
    most_out = max((tokens for _, tokens in bounds), default=0) * fresh
    return _Batch(
        calls=fresh,
        recorded=calls - fresh,
        tokens_in=round(sum(sizes) / len(new) * fresh) if new else 0,
        tokens_out=round(_answer(sampling) * fresh),
        most_in=most_in,
        most_out=most_out,
        most_bytes=_bytes(parts, exchange, fresh, most_in, most_out),
    )
