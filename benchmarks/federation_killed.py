"""Owners and coordinator of a federation killed at random moments: the same weights, counted once?

    python benchmarks/federation_killed.py [--kills 20] [--seed 0] [--folder /tmp/federation_killed]
                                           [--flower .flower/bin/python]

Three owners (`cosilo bench`) and a coordinator (`cosilo host`), each a process, of a made-up model
with two layers. First nobody is killed. Then, in federations of the same owners, data and seeds, one
of the four is killed (SIGKILL) at a moment drawn evenly from the time that the undisturbed one took,
or as soon after it as it runs, and started again with the same command, until all kills are spent;
each party is killed as often as another. Compared are the bytes of each round's adapter, and how many
updates each round counted. It resumes: what a federation gave is kept in the folder. With --flower,
the Python that has Flower (`make flower`), messages go over it: the coordinator's SuperLink and the
owners' SuperNodes are killed as often as the parties, and whoever runs one starts it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kept import ROOT, Kept

sys.path.insert(0, str(ROOT / "tests"))
import tiny_lm

OWNERS = ("bank", "clinic", "town")
PARTIES = ("coordinator", *OWNERS)
LABELS = ("refund", "billing", "delivery")
CARRIERS = ("superlink", *(f"supernode of {owner}" for owner in OWNERS))
ROUNDS = 3
KILLS_EACH = 2  # in one federation, at most
MAIN = "import sys; from cosilo.cli import main; sys.exit(main())"

HOST = """
name = "coordinator"
[listen]
port = {port}
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
{flower}
[federation]
rounds = {rounds}
rank = 4
quorum = 3
[clients.bank]
[clients.clinic]
[clients.town]
"""
PLAN = """
name = "tickets"
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[attacks]
names = ["verbatim"]
tamper_share = 0
[models.small]
kind = "torch"
path = "../model"
[models.large]
ca = "../certs/ca.pem"
key = "../certs/client-{owner}.key"
{way}
[[points]]
strategy = "federated"
rank = 4
steps = 12
batch = 4
learning_rate = 5e-3
"""


class Federation:
    """One federation of four processes in `folder`."""

    def __init__(self, folder: Path, flower: str) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tiny_lm.folder(folder / "model", seed=1)
        self._cosilo("host", "certs", "certs", "--host", "localhost", *_clients()).wait()
        table = f'[flower]\ncertificates = "certs"\npython = "{flower}"' if flower else ""
        text = HOST.format(port=port, rounds=ROUNDS, flower=table)
        (folder / "federation.toml").write_text(text)
        for of, owner in enumerate(OWNERS):
            own = folder / owner
            own.mkdir()
            way = f'kind = "party"\nurl = "https://localhost:{port}"\n'
            way += f'cert = "../certs/client-{owner}.pem"'
            if flower:
                way = f'kind = "flower"\nsuperlink = "localhost:{port}"\npython = "{flower}"'
            (own / "plan.toml").write_text(PLAN.format(owner=owner, way=way))
            for split, count in {"train": 24, "validation": 3, "test": 3}.items():
                rows = [
                    {"text": f"{owner} {split} {i}", "label": LABELS[(of + (i % 3 == 0)) % 3]}
                    for i in range(count)
                ]
                (own / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def begin(self, party: str) -> None:
        if party == "coordinator":
            self.running[party] = self._cosilo("host", "federation.toml")
        else:
            self.running[party] = self._cosilo("bench", "plan.toml", "--yes", at=party)

    def kill(self, party: str) -> bool:
        """Whether it was running until now."""
        if party in CARRIERS:
            return self._kill_carrier(party)
        process = self.running[party]
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL) if alive else None
        process.wait()
        return alive

    def _kill_carrier(self, party: str) -> bool:
        """Kill the process of Flower's; whoever runs it starts another."""
        what, _, owner = party.partition(" of ")
        parent = self.running[owner or "coordinator"].pid
        named = f"{what}.main".encode()
        ours = [pid for pid in _children(parent) if named in _file(pid, "cmdline")]
        for pid in ours:
            os.kill(pid, signal.SIGKILL)
        return bool(ours)

    def over(self) -> bool:
        """Whether all owners have done; a failure is theirs."""
        codes = [self.running[owner].poll() for owner in OWNERS]
        if any(codes):
            raise SystemExit(f"an owner failed, {codes}: see {self.folder}/*/out.log")
        return codes == [0, 0, 0]

    def found(self) -> dict[str, Any]:
        with sqlite3.connect(self.folder / "host" / "federation.sqlite") as db:
            adapters = [p.hex() for (p,) in db.execute("SELECT packed FROM rounds ORDER BY number")]
            updates = db.execute(
                "SELECT round, count(*), sum(fate = 'taken') FROM updates GROUP BY round"
            ).fetchall()
        return {"adapters": adapters, "updates": [list(row) for row in updates]}

    def _cosilo(self, *words: str, at: str = "") -> subprocess.Popen[bytes]:
        folder = self.folder / at
        with (folder / "out.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", MAIN, *words], cwd=folder, stdout=log, stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(self.folder)},
            )  # fmt: skip


