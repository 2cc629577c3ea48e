"""CPU of private requests through a gateway: of its worker and of the process that looks for values.

    python benchmarks/gateway/private_cpu.py              # five rounds
    python benchmarks/gateway/private_cpu.py --rounds 2 --only short

Measured is CPU time (user and system, of all processes of the gateway), not time on the clock. Every
round has a key of its own, so that nothing of it is remembered from the round before; requests are
asked one after the other. The plain figure is that of the same request at a point without a defence.

    short        a prompt with a name, a telephone number and a street address
    prose        sentences of presidio_synth, per 1,000 new words
    json, mixed  records, and both by turns, per 1,000 new words
    tenth turn   the tenth request of a conversation (all its turns again); its new words alone

The load average of each round (the mean of that at its beginning and at its end) is kept beside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadgen import cpu_seconds
from tests.integration.gateway import Gateway, mocking, serving, upstream

from cosilo.gateway.accounts.accounts import Limits
from kept import Kept

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "presidio_synth"
TURNS = 10
TALKS = 24
CONFIG = """
[defences.hide]
kind = "pseudonym"
conversation = "first-turn"
[[points]]
name = "private"
strategy = "large"
large = "lm"
defences = ["hide"]
[[points]]
name = "plain"
strategy = "large"
large = "lm"
"""
GIVEN = (
    "Maud Ottokar Ines Brandt Karel Novak Ayse Demir Tom Whitlock Priya Nair Lena Voss Omar Haddad"
)
STREETS = "Foxhollow Avenue,Mill Lane,Harbour Street,Orchard Road,Station Road,Linden Drive"

Messages = list[dict[str, str]]


def sentences(draw: random.Random) -> list[str]:
    """All of presidio_synth, each once."""
    found = [
        str(json.loads(line)["text"])
        for split in ("train", "test")
        for line in (DATA / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]
    draw.shuffle(found)
    return found


def person(draw: random.Random) -> str:
    return f"{draw.choice(GIVEN.split())} {draw.choice(GIVEN.split())}"


def record(draw: random.Random) -> str:
    name = person(draw)
    return json.dumps({
        "patient_id": f"PT-{draw.randrange(10**6)}", "name": name,
        "status": draw.choice(["open", "closed"]),
        "phone": f"+1 212 555 {draw.randrange(10**4):04}", "quantity": draw.randrange(50),
        "address": f"{draw.randrange(1, 200)} {draw.choice(STREETS.split(','))}",
        "note": f"Called {name.split()[0]} back in the morning, nothing new to report.",
    })  # fmt: skip


def short(draw: random.Random) -> Messages:
    text = (
        f"Please write a polite reminder to {person(draw)}, who has not paid the invoice of March. "
        f"The number is (212) 555-{draw.randrange(10**4):04}, and the letter goes to "
        f"{draw.randrange(1, 200)} {draw.choice(STREETS.split(','))}."
    )
    return [{"role": "user", "content": text}]


def pieces_of(parts: Iterator[str], words: int, joint: str) -> str:
    """The next of `parts` with at least so many words, joined."""
    taken: list[str] = []
    while sum(len(part.split()) for part in taken) < words:
        taken.append(next(parts))
    return joint.join(taken)


def long_ones(kind: str, draw: random.Random, count: int) -> Iterator[Messages]:
    prose = iter(sentences(draw))
    records = iter(lambda: record(draw), "")
    for _ in range(count):
        if kind == "prose":
            text = pieces_of(prose, 1_000, " ")
        elif kind == "json":
            text = "[" + pieces_of(records, 1_000, ",\n") + "]"
        else:
            text = "\n\n".join(
                pieces_of(prose, 120, " ") + "\n\n" + pieces_of(records, 80, "\n") for _ in range(5)
            )
        yield [{"role": "user", "content": text}]


def conversation(draw: random.Random) -> Messages:
    parts = iter(sentences(draw))
    said = []
    for _ in range(TURNS):
        said.append({"role": "user", "content": pieces_of(parts, 80, " ")})
        said.append({"role": "assistant", "content": pieces_of(parts, 40, " ")})
    return said[:-1]


class Asker:
    """Asks a gateway, and says what that cost it."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.session = session

    async def cost(self, point: str, requests: Sequence[Messages], key: str) -> float:
        """CPU-ms of all `requests`, asked one after the other."""
        before = cpu_seconds(self.gateway.pid)
        for messages in requests:
            body = {"model": f"cosilo/{point}", "messages": messages}
            async with self.session.post(
                f"{self.gateway.url}/chat/completions", json=body,
                headers={"authorization": f"Bearer {key}"},
            ) as reply:  # fmt: skip
                assert reply.status == 200, await reply.text()
                await reply.read()
        return 1000 * (cpu_seconds(self.gateway.pid) - before)


