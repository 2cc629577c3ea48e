"""Seconds a round over slow links: what the record of a run here predicts, and what it takes there.

    python benchmarks/links.py measure [--repeats 5] [--folder /tmp/links]
    python benchmarks/links.py proxy 9443 localhost:8443 --rtt-ms 100 --mbit-per-s 20

`proxy` is a slow link in front of a port, in this process: bytes go through as they are (TLS, too),
each direction at the link's rate, half a round trip late, with a TCP of its own in between, as Linux's
is by default: a round trip before a new connection carries anything, ten segments of 1448 bytes under
way at first, one more for each that was acknowledged while the window was what held bytes back, half as
many for each time-out of rest. It goes by the bytes that cross, piece by piece; it shares nothing with
the prediction (`cosilo.objectives.links`), which is a sum over messages.

`measure` trains small made-up models between processes over TLS, with messages as large as those of
real ones: `federated` (two owners, 4 MB an update), `split_learning` (width 576 in int8), `offsite`
(an emulator of 12 MB). Each repeat runs once without the proxy, whose record predicts the others, and
once over each slow link. Runs are kept in the folder, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import shutil
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from kept import ROOT, Cells, Kept

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SEGMENT = 1448
PACKET = 1500
BURST = 4 * SEGMENT  # bytes that are handled at once
HELD = (
    4 << 20
)  # bytes of a connection that the proxy takes before they may leave: a socket's buffer


# ── the link ─────────────────────────────────────────────────────────────────


@dataclass
class Direction:
    """One direction of the link, which all connections share."""

    rtt_s: float
    rate: float
    free: float = 0.0

    def leaves(self, size: int, at: float) -> float:
        self.free = max(at, self.free) + size * PACKET / SEGMENT / self.rate
        return self.free


@dataclass
class Window:
    """What TCP dares to have under way on one connection, in one direction."""

    rtt_s: float
    size: float = 10 * SEGMENT
    under_way: deque[tuple[float, int]] = field(default_factory=deque)  # acknowledged when, bytes
    total: int = 0
    last: float = -math.inf

    def admits(self, size: int, at: float) -> float:
        """When so many bytes may leave that are there at `at`."""
        self._acknowledged(at)
        if not self.under_way:
            rests = int(min(60.0, max(0.0, at - self.last) / (self.rtt_s + 0.2)))
            self.size = max(10 * SEGMENT, self.size / 2**rests)
        while self.total and self.total + size > self.size:
            at = max(at, self.under_way[0][0])
            self._acknowledged(at)
        return at

    def left(self, size: int, at: float) -> None:
        self.under_way.append((at + self.rtt_s, size))
        self.total += size
        self.last = at

    def _acknowledged(self, at: float) -> None:
        while self.under_way and self.under_way[0][0] <= at:
            held_back = self.size < 2 * self.total
            _, size = self.under_way.popleft()
            self.total -= size
            if held_back:
                self.size = min(self.size + size, HELD)


class SlowLink:
    """A port that is a slow link to another one."""

    def __init__(self, host: str, port: int, *, rtt_ms: float, mbit_per_s: float) -> None:
        self._there = (host, port)
        self._rtt_s, rate = rtt_ms / 1000, mbit_per_s * 1e6 / 8
        self._ways = Direction(self._rtt_s, rate), Direction(self._rtt_s, rate)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int = 0) -> int:
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=1 << 18)
        self._server = server
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = time.monotonic() + self._rtt_s  # SYN, SYN-ACK
        there = await asyncio.open_connection(*self._there, limit=1 << 18)
        up, down = self._ways
        for way, source, target in ((up, reader, there[1]), (down, there[0], writer)):
            task = asyncio.create_task(self._carry(way, source, target, opened))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, way: Direction, source: Any, target: asyncio.StreamWriter, opened: float
    ) -> None:
        window, late = Window(self._rtt_s), asyncio.Queue[tuple[float, bytes]]()
        arriving = asyncio.create_task(self._arrive(late, target))
        try:
            while data := await source.read(1 << 18):
                now = max(time.monotonic(), opened)
                for i in range(0, len(data), BURST):
                    piece = data[i : i + BURST]
                    now = way.leaves(len(piece), window.admits(len(piece), now))
                    window.left(len(piece), now)
                    late.put_nowait((now + self._rtt_s / 2, piece))
                ahead = window.last - time.monotonic() - HELD / way.rate
                if ahead > 0:  # the sender's buffer is full
                    await asyncio.sleep(ahead)
        except ConnectionError:
            pass
        finally:
            late.put_nowait((time.monotonic() + self._rtt_s / 2, b""))
            await arriving

    async def _arrive(
        self, late: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                at, piece = await late.get()
                if (wait := at - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if not piece:
                    break
                target.write(piece)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


@contextmanager
def slow(port: int, link: Any) -> Iterator[int]:
    """A port from which `port` is as far away as `link` says; `port` itself for None."""
    if link is None:
        yield port
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    way = SlowLink("127.0.0.1", port, rtt_ms=link.rtt_ms, mbit_per_s=link.mbit_per_s)
    try:
        yield asyncio.run_coroutine_threadsafe(way.open(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(way.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# ── what is trained over it ──────────────────────────────────────────────────

TORCH = 'kind = "torch"\npath = "model"\nprecision = "float32"\nexposes = "weights"\n'
SPLIT = TORCH + 'body = { rank = 4, learning_rate = 1e-3, most = 99, folder = "adapters" }'
LENDING = """\
kind = "lending"
path = "model"
precision = "float32"
exposes = ["text", "emulator"]
ends = 1
depth = 1
steps = 1
length = 16
least_gap = -100
text = "public.txt" """
FEDERATION = """\
name = "coordinator"
[listen]
port = 0
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[federation]
rounds = 3
rank = 128
codec = "fp16"
[clients.clinic]
[clients.other]
"""


async def prepared(folder: Path, ports: Mapping[str, int], strategy: Any) -> list[list[Any]]:
    """The records of `strategy` prepared by each client at once, each over the port named for it."""
    from tests.integration.hosts import the_way

    import lent
    from cosilo.boundary.record.ledger import MemoryLedger
    from cosilo.models.base import Shows
    from cosilo.models.white_box.lm import torch_lm
    from cosilo.parties.data_owner import DataOwner
    from cosilo.parties.remote import RemoteOwner
    from cosilo.session import open_session
    from cosilo.types import Demonstration, user

    model = torch_lm(path=folder / "model", precision="float32")
    words = 25 if type(strategy).__name__ == "SplitLearning" else 2  # states are of tokens

    async def one(client: str, port: int) -> Any:
        def example(i: int) -> Demonstration:
            return Demonstration(
                f"{client}{i}", user(f"about {i} {'hello world ' * words}"), "billing"
            )

        way = the_way(folder, port, client=client, patience_s=60.0)
        party = RemoteOwner(way, "lm-owner", f"party/{client}", exposes=~Shows.NOTHING)
        owner = DataOwner(
            model,
            private=tuple(example(i) for i in range(24)),
            calibration=tuple(example(i) for i in range(100, 104)),
        )
        ledger = MemoryLedger()
        session = open_session(owner, party, strategy, sampling=lent.SAMPLING, ledger=ledger)
        await strategy.prepare(session)
        await party.close()
        return list(ledger.entries())

    try:
        return await asyncio.gather(*(one(c, p) for c, p in ports.items()))
    finally:
        await model.close()


def strategy_of(name: str, folder: Path, number: int) -> Any:
    from cosilo.strategies.base import strategies

    if name == "federated":
        return strategies.create(name, rank=128, steps=1, batch=1, seed=number % 1000)
    if name == "offsite":
        return strategies.create(name, rank=8, steps=1, batch=1, most_mb=64, items=2)
    codecs = dict.fromkeys(("states_up", "states_down", "gradients_up", "gradients_down"), "int8")
    return strategies.create(
        name, layers=1, tail=1, batch=4, epochs=1, seed=number,
        key_file=folder / f"key{number}" / "key", **codecs,
    )  # fmt: skip


SIZES = {
    "federated": {"hidden": 128, "layers": 8},
    "split_learning": {"hidden": 576, "layers": 3},
    "offsite": {"hidden": 512, "layers": 4},
}


def laid_out(name: str, folder: Path) -> Path:
    """The host's file of a strategy, its model and certificates beside it."""
    from tests.integration.hosts import write_host

    import tiny_lm

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        tiny_lm.folder(folder / "model", context=1024, **SIZES[name])
        (folder / "public.txt").write_text("\n".join(f"the hello world {i}" for i in range(60)))
    file = write_host(folder, model=LENDING if name == "offsite" else SPLIT)
    if name == "federated":
        file = folder / "federation.toml"
        file.write_text(FEDERATION)
    return file


