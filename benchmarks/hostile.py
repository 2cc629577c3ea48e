"""Real messages changed a million times each way: each is read as a message, or refused with one of our
errors, in memory that its size bounds.

    python benchmarks/hostile.py --count 1000000 --state /tmp/hostile.json

Up, the changed bytes reach an owner of a large model (`answered`, `answered_in_pieces`); down, they are
the reply, or the pieces of one, to a request that crossed a boundary, and are unpacked as a strategy
would. Example number i is drawn from seed i, so a run that is cut off goes on where it was, and what
went wrong can be made again: --first i --count 1. It stops at the first exception that is not ours. The
memory of one example in so many is traced, and of messages of each kind that are as full of small
things as can be; what the whole process came to hold is measured for all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import resource
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np

import mutated
from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import (
    Ask,
    Forward,
    Gradients,
    Message,
    Outputs,
    Piece,
    Refused,
    Request,
    Score,
    Scores,
    States,
    Step,
    Steps,
    decode,
    encode,
)
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.answering import answered, answered_in_pieces
from cosilo.boundary.wire import logits, states
from cosilo.errors import CapabilityError, CosiloError
from cosilo.strategies.downward.scoring import read as opinions
from cosilo.types import Delta
from kept import Kept

EVERY = 10_000
"""Examples after which the state is written."""

TRACED = 53
"""One example in so many is run once more, with its memory traced. No multiple of the rows, so that it
is each row's turn."""

MEMORY = 64
SPARE = 1_000_000
"""An example may take so many times its own bytes, and so many bytes beside."""


class Answers:
    """An owner that looks at all of a request, and answers with the sample of the reply to it."""

    def __init__(self) -> None:
        kinds = {type(m): m for m in mutated.SAMPLES}
        self.replies = {k: kinds[k.reply] for k in kinds if issubclass(k, Request)}
        self.read = False

    async def handle(self, message: Message) -> Message:
        self.read = True
        self._look(message)
        if type(message) not in self.replies:
            raise CapabilityError(f"{type(message).__name__} is not served")
        return self.replies[type(message)]

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        self.read = True
        self._look(ask)
        for piece in mutated.PIECES:
            yield piece.delta

    def _look(self, message: Message) -> None:
        tokens_in, tokens_out = message.tokens_bound()
        assert min(tokens_in, tokens_out, message.reply_bound(tokens_out)) >= 0
        assert 0 <= message.epsilon < float("inf")
        data = encode(message)
        if len(data) < 10_000:  # of a long one, a second copy would count as memory of the first
            assert encode(decode(data)) == data


class Says:
    """A transport whose other end says these bytes."""

    remote = True
    said: tuple[bytes, ...] = ()

    async def carry(self, payload: bytes) -> bytes:
        return self.said[0]

    async def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
        for data in self.said:
            yield data


