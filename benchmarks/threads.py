"""What a reply of 200 tokens costs when it is written token by token across the boundary.

    python benchmarks/threads.py [--tokens 200] [--rounds 5] [--models torch,llamacpp]

The data owner has the LM's own vocabulary and decodes greedily by what the LM's owner says: at 1
token an exchange, and at 8, of which a draft makes 7 (always right here: what is measured is the
exchange, not a drafting model). Each place comes with the 64 likeliest tokens. Counted are the bytes of
both messages of every exchange, and the CPU time of the host while it answers; what stands beside it is
the same model decoding alone. Rounds of the three are interleaved, and ratios are of one round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step, Steps, decode
from cosilo.boundary.transports.answering import answered
from cosilo.boundary.wire.logits import TopK, joined, pack, unpack
from cosilo.models.base import Access, models
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.thread import Thread
from cosilo.types import Chat, Sampling, user
from kept import Kept

MODEL = "smollm2-135m-instruct"
CHAT = user(
    "Write a short letter to a bank that explains why a card payment of 40 euros was charged twice, "
    "and asks for the money back."
)
TOP = 64
MAX_BYTES, MAX_CPU = 1.3, 1.1


class Measured:
    """A transport that counts the bytes both ways and the CPU seconds of the far side."""

    remote = False

    def __init__(self, owner: LMOwner) -> None:
        self.owner = owner
        self.up = self.down = self.exchanges = 0
        self.cpu = 0.0
        self.tops: list[TopK] = []

    async def carry(self, payload: bytes) -> bytes:
        started = time.process_time()
        reply = await answered(self.owner, payload)
        self.cpu += time.process_time() - started
        self.up += len(payload)
        self.down += len(reply)
        self.exchanges += 1
        steps = decode(reply)
        assert isinstance(steps, Steps), steps
        self.tops.append(unpack(steps.packed))
        return reply

    def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
        raise NotImplementedError


async def alone(model: Any, chat: Chat, tokens: int) -> tuple[str, float]:
    """The model's own greedy reply, and its CPU seconds."""
    started = time.process_time()
    reply = await model.generate(chat, Sampling(max_tokens=tokens))
    return reply.text, time.process_time() - started


async def across(model: Any, chat: Chat, reply: str, tokens: int, at_once: int) -> Measured:
    """The same reply by steps; what comes back says whether each of its tokens is the likeliest."""
    road = Measured(LMOwner(model, exposes=Access.LOGITS.shows))
    boundary = Boundary(road, declared=frozenset({Step}))
    thread = Thread(boundary, chat, model, top=TOP)
    ids = list(model.cut(reply)[0])[:tokens]
    said = await thread.go_on()
    done = 0
    new = [said.likeliest]
    while done + len(new) < len(ids):
        done += len(new)
        draft = ids[done : min(done + at_once - 1, len(ids) - 1)]
        said = await thread.go_on(new, draft, each=at_once > 1)
        assert said.accepted == len(draft), (done, draft, said.accepted)
        new = [*draft, said.likeliest]
    thread.text += b"".join(model.spelt([*ids[:done], *new])[done:])
    assert thread.text.decode() == reply, (thread.text, reply)
    return road


async def measured(kind: str, tokens: int, rounds: int, found: Kept) -> bool:
    # In bfloat16 many tokens are equally likely, and which is written goes by what is read together.
    options = {"precision": "float32"} if kind == "torch" else {}
    # One thread: threads that wait for one another spin.
    model: Any = models.create(kind, model=MODEL, threads=1, **options)
    try:
        beginning, _ = await alone(model, CHAT, 2)  # so that no round pays for what is made once
        await across(model, CHAT, beginning, 2, 1)
        roads: dict[int, Measured] = {}
        times: dict[str, list[float]] = {"alone": [], "1": [], "8": []}
        for _ in range(rounds):
            reply, cpu = await alone(model, CHAT, tokens)
            count = len(model.cut(reply)[0])
            times["alone"].append(cpu / count)
            for n in (1, 8):
                roads[n] = await across(model, CHAT, reply, tokens, n)
                times[str(n)].append(roads[n].cpu / count)
    finally:
        await model.close()
    fine = True
    own = len(reply.encode())
    found.put(kind, "tokens", count)
    found.put(kind, "text_bytes", own, n=count)
    found.put(kind, "cpu_ms_alone", 1000 * statistics.median(times["alone"]), n=rounds)
    for n, road in roads.items():
        row = f"{kind}, {n} at once"
        apart = own + sum(len(pack(top)) for top in road.tops)
        whole = own + len(pack(joined(road.tops)))
        crossed = road.up + road.down
        ratios = [a / b for a, b in zip(times[str(n)], times["alone"], strict=True)]
        found.put(row, "exchanges", road.exchanges)
        found.put(row, "bytes_up", road.up, n=road.exchanges)
        found.put(row, "bytes_down", road.down, n=road.exchanges)
        found.put(row, "bytes_a_token", crossed / count, n=count)
        found.put(row, "to_packed_apart", crossed / apart, n=count)
        found.put(row, "to_packed_together", crossed / whole, n=count)
        found.put(row, "cpu_ms", 1000 * statistics.median(times[str(n)]), n=rounds)
        found.put(
            row, "cpu_to_alone", statistics.median(ratios), n=rounds,
            low=min(ratios), high=max(ratios),
        )  # fmt: skip
        fine &= crossed <= MAX_BYTES * apart and statistics.median(ratios) <= MAX_CPU
        print(
            f"{row}: {crossed / count:.0f} bytes a token, {crossed / apart:.2f} × text and top-{TOP} "
            f"packed by exchange, {crossed / whole:.2f} × packed together; CPU at the host "
            f"{statistics.median(ratios):.2f} × decoding alone ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="torch,llamacpp")
    given = parser.parse_args()
    found = Kept(
        "threads", settings={"model": MODEL, "top": TOP, "rounds": given.rounds, "threads": 1}
    )
    fine = [
        asyncio.run(measured(kind, given.tokens, given.rounds, found))
        for kind in given.models.split(",")
    ]
    found.write()
    if not all(fine):
        raise SystemExit(f"more than {MAX_BYTES} × the bytes, or {MAX_CPU} × the CPU time")


if __name__ == "__main__":
    main()
