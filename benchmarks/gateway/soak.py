"""A long, even load: memory and the slowest requests must not grow.

    taskset -c 1 python benchmarks/gateway/soak.py --minutes 30 > soak.jsonl

JSON requests and streams come side by side, one by one at even distances. First it is found how many a
second take 70 % of one core for the gateway, the mock upstream and the clients together; then they are
asked for. There is a line for each window. Memory must not grow by more than 10 % and 10 MB after the
first window, no request may fail, and the median p99 of the last third of the windows must not exceed
twice that of the first, for the exit code to be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from loadgen import Tally, cpu_seconds, load, make_request, percentile, rss_mb
from tests.integration.gateway import mocking, serving, upstream

CONNECTIONS = 16  # of either kind
SHARE = 0.7


async def both(root: str, key: str, seconds: float, every: float) -> tuple[Tally, Tally]:
    """JSON requests and streams at the same time, from `CONNECTIONS` connections each."""
    json_, stream = (make_request(root, key, "cosilo/ok", stream=s) for s in (False, True))
    return await asyncio.gather(
        load(root, json_, concurrency=CONNECTIONS, seconds=seconds, stream=False, every=every),
        load(root, stream, concurrency=CONNECTIONS, seconds=seconds, stream=True, every=every),
    )


async def soak(
    root: str, key: str, pid: int, minutes: float, window: float
) -> list[dict[str, Any]]:
    rate = 100.0
    for _ in range(3):  # the busier it is, the more requests share, and the less each takes
        before = cpu_seconds(os.getpid())
        tallies = await both(root, key, 8, 2 * CONNECTIONS / rate)
        spent = cpu_seconds(os.getpid()) - before
        rate = SHARE * sum(len(t.seconds) for t in tallies) / spent
    every = 2 * CONNECTIONS / rate
    print(json.dumps({"asked_rps": round(rate, 1)}), flush=True)
    rows = []
    for number in range(max(3, round(minutes * 60 / window))):
        before, all_before = cpu_seconds(pid), cpu_seconds(os.getpid())
        tallies = await both(root, key, window, every)
        row: dict[str, Any] = {"minute": round((number + 1) * window / 60, 2)}
        for kind, tally in zip(("json", "stream"), tallies, strict=True):
            row[kind] = {
                "n": len(tally.seconds), "failures": tally.failures,
                "p50_ms": round(percentile(tally.seconds, 0.5) * 1000, 2),
                "p99_ms": round(percentile(tally.seconds, 0.99) * 1000, 2),
            }  # fmt: skip
        row["cpu_of_gateway"] = round((cpu_seconds(pid) - before) / window, 3)
        row["cpu_of_all"] = round((cpu_seconds(os.getpid()) - all_before) / window, 3)
        row["rss_mb"] = round(rss_mb(pid), 1)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def judge(rows: list[dict[str, Any]]) -> list[str]:
    faults = []
    begin, end = rows[0]["rss_mb"], rows[-1]["rss_mb"]
    if end > begin * 1.1 + 10:
        faults.append(f"memory grew from {begin} to {end} MB")
    part = max(1, len(rows) // 3)
    for kind in ("json", "stream"):
        p99 = [r[kind]["p99_ms"] for r in rows]
        first, last = statistics.median(p99[:part]), statistics.median(p99[-part:])
        if last > 2 * first:
            faults.append(f"{kind}: p99 grew from {first} to {last} ms")
        if any(r[kind]["failures"] for r in rows):
            faults.append(f"{kind}: requests failed")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description="An even load for a long time.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--window", type=float, default=300, help="seconds of one line")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cosilo-soak-") as name, mocking() as mock:
        config = upstream("lm", mock, "ok")
        config += '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'
        with serving(Path(name), config) as gateway:
            rows = asyncio.run(soak(gateway.root, gateway.key(), gateway.pid, a.minutes, a.window))
    faults = judge(rows)
    for fault in faults:
        print(fault, file=sys.stderr)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