class Hostile:
    """Examples by number: each is changed bytes, and what reads them.

    Attributes:
        rows: what an example is of, by its number modulo their number: its name, and how it is run.
    """

    def __init__(self) -> None:
        self.owner, self.far = Answers(), Says()
        self.requests = [m for m in mutated.SAMPLES if isinstance(m, Request)]
        self.pieces = tuple(encode(p) for p in mutated.PIECES)
        self.rows: list[tuple[str, bytes, Callable[[bytes], Awaitable[bool]]]] = []
        for message, data in zip(mutated.SAMPLES, mutated.ENCODED, strict=True):
            name = type(message).__name__
            self.rows.append((f"up: {name}", data, self._up))
            if isinstance(message, Ask):
                self.rows.append((f"up, in pieces: {name}", data, self._up_in_pieces))
            if isinstance(message, Piece):
                self.rows.append((f"down: {name}", data, self._down_in_pieces))
                continue
            # What is a reply to nothing is one to any request.
            asked = [r for r in self.requests if isinstance(message, r.reply)]
            for request in asked or self.requests[:1]:
                self.rows.append((f"down: {name}", data, self._down(request)))
        for n, data in enumerate(mutated.PACKED):
            self.rows.append((f"down: packed log-probabilities {n}", data, _distributions))
        self.rows.append(("down: packed states", states.pack(mutated.STATES), _states))
        self.rows.append(("down: packed states, scaled", mutated.SCALED, _scaled))
        self.others = (*mutated.ENCODED, *mutated.PACKED)

    def example(self, i: int) -> tuple[str, bytes, Callable[[bytes], Awaitable[bool]]]:
        name, whole, look = self.rows[i % len(self.rows)]
        rng = random.Random(i)
        if whole in mutated.ENCODED and i // len(self.rows) % 2:
            return name, mutated.altered(whole, rng), look
        return name, mutated.changed(whole, self.others, rng), look

    def fattest(self, size: int) -> Iterator[tuple[str, bytes, Callable[[bytes], Awaitable[bool]]]]:
        """Messages of each kind that are full of one small thing, read as the examples are."""
        read = {name: look for name, _, look in self.rows}
        for kind in {type(m): None for m in mutated.SAMPLES}:
            for name in (f"up: {kind.__name__}", f"down: {kind.__name__}"):
                for _, data in mutated.fattest(kind, size):
                    yield name, data, read[name]

    async def _up(self, data: bytes) -> bool:
        self.owner.read = False
        reply = decode(await answered(self.owner, data))
        _honest(reply, self.owner.read)
        return self.owner.read

    async def _up_in_pieces(self, data: bytes) -> bool:
        self.owner.read = False
        async for said in answered_in_pieces(self.owner, data):
            _honest(decode(said), self.owner.read)
        return self.owner.read

    def _down(self, request: Message) -> Callable[[bytes], Awaitable[bool]]:
        assert isinstance(request, Request)

        async def down(data: bytes) -> bool:
            self.far.said = (data,)
            return await _crossed(self._boundary(), request)

        return down

    async def _down_in_pieces(self, data: bytes) -> bool:
        self.far.said = (self.pieces[0], data, *self.pieces[1:])
        boundary = self._boundary()
        try:
            async for delta in boundary.stream(mutated.ASK):
                assert delta.seconds >= 0
        except CosiloError:
            _booked(boundary)
            return False
        _booked(boundary)
        return True

    def _boundary(self) -> Boundary:
        return Boundary(
            self.far,
            declared=frozenset(type(r) for r in self.requests),
            meter=Meter(price=Price(1.0, 2.0)),
            ledger=MemoryLedger(),
        )


def _honest(reply: Message, read: bool) -> None:
    """What comes back from an owner: its reply, or a refusal with one of our errors."""
    if isinstance(reply, Refused):
        assert reply.kind == ("CapabilityError" if read else "UnexpectedReplyError"), reply


async def _crossed(boundary: Boundary, request: Request[Message]) -> bool:
    try:
        reply = await boundary.send(request)
        assert isinstance(reply, request.reply)
        if isinstance(reply, Scores) and isinstance(request, Score):
            for opinion in opinions(reply, request):
                _look(opinion.top)
        if isinstance(reply, Steps):
            _look(logits.unpack(reply.packed))
        if isinstance(reply, States):
            assert np.isfinite(states.unpack(reply.packed, len(mutated.READ.texts))).all()
        if isinstance(reply, Steps) and isinstance(request, Step):
            _look(logits.unpack(reply.packed, most=request.places_bound() * request.top))
        if isinstance(reply, Gradients) or (isinstance(reply, Outputs) and _of_states(request)):
            assert np.isfinite(states.unpack_scaled(reply.packed, reply.count)).all()
        elif isinstance(reply, Outputs):
            _look(logits.unpack(reply.packed))
    except CosiloError:
        _booked(boundary)
        return False
    _booked(boundary)
    return True


def _of_states(request: Message) -> bool:
    return isinstance(request, Forward) and request.last is not None


def _booked(boundary: Boundary) -> None:
    """However it ended, nothing stays reserved and nothing was booked that cannot be."""
    totals = boundary.totals
    assert boundary.meter.reserved.messages == 0
    assert totals.messages == 1
    assert min(totals.tokens_in, totals.tokens_out, totals.bytes_down) >= 0
    assert 0 <= totals.usd < 1e6


async def _distributions(data: bytes) -> bool:
    try:
        _look(logits.unpack(data))
    except CosiloError:
        return False
    return True


def _look(top: logits.TopK) -> None:
    assert np.isfinite(top.logprobs).all()
    total = np.exp(top.logprobs.astype(float)).sum(axis=1) + np.exp(top.rest.astype(float))
    assert (np.abs(total - 1) < 1e-3).all()
    assert top.ids is None or ((top.ids >= 0) & (top.ids < top.size)).all()


