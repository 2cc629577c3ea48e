"""What a key for each record costs: CPU of an entry in a ledger, and of forgetting some.

    python benchmarks/record_keys.py                       # this tree alone
    python benchmarks/record_keys.py --against ../base     # in turn with another tree

An entry is a message of about 300 bytes, appended by eight tasks at a time, as `digest` (what a
gateway keeps) and with its `content` (what a run keeps). Each measurement is a process of its own; the
figures are CPU time of the second half of its entries, so nothing that is loaded once is in them. A
crossing has two entries. Bar: 20 µs more a crossing.

Forgetting is that of a run: names are hidden, so the ledger is rewritten with its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import numpy as np

from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import Keep, SqliteLedger
from cosilo.types import user
from kept import ROOT, Kept

QUESTION = "Please move 250 euros from my savings to the account of my landlord by Friday. " * 3
KEEPS: tuple[Keep, ...] = ("digest", "content")
MOST_US = 20.0
LEDGER, FORGOTTEN = 10_000, (1, 100)


async def append(ledger: SqliteLedger, first: int, count: int, tasks: int = 8) -> None:
    ask = Ask(chat=user(QUESTION))
    payload, numbers = encode(ask), iter(range(first, first + count))

    async def work() -> None:
        for number in numbers:
            await ledger.append(f"test/{number}", "up", ask, payload)

    await asyncio.gather(*(work() for _ in range(tasks)))


def entry_us(keep: Keep, entries: int) -> float:
    """CPU microseconds of an entry."""

    async def run(folder: Path) -> float:
        ledger = SqliteLedger(folder / "ledger.sqlite", "chain", keep=keep)
        await append(ledger, 0, entries // 2)
        before = process_time()
        await append(ledger, entries // 2, entries // 2)
        spent = process_time() - before
        ledger.close()
        return 1e6 * spent / (entries // 2)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder)))


def forgetting_s(count: int) -> float:
    """CPU seconds of forgetting the entries of `count` requests of a run's ledger."""
    from cosilo.boundary.record.shredding import shred

    with tempfile.TemporaryDirectory() as folder:
        ledger = SqliteLedger(Path(folder) / "ledger.sqlite", "chain", hide_names=True)
        asyncio.run(append(ledger, 0, LEDGER))
        ledger.close()
        before = process_time()
        step = LEDGER // count
        (done,) = shred(ledger.path, [f"test/{i * step}" for i in range(count)], chains=None)
        assert done.keys == count
        return process_time() - before


_ONE = """
import json, runpy, sys
sys.path.insert(0, {benchmarks!r})
print(json.dumps(runpy.run_path({script!r}, run_name="measured")["entry_us"]({keep!r}, {entries})))
"""


def measured_in(tree: Path, keep: Keep, entries: int) -> float:
    here = Path(__file__).resolve()
    code = _ONE.format(benchmarks=str(here.parent), script=str(here), keep=keep, entries=entries)
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(found.stdout.splitlines()[-1]))


def put(kept: Kept, row: str, name: str, values: Sequence[float]) -> float:
    """Keep the median, with a bootstrap interval."""
    drawn = np.random.default_rng(0).choice(np.array(values), (10_000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    middle = float(np.median(values))
    kept.put(row, name, middle, n=len(values), low=float(low), high=float(high))
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="a tree with the code to compare with")
    parser.add_argument("--entries", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    settings = {"entries": arguments.entries, "ledger": LEDGER}
    kept = Kept("record_keys", settings=settings)
    trees = [ROOT, *([arguments.against.resolve()] if arguments.against else [])]
    over = []
    for keep in KEEPS:
        times: dict[Path, list[float]] = {tree: [] for tree in trees}
        for turn in range(arguments.rounds):
            for tree in trees if turn % 2 else trees[::-1]:
                times[tree].append(measured_in(tree, keep, arguments.entries))
        now = put(kept, keep, "now_us", times[ROOT])
        print(f"{keep}: {now:.1f} µs an entry")
        for tree in trees[1:]:
            put(kept, keep, "before_us", times[tree])
            more = [2 * (a - b) for a, b in zip(times[ROOT], times[tree], strict=True)]
            middle = put(kept, keep, "more_us", more)
            print(f"{keep}: {middle:.1f} µs more a crossing than {tree}")
            over += [keep] if middle > MOST_US else []
    for count in FORGOTTEN:
        seconds = put(kept, "forgetting", f"of_{count}_s", [forgetting_s(count) for _ in range(3)])
        print(f"forgetting {count} of {LEDGER}: {seconds:.3f} CPU-s")
    kept.write()
    if over:
        raise SystemExit(f"over the bar of {MOST_US} µs a crossing: {', '.join(over)}")


if __name__ == "__main__":
    main()