def key_of(gateway: Gateway, name: str) -> str:
    return gateway.key(name, Limits(usd=10**6, requests_per_minute=10**6))


async def one_round(ask: Asker, number: int, only: Sequence[str], count: int) -> dict[str, float]:
    """CPU-ms of each case."""
    draw = random.Random(number)
    found: dict[str, float] = {}
    load = [os.getloadavg()[0]]
    key = await asyncio.to_thread(key_of, ask.gateway, f"round {number}")
    if "short" in only:
        some = [short(draw) for _ in range(count)]
        for point in ("private", "plain"):
            name = "short" if point == "private" else "short, plain"
            found[name] = await ask.cost(point, some, key) / count
    for kind in ("prose", "json", "mixed"):
        if kind in only:
            some = list(long_ones(kind, draw, 16))
            words = sum(len(m[0]["content"].split()) for m in some)
            found[kind] = await ask.cost("private", some, key) / words * 1_000
    if "turns" in only:
        talks = [conversation(draw) for _ in range(TALKS)]
        for turn in range(1, 2 * TURNS - 1, 2):
            await ask.cost("private", [talk[:turn] for talk in talks], key)
        other = await asyncio.to_thread(key_of, ask.gateway, f"alone in round {number}")
        tenth = alone = 0.0
        # The tenth turn brings an answer and a question. Half of the talks come first alone: spaCy
        # reads a word that it has not seen in some microseconds more.
        for some, first in ((talks[::2], True), (talks[1::2], False)):
            for turn in (first, not first):
                if turn:
                    tenth += await ask.cost("private", some, key)
                else:
                    alone += await ask.cost("private", [talk[-2:] for talk in some], other)
        found["tenth turn"] = tenth / len(talks)
        found["its new words alone"] = alone / len(talks)
        found["tenth turn, times its new words"] = tenth / alone
    load.append(os.getloadavg()[0])
    found["load average of the machine"] = statistics.mean(load)
    return found


async def measured(gateway: Gateway, a: Any) -> list[dict[str, float]]:
    async with aiohttp.ClientSession() as session:
        ask = Asker(gateway, session)
        await one_round(ask, 1_000, a.only, 30)  # loads what is loaded when it is first needed
        found = []
        for number in range(a.rounds):
            found.append(await one_round(ask, number, a.only, a.n))
            print(json.dumps({k: round(v, 2) for k, v in found[-1].items()}), flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU-ms of private requests through a gateway.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=200, help="short prompts to a round")
    parser.add_argument("--only", nargs="+", default=["short", "prose", "json", "mixed", "turns"])
    parser.add_argument(
        "--keep", action="store_true", help="write benchmarks/results/private_cpu.json"
    )
    a = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cosilo-cpu-") as name,
        mocking() as mock,
        serving(Path(name), upstream("lm", mock, "ok") + CONFIG) as gateway,
    ):
        rounds = asyncio.run(measured(gateway, a))
    kept = Kept("private_cpu", settings={"rounds": a.rounds, "short prompts to a round": a.n})
    for case in rounds[0]:
        values = [r[case] for r in rounds]
        unit = "ratio" if "times" in case else "jobs" if "load" in case else "CPU-ms"
        kept.put(case, unit, statistics.median(values),
                 n=len(values), low=min(values), high=max(values))  # fmt: skip
        print(
            f"{case:34} {statistics.median(values):8.2f}  [{min(values):.2f} to {max(values):.2f}]"
        )
    if a.keep:
        kept.write()


if __name__ == "__main__":
    main()