async def _states(data: bytes) -> bool:
    try:
        assert np.isfinite(states.unpack(data, len(mutated.STATES))).all()
    except CosiloError:
        return False
    return True


async def _scaled(data: bytes) -> bool:
    try:
        assert np.isfinite(states.unpack_scaled(data, len(mutated.STATES))).all()
    except CosiloError:
        return False
    return True


Found = dict[str, dict[str, float]]


async def examine(hostile: Hostile, numbers: range, found: Found, *, traced: bool = False) -> None:
    """Run the examples of these numbers, and add to `found` what they did; with `traced` only how much
    memory they took."""
    for i in numbers:
        name, data, look = hostile.example(i)
        row = found.setdefault(name, {"read": 0, "refused": 0, "slowest_ms": 0, "peak_kb": 0})
        started = time.thread_time()
        if traced:
            tracemalloc.start()
        try:
            read = await look(data)
        except BaseException:
            print(f"example {i}, {name}:")
            raise
        if traced:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak <= MEMORY * len(data) + SPARE, (i, name, peak, len(data))
            row["peak_kb"] = max(row["peak_kb"], peak / 1000)
        else:
            spent = time.thread_time() - started
            row["slowest_ms"] = max(row["slowest_ms"], 1000 * spent)
            row["read" if read else "refused"] += 1


async def heaviest(hostile: Hostile, size: int = 1 << 17) -> dict[str, float]:
    """How many times its own bytes a message of each kind takes at most, less what is spare."""
    times: dict[str, float] = {}
    for name, data, look in hostile.fattest(size):
        tracemalloc.start()
        await look(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= MEMORY * len(data) + SPARE, (name, peak, len(data))
        if len(data) > size / 4:
            times[name] = max(times.get(name, 0.0), peak / len(data))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="examples each way")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--state", type=Path, help="where it goes on, and how far it came")
    given = parser.parse_args()
    warnings.simplefilter("error")
    logging.disable(logging.WARNING)  # the meter's, of claims that cannot be
    hostile = Hostile()
    ups = sum(name.startswith("up") for name, *_ in hostile.rows)
    # A round of `rows` has `ups` examples up and the others down.
    end = -(-given.count // min(ups, len(hostile.rows) - ups)) * len(hostile.rows)
    first, found, spent, grown = given.first, Found(), 0.0, 0.0
    if given.state and given.state.exists():
        first, found, spent, grown = json.loads(given.state.read_text())
    end = given.first + (end if given.count > 1 else 1)
    asyncio.run(examine(hostile, range(100 * len(hostile.rows)), {}))  # what is made once is made
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before, started = spent, time.process_time()
    while first < end:
        last = min(end, first + EVERY)
        asyncio.run(examine(hostile, range(first, last), found))
        first, spent = last, before + time.process_time() - started
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = max(grown, (now - resident) / 1024)
        if given.state:
            given.state.write_text(json.dumps((first, found, spent, grown)))
    kept = Kept("hostile", settings={"count": given.count, "traced": f"one in {TRACED}"})
    # Tracing keeps memory of its own, so it comes after the process has been measured.
    asyncio.run(examine(hostile, range(given.first, end, TRACED), found, traced=True))
    for name, times in asyncio.run(heaviest(hostile)).items():
        kept.put(name, "times", times)
        print(f"{name:34} takes {times:.1f} times its bytes at most")
    whole = {"up": 0, "down": 0}
    for name, row in sorted(found.items()):
        n = int(row["read"] + row["refused"])
        whole["up" if name.startswith("up") else "down"] += n
        for column, value in row.items():
            kept.put(name, column, value, n=n)
        print(f"{name:34}" + "".join(f"{v:12,.1f}" for v in row.values()))
    for way, n in whole.items():
        kept.put("all", way, n)
    kept.put("all", "us", 1e6 * spent / sum(whole.values()), n=sum(whole.values()))
    kept.put("all", "grown_mb", grown)
    print(f"{whole}, {spent:.0f} s of CPU, {grown:.1f} MB more than at the beginning")
    if given.count > 100_000:
        kept.write()


if __name__ == "__main__":
    main()