def measured(name: str, place: Path, cells: Cells, repeats: int) -> None:
    """Runs of one strategy that are still to be made, without the proxy and over each slow link."""
    from tests.integration.hosts import host_process

    from cosilo.objectives.links import LINKS, over_links

    folder = place / name
    file = laid_out(name, folder)
    links = {"": None} | {n: link for n, link in LINKS.items() if n != "LAN"}
    number = time.time_ns() % (1 << 30)  # of a training that nobody has made before
    clients = ("clinic", "other") if name == "federated" else ("clinic",)

    def run(port: int, link: Any) -> list[list[Any]]:
        nonlocal number
        number += 1
        with ExitStack() as stack:  # each has a link of its own
            near = {client: stack.enter_context(slow(port, link)) for client in clients}
            return asyncio.run(prepared(folder, near, strategy_of(name, folder, number)))

    def all_of(port: int, once: bool) -> Iterator[tuple[str, list[list[Any]]]]:
        for repeat in range(repeats):
            for link_name, link in links.items():
                key = f"{name} {link_name} {repeat}"
                if key not in cells.done:
                    yield key, run(port, link)
                    if once:
                        return

    def put(key: str, records: list[list[Any]]) -> None:
        found = [over_links(record, LINKS) for record in records]
        slowest = max((f for f in found if f is not None), key=lambda f: f.ran)
        sizes = [
            sum(e.size for e in r if e.direction == d) for r in records[:1] for d in ("up", "down")
        ]
        cells.put(
            key,
            {
                "ran": slowest.ran / slowest.turns,
                "predicted": {n: slowest.each(n) for n in slowest.seconds},
                "bytes": [size / slowest.turns for size in sizes],
                "turns": slowest.turns,
            },
        )
        print(f"{key}: {slowest.ran / slowest.turns:.2f} s", file=sys.stderr, flush=True)

    if name == "federated":  # each run is a federation of its own
        while any(
            f"{name} {link_name} {repeat}" not in cells.done
            for link_name in links
            for repeat in range(repeats)
        ):
            shutil.rmtree(folder / "host", ignore_errors=True)
            with host_process(file) as host:
                for key, records in all_of(host.port, once=True):
                    put(key, records)
        return
    if any(f"{name} {n} {r}" not in cells.done for n in links for r in range(repeats)):
        with host_process(file) as host:
            run(host.port, None)  # what is made once (an emulator, a warm torch) is not of a round
            for key, records in all_of(host.port, once=False):
                put(key, records)


