"""A long, even load: memory and the slowest requests must not grow.

    python benchmarks/gateway/soak.py --minutes 30

First the machine's capacity is measured, then about 70 % of it is asked for, JSON and streams by
turns. Once a minute memory and p99 are noted. Memory must not grow by more than 10 % (and 10 MB), and
the median p99 of the last third not exceed twice that of the first, for the exit code to be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from loadgen import load, make_request, measure, percentile, rss_mb
from tests.integration.gateway import mocking, serving, upstream

CONNECTIONS = 8


async def soak(
    root: str, key: str, pid: int, minutes: float, step: float
) -> list[dict[str, float]]:
    best = await measure(
        root, key, "cosilo/ok", concurrency=CONNECTIONS, seconds=5, stream=False, pid=pid
    )
    # At 70 % load a connection rests for three sevenths of the time that a request takes.
    pause = best["p50_ms"] / 1000 * 3 / 7
    rows = []
    for number in range(max(3, round(minutes * 60 / step))):
        stream = bool(number % 2)
        request = make_request(root, key, "cosilo/ok", stream=stream)
        tally = await load(
            root, request, concurrency=CONNECTIONS, seconds=step, stream=stream, pause=pause
        )
        row = {
            "minute": round((number + 1) * step / 60, 2), "stream": float(stream),
            "requests": float(len(tally.seconds)), "failures": float(sum(tally.failures.values())),
            "p99_ms": round(percentile(tally.seconds, 0.99) * 1000, 2), "rss_mb": round(rss_mb(pid), 1),
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def judge(rows: list[dict[str, float]]) -> list[str]:
    faults = []
    third = max(1, len(rows) // 3)
    begin, end = rows[third - 1]["rss_mb"], rows[-1]["rss_mb"]
    if end > begin * 1.1 + 10:
        faults.append(f"memory grew from {begin} to {end} MB")
    for stream in (0.0, 1.0):
        mine = [r["p99_ms"] for r in rows if r["stream"] == stream]
        part = max(1, len(mine) // 3)
        first, last = statistics.median(mine[:part]), statistics.median(mine[-part:])
        if last > 2 * first:
            faults.append(f"p99 grew from {first} to {last} ms")
    if any(r["failures"] for r in rows):
        faults.append("requests failed")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description="An even load for a long time.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--step", type=float, default=60, help="seconds between two looks")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cosilo-soak-") as name, mocking() as mock:
        config = upstream("lm", mock, "ok")
        config += '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'
        with serving(Path(name), config) as gateway:
            rows = asyncio.run(soak(gateway.root, gateway.key(), gateway.pid, a.minutes, a.step))
    faults = judge(rows)
    for fault in faults:
        print(fault, file=sys.stderr)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
