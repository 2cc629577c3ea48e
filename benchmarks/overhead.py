"""What the engine itself costs per crossing: guards, meter and SQLite ledger on, models free.

    python benchmarks/overhead.py --crossings 100000
    python benchmarks/overhead.py --crossings 10000 --against ../base --rounds 20

The models are scripted, so nearly all that is measured is Cosilo's own work: two guards that look at
every message, budget, encoding and decoding, two chained ledger entries on disk. The figures are CPU
time (wall times drift on shared machines) and the growth of resident memory after the first tenth.
Bars: at most 0.5 CPU-ms per crossing, and memory that does not grow with their number.

With --against, the code of another tree is measured in turn with this one's, each time in a process of
its own. Bar: at most 1.05 times its CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from time import process_time

import numpy as np

from cosilo.boundary.channel import Handler, StreamHandler
from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.defences.base import Defence
from cosilo.models.base import Access
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.inference.ends import Large
from cosilo.types import Chat, Delta, Generation, Sampling, user
from kept import ROOT, Kept

QUESTION = "Please move 250 euros from my savings to the account of my landlord by Friday. " * 3
MAX_CPU_MS = 0.5
MAX_GROWTH_MB = 20.0
MAX_RATIO = 1.05


class Free:
    """A model that takes no time."""

    name = "free"
    access = Access.TEXT
    reply = Generation("transfer", prompt_tokens=60, completion_tokens=1)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        return self.reply

    async def close(self) -> None: ...


class Looks(Defence):
    """A guard that reads every message and changes none."""

    def __init__(self) -> None:
        self.characters = 0

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        if isinstance(message, Ask):
            self.characters += sum(len(turn.content) for turn in message.chat)
        return await forward(message)

    def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        return forward(ask)


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this script reads /proc/self/status, which only Linux has")


async def measure(crossings: int, folder: Path, *, concurrency: int = 8) -> dict[str, float]:
    """CPU milliseconds per crossing, and the megabytes that memory grew by."""
    ledger = SqliteLedger(folder / "ledger.sqlite", "overhead")
    meter = Meter(Budget(usd=1e9, tokens_out=10**12), price=Price(1.0, 2.0))
    session = open_session(
        DataOwner(Free()),
        LMOwner(Free()),
        Large(),
        defences=[Looks(), Looks()],
        meter=meter,
        ledger=ledger,
    )
    strategy, done, settled = Large(), 0, 0.0
    numbers = iter(range(crossings))

    async def work() -> None:
        nonlocal done, settled
        for number in numbers:
            await strategy.answer(session.bind(f"test/{number}"), user(f"{number} {QUESTION}"))
            done += 1
            if done == crossings // 10:
                settled = resident_mb()

    before = process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    spent = process_time() - before
    assert meter.totals.messages == crossings
    ledger.close()
    return {
        "crossings": crossings,
        "cpu_ms_per_crossing": round(1000 * spent / crossings, 4),
        "growth_mb": round(resident_mb() - settled, 1),
        "ledger_mb": round((folder / "ledger.sqlite").stat().st_size / 1e6, 1),
    }


_ONE = """
import asyncio, json, runpy, sys, tempfile
from pathlib import Path
sys.path.insert(0, "benchmarks")
measure = runpy.run_path("benchmarks/overhead.py", run_name="overhead")["measure"]
with tempfile.TemporaryDirectory() as folder:
    print(json.dumps(asyncio.run(measure({crossings}, Path(folder)))))
"""


def measured_in(tree: Path, crossings: int) -> float:
    """CPU milliseconds per crossing of the code in `tree`, in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", _ONE.format(crossings=crossings)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(found.stdout.splitlines()[-1])["cpu_ms_per_crossing"])


def compare(before: Path, crossings: int, rounds: int) -> None:
    """Measure this tree and `before` in turn, and keep the ratios."""
    trees = [before.resolve(), ROOT]
    times: dict[Path, list[float]] = {tree: [] for tree in trees}
    for turn in range(rounds):
        for tree in trees if turn % 2 else trees[::-1]:
            times[tree].append(measured_in(tree, crossings))
    ratios = np.array(times[ROOT]) / np.array(times[trees[0]])
    drawn = np.random.default_rng(0).choice(ratios, (10_000, rounds))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    kept = Kept("overhead_beside", settings={"crossings": crossings})
    for name, tree in (("before", trees[0]), ("now", ROOT)):
        kept.put("crossing", name, float(np.median(times[tree])), n=rounds)
    ratio = float(np.median(ratios))
    kept.put("crossing", "ratio", ratio, n=rounds, low=float(low), high=float(high))
    kept.write()
    print(f"{ratio:.3f} [{low:.3f}, {high:.3f}] times {trees[0]}")
    if ratio > MAX_RATIO:
        raise SystemExit(f"over the bar: {MAX_RATIO} times the code before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crossings", type=int, default=100_000)
    parser.add_argument("--against", type=Path, help="a tree with the code to compare with")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.against:
        compare(arguments.against, arguments.crossings, arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(arguments.crossings, Path(folder)))
    print(json.dumps(found))
    kept = Kept("overhead")
    for name, value in found.items():
        kept.put("crossing", name, value, n=arguments.crossings)
    kept.write()
    if found["cpu_ms_per_crossing"] > MAX_CPU_MS or found["growth_mb"] > MAX_GROWTH_MB:
        raise SystemExit(f"over the bar: {MAX_CPU_MS} CPU-ms and {MAX_GROWTH_MB} MB")


if __name__ == "__main__":
    main()
