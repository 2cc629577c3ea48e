"""Real sentences full of personal data through a gateway, to an upstream that repeats them.

    python benchmarks/gateway/round_trip.py                # all 1,500 of presidio_synth, four ways
    python benchmarks/gateway/round_trip.py --n 100

Each sentence is sent as a client would, whole and as a stream that the upstream cuts every 1, 3 and 7
characters. Counted are answers that are not exactly what was asked, and gold spans that the upstream
was sent, wholly or in part (`leaving.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.integration.gateway import Gateway, Mock, mocking, serving, upstream

from kept import Kept
from leaving import counted, keep_direct

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "presidio_synth"
SIZES = (0, 1, 3, 7)


def sentences() -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for split in ("train", "test")
        for line in (DATA / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]


async def ask(session: aiohttp.ClientSession, url: str, size: int, text: str) -> str:
    body = {
        "model": f"cosilo/echo{size}", "stream": size > 0,
        "messages": [{"role": "user", "content": text}],
    }  # fmt: skip
    async with session.post(f"{url}/chat/completions", json=body) as reply:
        data = (await reply.read()).decode()
        if reply.status != 200:
            return f"status {reply.status}"
    if not size:
        return str(json.loads(data)["choices"][0]["message"]["content"])
    events = [json.loads(b[6:]) for b in data.split("\n\n") if b.startswith("data: {")]
    return "".join(
        e["choices"][0]["delta"].get("content") or "" for e in events if e.get("choices")
    )


async def run(gateway: Gateway, mock: Mock, rows: list[dict[str, Any]], key: str) -> int:
    sent: list[str] = []
    inexact = 0
    kept = Kept("gateway_round_trip")
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for size in SIZES:
            wrong = 0
            for row in rows:
                if not size:
                    await asyncio.to_thread(mock.reset)
                wrong += await ask(session, gateway.url, size, row["text"]) != row["text"]
                if not size:
                    bodies = (await asyncio.to_thread(mock.seen))["bodies"]
                    sent.append(json.loads(bodies[-1])["messages"][-1]["content"])
            how = f"in pieces of {size}" if size else "whole"
            print(f"{how}: {len(rows) - wrong} of {len(rows)} exact", flush=True)
            kept.put(how, "exact", len(rows) - wrong, n=len(rows))
            inexact += wrong
    counts = counted(
        (row["text"], row["spans"], text) for row, text in zip(rows, sent, strict=True)
    )
    keep_direct(counts, kept)
    kept.write()
    return inexact


def main() -> None:
    parser = argparse.ArgumentParser(description="presidio_synth through a gateway and back.")
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--detectors", nargs="+", default=["presidio"])
    a = parser.parse_args()
    config = f'[defences.hide]\nkind = "pseudonym"\ndetectors = {json.dumps(a.detectors)}\n'
    with tempfile.TemporaryDirectory(prefix="cosilo-trip-") as name, mocking() as mock:
        for size in SIZES:
            config += upstream(f"lm{size}", mock, f"echo-{size}" if size else "echo")
            config += (
                f'[[points]]\nname = "echo{size}"\nstrategy = "large"\nlarge = "lm{size}"\n'
                'defences = ["hide"]\n'
            )
        with serving(Path(name), config) as gateway:
            key = gateway.key()
            inexact = asyncio.run(run(gateway, mock, sentences()[: a.n], key))
    raise SystemExit(1 if inexact else 0)


if __name__ == "__main__":
    main()
