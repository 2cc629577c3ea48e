"""Bytes of joint runs, counted three times: by what parties are said to have spent, by the proxies,
and by the network interface.

    python benchmarks/secure_bytes.py

It runs in a network namespace of its own (`unshare -n`, which needs the right to make one), where
nothing else speaks: the loopback interface then counts every byte twice, on the way to a proxy and
from it, and the headers of each packet. Each run of ABY3 and Cheetah computes a linear head 384 → 10.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from cosilo.engines.base import Program, Setting
from cosilo.engines.spu.run import JointRun
from kept import Cells, Kept

HEADERS = 52
"""Bytes of IPv4 and TCP, with the option of time stamps, before the payload of a packet on loopback."""

ROWS = {"aby3": (1, 256, 1024), "cheetah": (1, 16)}


def interface() -> int:
    """Payload that passed loopback so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            received = counts.split()
            return int(received[0]) - HEADERS * int(received[1])
    raise RuntimeError("there is no loopback interface")


async def measured(protocol: str, rows: int) -> dict[str, float]:
    drawn = np.random.default_rng(rows)
    weights = drawn.normal(0, 0.05, (384, 10)).astype(np.float32)
    biases = drawn.normal(0, 0.05, 10).astype(np.float32)
    vectors = drawn.normal(0, 0.05, (rows, 384)).astype(np.float32)
    shape = {"inputs": 384, "outputs": 10, "rows": rows, "answer": "logits"}
    before = interface()
    async with JointRun(Program("head", shape), Setting(protocol)) as run:  # type: ignore[arg-type]
        await run.start()
        await run.compile()
        await run.link()
        setup = await run.share([weights, biases])
        online = await run.compute([vectors])
        again = await run.compute([vectors])
        end = await run.end()
    error = float(np.abs(online.outputs[0] - (vectors @ weights + biases)).max())
    bytes_out = [
        sum(s.bytes_out for s in step.spent.values()) for step in (setup, online, again, end)
    ]
    return {
        "setup": bytes_out[0],
        "online": bytes_out[1],
        "again": bytes_out[2],
        "end": bytes_out[3],
        "proxies": run.payload,
        "interface": (interface() - before) / 2,
        "messages": sum(s.messages for s in again.spent.values()),
        "cpu": sum(s.cpu_seconds for s in again.spent.values()),
        "error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=Path("runs/secure_bytes.json"))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.state.parent.mkdir(parents=True, exist_ok=True)
    if not arguments.alone:
        again = f"ip link set lo up && exec {sys.executable} {' '.join(sys.argv)} --alone"
        subprocess.run(["unshare", "-n", "sh", "-c", again], check=True, env=os.environ)
        sys.argv = [arg for arg in sys.argv if arg != "--alone"]
        write(Cells(arguments.state))
        return
    cells = Cells(arguments.state)
    for protocol, all_rows in ROWS.items():
        for rows in all_rows:
            name = f"{protocol} {rows}"
            if name not in cells.done:
                cells.put(name, asyncio.run(measured(protocol, rows)))
                print(name, cells.done[name], flush=True)


def write(cells: Cells) -> None:
    kept = Kept("secure_bytes", settings={"field": 64, "bits": 18})
    for name, found in cells.done.items():
        said = sum(found[step] for step in ("setup", "online", "again", "end"))
        kept.put(name, "setup_kb", found["setup"] / 1e3)
        kept.put(name, "online_kb", found["online"] / 1e3)
        kept.put(name, "again_kb", found["again"] / 1e3)
        kept.put(name, "messages", int(found["messages"]))
        kept.put(name, "cpu_s", found["cpu"])
        kept.put(name, "error", found["error"])
        kept.put(name, "payload_kb", found["proxies"] / 1e3)
        kept.put(name, "said_less_proxies", int(said - found["proxies"]))
        kept.put(name, "interface_over_proxies", found["interface"] / found["proxies"])
    kept.write()


if __name__ == "__main__":
    main()
