"""Federations over Flower: 200 owners in its simulation, and what it adds to what crosses.

    python benchmarks/flower.py simulation [--owners 200] [--sample 10] [--rounds 5]
    python benchmarks/flower.py bytes [--rounds 3]

Both need Flower (`make flower` makes .flower, whose Python runs this). `simulation`: SmolLM2-135M with
LoRA of rank 4 on all linear layers, banking77's training items dealt to 200 owners, 20 at most to each;
ten are drawn for a round, and train two steps of four items each; two work at the same time. What the
engine adds to a round is its time less half the time that owners' own code takes (which opens the
session, hashes the model, trains); memory is that of all processes of the simulation (PSS: what
several share counts once), looked at every second. A run that was stopped goes on in --folder, without
the memory of what was before.

`bytes`: three owners that send adapters of SmolLM2's shapes and rank 8, of random numbers, over real
SuperNodes and a real SuperLink, and over our own transport; a proxy between counts what goes over TCP
in both directions, from the first connection to the last, TLS and looking for messages included. Net
are the adapters' bytes, packed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from kept import ROOT, Kept

sys.path.insert(0, str(ROOT / "benchmarks"))

DATA = ROOT.parent / "shared" / "data" / "banking77" / "train.jsonl"


# ── simulation ───────────────────────────────────────────────────────────────


def tree(root: int) -> list[int]:
    """`root` and all processes that it began."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found, new = [root], [root]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found


def memory(root: int) -> int:
    """Bytes of all processes of the tree."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total << 10


def simulation(how: argparse.Namespace) -> None:
    import flower_owner
    from cosilo.host.simulated import Simulated, simulate
    from cosilo.parties.coordinating.settings import FederationSettings

    folder: Path = how.folder / f"{how.owners}-{how.sample}-{how.rounds}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "rounds.json"
    before: list[dict[str, float]] = json.loads(done.read_text()) if done.exists() else []
    peak, over = [0], Event()

    def look() -> None:
        while not over.wait(1.0):
            peak[0] = max(peak[0], memory(os.getpid()))

    def told(took: Simulated) -> None:
        rows = zip(took.seconds, took.in_owners, took.calls, strict=True)
        now = [{"seconds": s, "owners": o, "calls": c, "peak": peak[0]} for s, o, c in rows]
        now[:-1] = told.rows  # type: ignore[attr-defined]
        told.rows = now  # type: ignore[attr-defined]
        done.write_text(json.dumps(before + now))
        print(f"round {len(before + now)}: {now[-1]}", flush=True)

    told.rows = []  # type: ignore[attr-defined]
    Thread(target=look, daemon=True).start()
    names = tuple(f"owner-{i:03}" for i in range(how.owners))
    settings = FederationSettings(
        owners=names, rounds=how.rounds, rank=flower_owner.RANK, sample=how.sample, deadline_s=1e5
    )
    owner = partial(flower_owner.takes_part, folder, DATA, how.owners)
    began = time.monotonic()
    simulate(owner, settings, path=folder / "federation.sqlite", at_once=2, told=told)
    over.set()
    rounds = json.loads(done.read_text())
    engine = np.array([r["seconds"] - r["owners"] / 2 for r in rounds])
    print(f"{time.monotonic() - began:.0f} s, peak {peak[0] / 1e9:.2f} GB, {engine}")
    kept = Kept("flower", seed=0, fresh=False)
    where = "simulation"
    n = len(rounds)
    kept.put(where, "owners", how.owners)
    kept.put(where, "owners a round", how.sample)
    kept.put(where, "rounds", n)
    kept.put(where, "peak memory (GB)", max(r["peak"] for r in rounds) / 1e9, n=n)
    kept.put(where, "seconds a round", float(np.mean([r["seconds"] for r in rounds[1:]])), n=n - 1)
    kept.put(where, "of it in the engine", float(engine[1:].mean()), n=n - 1)
    kept.put(where, "of it in the engine, least", float(engine[1:].min()), n=n - 1)
    kept.put(where, "of it in the engine, most", float(engine[1:].max()), n=n - 1)
    kept.put(where, "seconds of the first round", rounds[0]["seconds"])
    kept.put(where, "messages a round", float(np.mean([r["calls"] for r in rounds[1:]])), n=n - 1)
    kept.write()


# ── bytes ────────────────────────────────────────────────────────────────────

OWNERS = ("bank", "clinic", "town")
HIDDEN, KEYS, INNER, DEPTH, RANK = 576, 192, 1536, 30, 8
FILE = """
[listen]
port = 0
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
{flower}
[federation]
rounds = {rounds}
rank = {rank}
largest_norm = 1e9
[clients.bank]
[clients.clinic]
[clients.town]
"""


def layers() -> tuple[tuple[str, int, int], ...]:
    """(name, outputs, inputs) of SmolLM2-135M's linear layers, by name."""
    sizes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KEYS, HIDDEN),
        "self_attn.v_proj": (KEYS, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }  # fmt: skip
    names = [(f"model.layers.{i}.{n}", *size) for i in range(DEPTH) for n, size in sizes.items()]
    return tuple(sorted(names))


