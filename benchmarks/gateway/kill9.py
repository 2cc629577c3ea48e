"""`kill -9` under load: no charge is lost or booked twice, and the gateway is back within seconds.

    python benchmarks/gateway/kill9.py --kills 20

Two workers answer JSON and streamed requests while, at random moments, one of them (or every fifth
time the whole gateway) is killed. Afterwards the books must agree: every answer that a client got
whole is on record once, at what the upstream billed; a request that was killed is booked at most at
its reservation and never below what the upstream billed; nothing stays set aside; the hash chains are
whole. Exit code 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integration.gateway import (
    MAIN,
    Gateway,
    Mock,
    Process,
    make_key,
    mocking,
    upstream,
    write_config,
)

from cosilo.cli import main

MAX_TOKENS = 48


@dataclass
class Outcome:
    """What the clients saw, and what did not hold."""

    whole: set[str] = field(default_factory=set)
    broken: int = 0
    restarts: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def ask(session: aiohttp.ClientSession, url: str, stream: bool, outcome: Outcome) -> None:
    body = {
        "model": "cosilo/ok", "stream": stream, "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
            data = await reply.read()
            done = data.endswith(b"[DONE]\n\n") if stream else b'"total_tokens"' in data
            if reply.status == 200 and done:
                outcome.whole.add(reply.headers["x-cosilo-request-id"])
            else:
                outcome.broken += 1
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        outcome.broken += 1
        await asyncio.sleep(0.02)


async def load(url: str, key: str, clients: int, stop: asyncio.Event, outcome: Outcome) -> None:
    async def client(number: int) -> None:
        headers = {"authorization": f"Bearer {key}"}
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            turn = number
            while not stop.is_set():
                turn += 1
                await ask(session, url, bool(turn % 2), outcome)

    await asyncio.gather(*(client(i) for i in range(clients)))


def start(folder: Path) -> tuple[Process, int]:
    process = Process([sys.executable, "-c", MAIN, "serve", "gateway.toml"], cwd=folder)
    try:
        found = process.wait_for(r"at http://[^:]+:(\d+)/v1", times=2, seconds=60)
    except BaseException:
        process.stop(signal.SIGKILL)
        raise
    return process, int(found[1])


async def torment(folder: Path, mock: Mock, *, kills: int, clients: int, seed: int) -> Outcome:
    """Kill `kills` times under load, then compare the books."""
    draw = random.Random(seed)
    outcome = Outcome()
    served = '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'
    config = upstream("lm", mock, "ok", retries=0) + served
    write_config(folder, config, workers=2, more="access_log = false")
    key = await asyncio.to_thread(make_key, folder, "load")
    process, port = await asyncio.to_thread(start, folder)
    url = f"http://127.0.0.1:{port}"
    write_config(folder, config, workers=2, port=port, more="access_log = false")
    stop = asyncio.Event()
    running = asyncio.create_task(load(url, key, clients, stop, outcome))
    try:
        for number in range(kills):
            await asyncio.sleep(draw.uniform(0.2, 1.0))
            before = len(outcome.whole)
            pid = process.child.pid
            if number % 5 == 4:
                workers = children(pid)
                for victim in (pid, *workers):
                    os.kill(victim, signal.SIGKILL)
                await asyncio.to_thread(process.stop, signal.SIGKILL)
                began = time.monotonic()
                process, _ = await asyncio.to_thread(start, folder)
            else:
                began = time.monotonic()
                os.kill(draw.choice(children(pid)), signal.SIGKILL)
                await asyncio.to_thread(process.wait_for, "serves", seconds=60)
            outcome.restarts.append(time.monotonic() - began)
            end = time.monotonic() + 30
            while len(outcome.whole) == before:
                if time.monotonic() > end:
                    outcome.faults.append(f"after kill {number} nothing was answered any more")
                    break
                await asyncio.sleep(0.01)
    finally:
        stop.set()
        await running
    await asyncio.to_thread(process.stop)
    # A last start books what the last kill left unsettled.
    process, _ = await asyncio.to_thread(start, folder)
    await asyncio.to_thread(process.stop)
    await asyncio.to_thread(compare, Gateway(process, port, folder), mock, outcome)
    return outcome


def compare(gateway: Gateway, mock: Mock, outcome: Outcome) -> None:
    """What the books say against what the upstream would bill."""
    seen = mock.seen()
    rows = gateway.rows()
    state = gateway.spent("load")
    by_id = {r.request: r for r in rows}
    faults = outcome.faults
    if len(by_id) != len(rows):
        faults.append("a request is on record twice")
    one_in, one_out = 4, MAX_TOKENS
    for request in outcome.whole:
        row = by_id.get(request)
        if row is None:
            faults.append(f"{request}: answered and not on record")
        elif (row.spent.tokens_in, row.spent.tokens_out) != (one_in, one_out):
            faults.append(f"{request}: booked {row.spent}")
    if state.held.usd or state.held.tokens:
        faults.append(f"still set aside: {state.held}")
    for name in ("tokens_in", "tokens_out"):
        total = sum(getattr(r.spent, name) for r in rows)
        billed = seen["prompt_tokens" if name == "tokens_in" else "completion_tokens"]
        if getattr(state.used, name) != total:
            faults.append(f"{name}: the key's total is not the sum of its requests")
        if total < billed:
            faults.append(f"{name}: {total} booked, {billed} billed by the upstream")
    killed = [r for r in rows if r.outcome == "killed"]
    for row in killed:
        if row.spent.tokens_out > MAX_TOKENS:
            faults.append(f"{row.request}: killed and booked above its reservation")
    if main(["audit", "verify", str(gateway.folder / "store")]):
        faults.append("the record's chains are not whole")


async def main_async(kills: int, clients: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="cosilo-kill9-") as name, mocking() as mock:
        outcome = await torment(Path(name), mock, kills=kills, clients=clients, seed=seed)
        ordered = sorted(outcome.restarts)
        summary: dict[str, Any] = {
            "kills": kills, "answered": len(outcome.whole), "broken": outcome.broken,
            "back_s_median": round(ordered[len(ordered) // 2], 2), "back_s_most": round(ordered[-1], 2),
            "faults": len(outcome.faults),
        }  # fmt: skip
    print(json.dumps(summary))
    for fault in outcome.faults[:20]:
        print(fault, file=sys.stderr)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="kill -9 under load, then check the books.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    raise SystemExit(asyncio.run(main_async(a.kills, min(a.clients, 32), a.seed)))
