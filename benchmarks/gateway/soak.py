"""A long, even load: memory and the slowest requests must not grow.

    taskset -c 1 python benchmarks/gateway/soak.py --minutes 30 > soak.jsonl

First the capacity is measured of whatever the command may use (here: one core for the gateway, the
mock upstream and the clients together), JSON requests and streams side by side; then 70 % of it is
asked for, request by request at even distances. There is a line for each window. Memory must not grow
by more than 10 % and 10 MB after the first window, no request may fail, and the median p99 of the last
third of the windows must not exceed twice that of the first, for the exit code to be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
    await both(root, key, 2, 0)  # warm
    found = await both(root, key, 15, 0)
    # Both kinds take turns on a core that is full, so there are about as many of either.
    capacity = sum(len(t.seconds) for t in found) / 15
    every = 2 * CONNECTIONS / (SHARE * capacity)
    print(
        json.dumps({"capacity_rps": round(capacity), "asked_rps": round(SHARE * capacity)}),
        flush=True,
    )
    rows = []
    for number in range(max(3, round(minutes * 60 / window))):
        before = cpu_seconds(pid)
        tallies = await both(root, key, window, every)
        row: dict[str, Any] = {"minute": round((number + 1) * window / 60, 2)}
        for kind, tally in zip(("json", "stream"), tallies, strict=True):
            row[kind] = {
                "n": len(tally.seconds), "failures": tally.failures,
                "p50_ms": round(percentile(tally.seconds, 0.5) * 1000, 2),
                "p99_ms": round(percentile(tally.seconds, 0.99) * 1000, 2),
            }  # fmt: skip
        row["gateway_cpu"] = round((cpu_seconds(pid) - before) / window, 3)
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