def median_of(values: list[float], over: list[float] | None = None) -> tuple[float, float, float]:
    """The median, or the ratio of two, and its 95 % interval over resamples of the runs."""
    rng = np.random.default_rng(0)

    def drawn(some: list[float]) -> Any:
        each = np.array(some)
        return np.median(each[rng.integers(0, len(each), (4000, len(each)))], axis=1)

    spread = drawn(values) / (1.0 if over is None else drawn(over))
    middle = statistics.median(values) / (1.0 if over is None else statistics.median(over))
    low, high = np.quantile(spread, [0.025, 0.975])
    return middle, float(low), float(high)


def measure(place: Path, repeats: int) -> None:
    import torch

    from cosilo.objectives.links import LINKS

    torch.set_num_threads(1)
    place.mkdir(parents=True, exist_ok=True)
    cells = Cells(place / "cells.json")
    kept = Kept("links", settings={"repeats": repeats, "threads": 1})
    for name in SIZES:
        measured(name, place, cells, repeats)
        here = [cells.done[f"{name}  {r}"] for r in range(repeats)]
        for link in LINKS:
            row = f"{name}, {link}"
            told = [each["predicted"][link] for each in here]
            columns = {"predicted": median_of(told)}
            if link != "LAN":
                took = [cells.done[f"{name} {link} {r}"]["ran"] for r in range(repeats)]
                columns |= {"measured": median_of(took), "ratio": median_of(told, took)}
            for column, (middle, low, high) in columns.items():
                kept.put(row, column, middle, n=repeats, low=low, high=high)
        row = f"{name}, as it ran here"
        middle, low, high = median_of([each["ran"] for each in here])
        kept.put(row, "measured", middle, n=repeats, low=low, high=high)
        for column, at in (("bytes up", 0), ("bytes down", 1)):
            kept.put(row, column, statistics.fmean(each["bytes"][at] for each in here), n=repeats)
    kept.write()


async def proxy(port: int, there: str, rtt_ms: float, mbit_per_s: float) -> None:
    host, _, to = there.rpartition(":")
    link = SlowLink(host, int(to), rtt_ms=rtt_ms, mbit_per_s=mbit_per_s)
    port = await link.open(port)
    print(f"127.0.0.1:{port} is {there} at {rtt_ms:g} ms, {mbit_per_s:g} Mbit/s", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("measure")
    one.add_argument("--repeats", type=int, default=5)
    one.add_argument("--folder", type=Path, default=Path("/tmp/links"))
    other = verbs.add_parser("proxy")
    other.add_argument("port", type=int)
    other.add_argument("there", metavar="HOST:PORT")
    other.add_argument("--rtt-ms", type=float, required=True)
    other.add_argument("--mbit-per-s", type=float, required=True)
    given = parser.parse_args()
    if given.verb == "measure":
        measure(given.folder, given.repeats)
    else:
        asyncio.run(proxy(given.port, given.there, given.rtt_ms, given.mbit_per_s))


if __name__ == "__main__":
    main()