def _children(parent: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    stats = {pid: _file(pid, "stat").rpartition(b")")[2].split() for pid in pids}
    return [pid for pid, stat in stats.items() if stat[1:2] == [str(parent).encode()]]


def _file(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""  # it has ended


def _clients() -> list[str]:
    return [word for owner in OWNERS for word in ("--client", owner)]


def went(folder: Path, kills: list[tuple[float, str]], flower: str) -> dict[str, Any]:
    """A federation in which parties are killed, each at its moment (seconds from the beginning)."""
    federation = Federation(folder, flower)
    done: list[str] = []
    try:
        started = time.monotonic()
        for party in PARTIES:
            federation.begin(party)
        left = sorted(kills)
        while not federation.over():
            now = time.monotonic() - started
            for kill in [kill for kill in left if kill[0] <= now]:
                party = kill[1]
                if federation.kill(party):
                    left.remove(kill)
                    done.append(party)
                    if party in PARTIES:
                        federation.begin(party)
            time.sleep(0.05)
        seconds = time.monotonic() - started
        return {**federation.found(), "seconds": seconds, "killed": done}
    finally:
        for party in federation.running:
            federation.kill(party)


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/federation_killed"))
    parser.add_argument("--flower", default="", metavar="PYTHON")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    flower = str(Path(given.flower).absolute()) if given.flower else ""
    victims = PARTIES + CARRIERS if flower else PARTIES
    name = "federation_killed_flower" if flower else "federation_killed"
    cells = given.folder / f"seed-{given.seed}{'-flower' if flower else ''}.json"
    known: list[dict[str, Any]] = json.loads(cells.read_text()) if cells.exists() else []

    def keep(found: dict[str, Any]) -> None:
        known.append(found)
        cells.write_text(json.dumps(known))
        print(f"{len(known) - 1} federations, {len(killed())} kills", flush=True)

    def killed() -> list[str]:
        return [party for each in known for party in each["killed"]]

    if not known:
        keep(went(given.folder / "undisturbed", [], flower))
    while len(killed()) < given.kills:
        number = len(known)
        rng = random.Random(f"{given.seed} {number}")
        rarest = sorted(victims, key=killed().count)
        left = min(KILLS_EACH, given.kills - len(killed()))
        moments = [rng.uniform(0, known[0]["seconds"]) for _ in range(left)]
        kills = list(zip(moments, rarest, strict=False))
        keep(went(given.folder / "killed", kills, flower))
    whole = known[0]
    same = sum(each["adapters"] == whole["adapters"] for each in known[1:])
    once = sum(each["updates"] == whole["updates"] for each in known[1:])
    kept = Kept(name, seed=given.seed)
    kept.put("all", "federations", len(known) - 1)
    kept.put("all", "kills", len(killed()))
    kept.put("all", "same weights", same, n=len(known) - 1)
    kept.put("all", "nothing counted twice", once, n=len(known) - 1)
    for party in victims:
        kept.put(party, "kills", killed().count(party))
    kept.write()
    print(f"{same} and {once} of {len(known) - 1} as undisturbed, {len(killed())} kills")


if __name__ == "__main__":
    main()