async def pumped(reader: Any, writer: Any, counted: dict[str, int], way: str) -> None:
    try:
        while data := await reader.read(1 << 16):
            counted[way] += len(data)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def proxy(port: int, counted: dict[str, int]) -> asyncio.Server:
    """Passes on to `port` what it counts."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        up, down = pumped(reader, back, counted, "up"), pumped(there, writer, counted, "down")
        await asyncio.gather(up, down)

    return await asyncio.start_server(one, "127.0.0.1", 0)


async def took_part(way: Any, of: int, rounds: int) -> int:
    """The adapters' bytes that crossed for one owner, both ways."""
    from cosilo.boundary.messages import Contribute, Enrol, NextRound
    from cosilo.boundary.wire import tensors
    from cosilo.models.low_rank import matrix_shapes
    from cosilo.parties.remote import RemoteOwner

    party: Any = RemoteOwner(way, "coordinator", "")
    rng = np.random.default_rng(of)
    shapes = matrix_shapes({n: (o, i) for n, o, i in layers()}, RANK)
    enrolled = await party.handle(Enrol(base="ab" * 16, layers=layers(), rank=RANK))
    have = net = 0
    while have < rounds:
        at = await party.handle(
            NextRound(
                federation=enrolled.federation, have=have, most=enrolled.most,
                patience=enrolled.held,
            )
        )  # fmt: skip
        if at.packed:
            have, net = at.of, net + len(at.packed)
        if at.state == "open":
            arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
            packed = tensors.pack(arrays)
            net += len(packed)
            await party.handle(
                Contribute(
                    federation=enrolled.federation, number=at.number, rank=RANK, packed=packed
                )
            )
    await way.close()
    return net


async def crossed(folder: Path, how: argparse.Namespace, *, flower: bool) -> tuple[int, int, float]:
    """Net bytes, bytes over TCP and seconds of a federation."""
    from cosilo.boundary.transports.flower.owner import OverFlower
    from cosilo.boundary.transports.http import Https
    from cosilo.host.certificates import make_certificates
    from cosilo.host.config import load_host
    from cosilo.host.process import listening
    from cosilo.parties.coordinating.kind import NoModel

    certs = folder / "certs"
    make_certificates(certs, hosts=["localhost"], clients=OWNERS)
    table = f'[flower]\ncertificates = "certs"\npython = "{sys.executable}"' if flower else ""
    file = folder / "federation.toml"
    file.write_text(FILE.format(flower=table, rounds=how.rounds, rank=RANK))
    counted = {"up": 0, "down": 0}
    async with listening(load_host(file), NoModel()) as host:
        between = await proxy(host.port, counted)
        port = between.sockets[0].getsockname()[1]
        ways: list[Any] = []
        for name in OWNERS:
            ca, key = certs / "ca.pem", certs / f"client-{name}.key"
            if flower:
                ways.append(OverFlower(f"localhost:{port}", ca=ca, key=key))
            else:
                cert = certs / f"client-{name}.pem"
                ways.append(Https(f"https://localhost:{port}", ca=ca, cert=cert, key=key))
        began = time.monotonic()
        nets = await asyncio.gather(
            *(took_part(way, of, how.rounds) for of, way in enumerate(ways))
        )
        seconds = time.monotonic() - began
        between.close()
    return sum(nets), counted["up"] + counted["down"], seconds


def count_bytes(how: argparse.Namespace) -> None:
    kept = Kept("flower", seed=0, fresh=False)
    for name, flower in (("HTTPS", False), ("Flower", True)):
        with tempfile.TemporaryDirectory() as folder:
            net, tcp, seconds = asyncio.run(crossed(Path(folder), how, flower=flower))
        print(f"{name}: {net} net, {tcp} over TCP, {tcp / net:.4f}; {seconds:.0f} s", flush=True)
        kept.put(name, "MB net", net / 1e6, n=how.rounds)
        kept.put(name, "of that over TCP", tcp / net, n=how.rounds)
        kept.put(name, "seconds a round", seconds / how.rounds, n=how.rounds)
    kept.write()


# ── main ─────────────────────────────────────────────────────────────────────


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", choices=("simulation", "bytes"))
    parser.add_argument("--owners", type=int, default=200)
    parser.add_argument("--sample", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/flower"))
    how = parser.parse_args()
    {"simulation": simulation, "bytes": count_bytes}[how.what](how)


if __name__ == "__main__":
    main()
