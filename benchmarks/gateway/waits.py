"""How long everybody else waits while one client's request is answered, and what that request costs.

    python benchmarks/gateway/waits.py
    python benchmarks/gateway/waits.py --sizes 25 100 --only prose --only emoji

A gateway with a private and a plain point, on all cores, before a mock upstream. While one request of
each kind and size runs, other clients ask again and again for /healthz, for a plain answer and for a
short private one, and each wait is timed. CPU is that of the process that looks for private values.
The exit code is 1 when in a row the 99th percentile of the waits for /healthz and the plain point is
above 50 ms, or one of them above 250 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadgen import cpu_seconds
from side_by_side import Server, servers
from starts import PRIVATE

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kept import Kept

DRAW = random.Random(5)
WARD = (
    "the", "report", "of", "the", "ward", "was", "late", "again", "because", "nobody", "had", "signed",
    "the", "form", "and", "the", "nurse", "asked", "for", "another", "copy", "before", "noon",
)  # fmt: skip
FIRST = (
    "Anna",
    "Berta",
    "Carl",
    "Dora",
    "Emil",
    "Frieda",
    "Georg",
    "Hanna",
    "Ida",
    "Jonas",
    "Karla",
)
LAST = ("Schmidt", "Gruber", "Hofer", "Lang", "Moser", "Winkler", "Berger", "Fuchs", "Eder")

Make = Callable[[int], list[dict[str, Any]]]  # bytes → messages


def one(text: Callable[[int], str]) -> Make:
    """One turn of about so many bytes."""
    return lambda size: [{"role": "user", "content": text(size)}]


def repeated(unit: str) -> Make:
    width = len(unit.encode())
    return one(lambda size: unit * (size // width))


def prose(size: int) -> str:
    lines, length = [], 0
    while length < size:
        words = " ".join(DRAW.choice(WARD) for _ in range(60))
        lines.append(f"{words}, said Maria Gonzalez of Vienna on Friday.")
        length += len(lines[-1]) + 1
    return "\n".join(lines)[:size]


def turns(size: int) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": prose(1_900)} for i in range(max(1, size // 1_900))]


def guests(size: int) -> str:
    names = (f"{DRAW.choice(FIRST)} {DRAW.choice(LAST)}" for _ in range(size // 14))
    return "The guests were " + ", ".join(names) + " and Zoe Lang."


def strangers(size: int) -> str:
    return " ".join(f"a{DRAW.randrange(10**7):07}@x.org" for _ in range(size // 15))


def codes(size: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return " ".join(f"PERSON_{''.join(DRAW.choices(letters, k=6))}" for _ in range(size // 14))


def calls(size: int) -> list[dict[str, Any]]:
    """A tool call with many arguments."""
    given = json.dumps({f"key{i}": f"Anna Moser {i}" for i in range(size // 34)})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": given}}
    return [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]


KINDS: dict[str, Make] = {
    "prose": one(prose),
    "turns of prose": turns,
    "a guest list": one(guests),
    "different addresses": one(strangers),
    "what looks like placeholders": one(codes),
    "arguments of a tool": calls,
    "emoji": repeated("😀"),
    "signs": repeated("[{("),
    "single letters": repeated("a,"),
    "single letters, escaped": repeated("a," * 4_500 + "%41 "),
    "digits": repeated("1 "),
    "no spaces": repeated("x"),
    "brackets in JSON": one(lambda size: "[" * (size // 2) + "]" * (size // 2)),
}


def post(server: Server, model: str, messages: list[dict[str, Any]]) -> int:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=300)
    body = json.dumps({"model": model, "messages": messages}, ensure_ascii=False).encode()
    head = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", body, head)
        response = connection.getresponse()
        response.read()
        return response.status


class Other(threading.Thread):
    """Another client: asks for one thing again and again, and keeps how long each answer took."""

    def __init__(self, server: Server, what: str) -> None:
        super().__init__()
        self._server = server
        self._what = what
        self.waits: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        hello = [{"role": "user", "content": "I am Maria Gonzalez."}]
        while not self.over.is_set():
            began = time.perf_counter()
            if self._what == "healthz":
                place = self._server.url.removeprefix("http://")
                connection = http.client.HTTPConnection(place, timeout=300)
                with contextlib.closing(connection):
                    connection.request("GET", "/healthz")
                    connection.getresponse().read()
            else:
                assert post(self._server, self._what, hello) == 200
            self.waits.append(time.perf_counter() - began)
            time.sleep(0.005)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description="How long others wait for one request.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 235], help="kB")
    parser.add_argument("--plain", type=int, nargs="+", default=[1_000, 8_000], help="kB")
    parser.add_argument("--only", action="append", default=[], choices=sorted(KINDS))
    a = parser.parse_args()
    kept = Kept("gateway_waits", seed=5, settings={"sizes_kb": a.sizes, "plain_kb": a.plain})
    cells = [(kind, "cosilo/private", kb) for kind in a.only or KINDS for kb in a.sizes]
    cells += [("prose", "cosilo/ok", kb) for kb in a.plain]
    failed = False
    print(f"{'one request':38} {'kB':>5} {'s':>6} {'CPU ms/kB':>9}  others: p99, most (ms)")
    with servers(["cosilo"], "", 1, also=PRIVATE) as found:
        server = found["cosilo"]
        looking = children(server.pid)
        for pid in (server.pid, *looking):
            os.sched_setaffinity(pid, range(os.cpu_count() or 1))
        for _ in range(20):
            post(server, "cosilo/private", [{"role": "user", "content": "I am Maria Gonzalez."}])
        for kind, model, kb in cells:
            messages = KINDS[kind](kb * 1000)
            others = [Other(server, w) for w in ("healthz", "cosilo/ok", "cosilo/private")]
            for other in others:
                other.start()
            time.sleep(0.1)
            cpu, began = sum(map(cpu_seconds, looking)), time.perf_counter()
            status = post(server, model, messages)
            seconds = time.perf_counter() - began
            cpu = sum(map(cpu_seconds, looking)) - cpu
            for other in others:
                other.over.set()
                other.join()
            free = others[0].waits + others[1].waits
            p99, most = percentile(free, 0.99), max(free)
            private = others[2].waits
            row = f"{kind}, {'plain' if model == 'cosilo/ok' else 'private'}, {kb} kB"
            kept.put(row, "s", seconds)
            kept.put(row, "CPU ms per kB", 1000 * cpu / kb)
            kept.put(row, "others' p99 ms", 1000 * p99, n=len(free))
            kept.put(row, "others' most ms", 1000 * most, n=len(free))
            kept.put(row, "a short private one, median ms", 1000 * statistics.median(private))
            kept.put(row, "a short private one, most ms", 1000 * max(private), n=len(private))
            print(
                f"{row:38.38} {kb:5} {seconds:6.2f} {1000 * cpu / kb:9.1f}  {1000 * p99:6.1f} "
                f"{1000 * most:6.1f} (n={len(free)}); short private {1000 * max(private):6.1f}"
                f"{'' if status == 200 else f'  STATUS {status}'}",
                flush=True,
            )
            failed |= p99 > 0.05 or most > 0.25 or status != 200
    kept.write()
    raise SystemExit(failed)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


if __name__ == "__main__":
    main()
