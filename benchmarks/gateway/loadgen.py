"""A load generator: `concurrency` keep-alive connections, each with one request at a time.

Each asks again as soon as it is answered, or every so many seconds; then a request's time counts from
when it was due, so that a server that stalls is not spared the requests it kept from being sent.

    python benchmarks/gateway/loadgen.py http://127.0.0.1:8400 --key … --model cosilo/x -c 16 -s 4

Prints one JSON line: requests, failures, latency percentiles and, given --pid, the CPU milliseconds
per request of that process and its children. It sends to loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools


@dataclass
class Tally:
    seconds: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        self.failures[why] = self.failures.get(why, 0) + 1


class Client(asyncio.Protocol):
    """One connection that asks again and again until `until`: `every` so many seconds, or at once."""

    def __init__(
        self, request: bytes, stream: bool, until: float, tally: Tally, every: float, first: float
    ) -> None:
        self.request = request
        self.stream = stream
        self.until = until
        self.tally = tally
        self.every = every
        self.began = time.perf_counter() + first
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.wait()

    def wait(self) -> None:
        """Ask when it is time."""
        loop = asyncio.get_running_loop()
        left = self.began - time.perf_counter()
        if left > 0:
            loop.call_later(left, self.ask)
        else:
            loop.call_soon(self.ask)

    def ask(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.tail = b""
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.tail = (self.tail + body)[-256:]

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        status = self.parser.get_status_code()
        if status != 200:
            self.tally.fail(str(status))
        elif self.stream and b"[DONE]" not in self.tail:
            self.tally.fail("no [DONE]")
        else:
            self.tally.seconds.append(now - self.began)
        self.began = self.began + self.every if self.every else now
        if max(now, self.began) >= self.until:
            self.finish()
        else:
            self.wait()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.tally.fail("connection lost")
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


def cpu_seconds(pid: int) -> float:
    """User and system CPU of a process and of all below it, to the nanosecond where the kernel says it.

    The clock is Linux's CPU clock of another process (`clock_getcpuclockid(3)`): all its threads, ended
    ones too. `/proc/PID/stat` counts in ticks of 10 ms.
    """
    total = 0.0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        try:
            total += time.clock_gettime((~each << 3) | 2)
            children = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        waiting += map(int, children.split())
    return total


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def make_request(url: str, key: str, model: str, *, stream: bool, max_tokens: int = 64) -> bytes:
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SystemExit("load goes to loopback only")
    body = json.dumps({
        "model": model, "stream": stream, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Say something about the weather of today."}],
    }).encode()  # fmt: skip
    return (
        f"POST {parts.path.rstrip('/')}/v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def load(
    url: str, request: bytes, *, concurrency: int, seconds: float, stream: bool, every: float = 0.0
) -> Tally:
    """`concurrency` connections for `seconds`; with `every`, they begin one after the other."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    tally = Tally()
    until = time.perf_counter() + seconds
    clients = []
    for number in range(concurrency):
        client = Client(request, stream, until, tally, every, every * number / concurrency)
        await loop.create_connection(lambda client=client: client, parts.hostname, parts.port)
        clients.append(client)
    await asyncio.gather(*(c.done for c in clients))
    return tally


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def measure(
    url: str,
    key: str,
    model: str,
    *,
    concurrency: int,
    seconds: float,
    stream: bool,
    pid: int | None = None,
    warm: float = 1.0,
) -> dict[str, Any]:
    """One round: a warm-up, then `seconds` of load with the server's CPU taken around it."""
    request = make_request(url, key, model, stream=stream)
    await load(url, request, concurrency=concurrency, seconds=warm, stream=stream)
    before = cpu_seconds(pid) if pid else 0.0
    tally = await load(url, request, concurrency=concurrency, seconds=seconds, stream=stream)
    spent = cpu_seconds(pid) - before if pid else 0.0
    n = len(tally.seconds)
    return {
        "mode": "stream" if stream else "json",
        "c": concurrency,
        "n": n,
        "failures": tally.failures,
        "p50_ms": round(percentile(tally.seconds, 0.5) * 1000, 3),
        "p99_ms": round(percentile(tally.seconds, 0.99) * 1000, 3),
        "rps": round(n / seconds, 1),
        **(
            {"cpu_ms": round(spent * 1000 / max(n, 1), 4), "rss_mb": round(rss_mb(pid), 1)}
            if pid
            else {}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("url")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("-c", "--concurrency", type=int, default=16)
    parser.add_argument("-s", "--seconds", type=float, default=4.0)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--pid", type=int)
    a = parser.parse_args()
    found = asyncio.run(
        measure(
            a.url, a.key, a.model, concurrency=min(a.concurrency, 256), seconds=a.seconds,
            stream=a.stream, pid=a.pid,
        )
    )  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
