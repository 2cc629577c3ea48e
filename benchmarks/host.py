"""What a crossing costs more when the LM's owner is in another process, behind HTTPS.

    python benchmarks/host.py --crossings 2000 --rounds 5

CPU time of both processes together, ledgers on both sides on disk, TLS 1.3 with certificates both ways,
connections kept open. The same scripted model answers in this process and in the host's, in turns, so
that what differs is the way. Two ways: `gateway`, where the boundary's transport is the network, and
`run`, which also keeps `network.sqlite` and so finds what was under way when it was killed. Bar: at
most 1.0 CPU-ms more per crossing, eight at once as in benchmarks/overhead.py and in a plan; one at a
time is measured too, where each waits for commits and wake-ups of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.boundary.transports.base import Transport
from cosilo.boundary.transports.http import Https
from cosilo.boundary.transports.inside import InProcess
from cosilo.host.certificates import make_certificates
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.remote import NETWORK, RemoteOwner, noted
from cosilo.types import user
from kept import Kept

QUESTION = "Please move 250 euros from my savings to the account of my landlord by Friday. " * 3
MAX_MORE_MS = 1.0
BAR = "8 at once"
HOST = """
[model]
kind = "scripted"
replies = {Please = "transfer"}
usd_per_m_in = 1.0
usd_per_m_out = 2.0
[listen]
port = 0
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[clients.clinic]
total = {usd = 1000000.0, logits = 1000000000000}
"""
MAIN = "import sys; from cosilo.cli import main; sys.exit(main())"


class HostProcess:
    """`cosilo host` in a process of its own, with the settings `text`."""

    def __init__(self, folder: Path, text: str = HOST) -> None:
        make_certificates(folder / "certs", hosts=["localhost"], clients=["clinic"])
        (folder / "lm.toml").write_text(text)
        self.certs = folder / "certs"
        self.child = subprocess.Popen(
            [sys.executable, "-c", MAIN, "host", "lm.toml"],
            cwd=folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.child.stderr is not None
        for line in self.child.stderr:
            if found := re.search(r" at https://\S+:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the host did not start")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def way(self) -> Https:
        return Https(
            f"https://localhost:{self.port}",
            ca=self.certs / "ca.pem",
            cert=self.certs / "client-clinic.pem",
            key=self.certs / "client-clinic.key",
        )

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait()


async def cost(
    transport: Transport, ledger: SqliteLedger, host: HostProcess, count: int, at_once: int
) -> float:
    """CPU milliseconds per crossing, of both processes."""
    boundary = Boundary(
        transport,
        declared=frozenset({Ask}),
        meter=Meter(Budget(usd=1e9), price=Price(1.0, 2.0)),
        ledger=ledger,
    )
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await boundary.bind(f"item/{number}").send(Ask(chat=user(f"{number} {QUESTION}")))

    before = process_time() + host.cpu_seconds()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return 1000 * (process_time() + host.cpu_seconds() - before) / count


async def measure(folder: Path, count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU milliseconds per crossing: how many at once → way → one figure a round."""
    host = HostProcess(folder)
    direct, noting = host.way(), host.way()
    owner = noted(RemoteOwner(noting, "lm", "lm"), folder / NETWORK, "large")
    inside = LMOwner(ScriptedModel({"Please": "transfer"}))
    ways: dict[str, Transport] = {
        "in process": InProcess(inside),
        "gateway": direct,
        "run": InProcess(owner),
    }
    ledger = SqliteLedger(folder / "ledger.sqlite", "host")
    found: dict[str, dict[str, list[float]]] = {}
    try:
        for transport in ways.values():  # connections, statements and caches
            await cost(transport, ledger, host, 200, 8)
        for _ in range(rounds):
            for at_once in (1, 8):
                for name, transport in ways.items():
                    figures = found.setdefault(f"{at_once} at once", {}).setdefault(name, [])
                    figures.append(await cost(transport, ledger, host, count, at_once))
                    inside.model.seen.clear()  # type: ignore[attr-defined]
    finally:
        await direct.close()
        await owner.close()
        ledger.close()
        host.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crossings", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), arguments.crossings, arguments.rounds))
    kept = Kept("host", settings={"crossings": arguments.crossings, "rounds": arguments.rounds})
    worst = 0.0
    for at_once, ways in found.items():
        inside = ways["in process"]
        kept.put(at_once, "in process", median(inside), n=arguments.crossings * len(inside))
        for name in ("gateway", "run"):
            more = [b - a for a, b in zip(inside, ways[name], strict=True)]
            kept.put(at_once, f"{name} more", median(more), n=arguments.crossings * len(more),
                     low=min(more), high=max(more))  # fmt: skip
            worst = max(worst, median(more)) if at_once == BAR else worst
    print(json.dumps(found, indent=1))
    kept.write()
    if worst > MAX_MORE_MS:
        raise SystemExit(f"over the bar: {worst:.3f} CPU-ms more, {MAX_MORE_MS} allowed")


if __name__ == "__main__":
    main()
