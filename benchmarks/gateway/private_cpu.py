"""CPU of private requests through a gateway: of its worker and of the process that looks for values.

    python benchmarks/gateway/private_cpu.py              # five rounds
    python benchmarks/gateway/private_cpu.py --rounds 2 --only short
    python benchmarks/gateway/private_cpu.py --before ../checkout --keep

Measured is CPU time (user and system, of all processes of the gateway), not time on the clock. Every
round has a key of its own, so that nothing of it is remembered from the round before; requests are
asked one after the other. The plain figure is that of the same request at a point without a defence.

    short        a prompt with a name, a telephone number and a street address
    prose        sentences of presidio_synth, per 1,000 new words
    json, mixed  records, and both by turns, per 1,000 new words
    tenth turn   the tenth request of a conversation (all its turns again); its new words alone

The load average of each round (the mean of that at its beginning and at its end) is kept beside.

With --before, a gateway of another checkout is asked the same, round about: what is kept, in a file of
its own, is how many times as much CPU today's takes, which another machine's speed does not change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadgen import cpu_seconds
from side_by_side import make_key
from tests.integration.gateway import Gateway, mocking, serving, upstream

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

    def __init__(
        self, gateway: Gateway, checkout: Path | None, session: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.checkout = checkout
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


def key_of(gateway: Gateway, checkout: Path | None, name: str) -> str:
    """A new key. The code that serves it makes it: an earlier one knows only its own tables."""
    with code_of(checkout):
        return make_key(gateway.folder, dict(os.environ), name)


async def one_round(ask: Asker, number: int, only: Sequence[str], count: int) -> dict[str, float]:
    """CPU-ms of each case."""
    draw = random.Random(number)
    found: dict[str, float] = {}
    load = [os.getloadavg()[0]]
    key = await asyncio.to_thread(key_of, ask.gateway, ask.checkout, f"round {number}")
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
        other = await asyncio.to_thread(key_of, ask.gateway, ask.checkout, f"alone {number}")
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


async def measured(
    gateways: Sequence[tuple[Gateway, Path | None]], a: Any
) -> list[list[dict[str, float]]]:
    """The rounds of each gateway; they take turns, and who begins changes from round to round."""
    found: list[list[dict[str, float]]] = [[] for _ in gateways]
    async with aiohttp.ClientSession() as session:
        asks = [Asker(gateway, checkout, session) for gateway, checkout in gateways]
        for ask in asks:
            await one_round(ask, 1_000, a.only, 30)  # loads what is loaded when it is first needed
        for number in range(a.rounds):
            for at in sorted(range(len(asks)), reverse=number % 2 == 1):
                found[at].append(await one_round(asks[at], number, a.only, a.n))
                print(json.dumps({k: round(v, 2) for k, v in found[at][-1].items()}), flush=True)
    return found


@contextmanager
def code_of(checkout: Path | None) -> Iterator[None]:
    """A context in which gateways are started from a checkout; from this one where it is None."""
    if checkout is None:
        yield
        return
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str((checkout / "src").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def unit_of(case: str) -> str:
    return "ratio" if "times" in case else "jobs" if "load" in case else "CPU-ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU-ms of private requests through a gateway.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=200, help="short prompts to a round")
    parser.add_argument("--only", nargs="+", default=["short", "prose", "json", "mixed", "turns"])
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results")
    parser.add_argument("--before", type=Path, help="a checkout of other code, asked by turns")
    a = parser.parse_args()
    checkouts = [None] if a.before is None else [None, a.before]
    with ExitStack() as stack:
        mock = stack.enter_context(mocking())
        gateways = []
        for checkout in checkouts:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cosilo-cpu-"))
            with code_of(checkout):
                gateway = stack.enter_context(
                    serving(Path(folder), upstream("lm", mock, "ok") + CONFIG)
                )
            gateways.append((gateway, checkout))
        rounds = asyncio.run(measured(gateways, a))
    settings = {"rounds": a.rounds, "short prompts to a round": a.n}
    if a.before is None:
        kept = Kept("private_cpu", settings=settings)
    else:
        kept = Kept("private_cpu_beside", settings=settings | {"beside": commit_of(a.before)})
    for case in rounds[0][0]:
        values = [r[case] for r in rounds[0]]
        unit = unit_of(case)
        if a.before is not None:
            if unit != "CPU-ms":
                continue
            values = [now[case] / then[case] for now, then in zip(*rounds, strict=True)]
            unit = "times the other code's CPU"
        kept.put(case, unit, statistics.median(values),
                 n=len(values), low=min(values), high=max(values))  # fmt: skip
        print(
            f"{case:34} {statistics.median(values):8.3f}  [{min(values):.3f} to {max(values):.3f}]"
        )
    if a.keep:
        kept.write()


if __name__ == "__main__":
    main()
