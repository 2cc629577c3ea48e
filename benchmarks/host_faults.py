"""A run whose large model's host is killed again and again: is the result the same, who booked what?

    python benchmarks/host_faults.py --kills 20

The same plan runs once in one process, and once with the large model in a `cosilo host` that is killed
(SIGKILL) and started again while the run goes on, each time after a few more requests, drawn from
--seed. Bars: the same answers, numbers and bytes; both ledgers agree entry by entry; every request is
on the host's record once and billed once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.progress import Silent
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.boundary.record.agreement import compare
from cosilo.gateway.record.audit import open_record
from cosilo.host.certificates import make_certificates
from cosilo.parties.remote import NETWORK
from kept import Kept
from same import Run, compared

LABELS = ("cat", "dog", "cow")
ANSWERS = (
    'kind = "scripted"\nreplies = {cat = "cat", dog = "dog", cow = "cow"}\nusd_per_m_in = 1.0\n'
)
PLAN = """
name = "kills"
[task]
kind = "classification"
file = "data.jsonl"
columns = {text = "text", target = "label", secrets = "secrets"}
[models.small]
kind = "scripted"
replies = {cat = "cat", dog = "cow", cow = "cow"}
confidence = 0.6
[models.large]
LARGE
[[points]]
strategy = "large"
[[points]]
strategy = "cascade"
threshold = 0.9
"""
HOST = """
[model]
ANSWERS
[listen]
port = PORT
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[clients.clinic]
"""
MAIN = "import sys; from cosilo.cli import main; sys.exit(main())"


class KilledHost:
    """A host that is killed `times` times, each time after 1 to 12 more requests came to it."""

    def __init__(self, folder: Path, times: int, seed: int) -> None:
        self.kills = self.under_way = 0
        self._folder, self._times, self._drawn = folder, times, random.Random(seed)
        self._port = 0
        self._stopped = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._kill)

    @property
    def table(self) -> str:
        """The host, as a plan describes it."""
        certs = self._folder / "certs"
        return (
            f'kind = "party"\nurl = "https://localhost:{self._port}"\nca = "{certs}/ca.pem"\n'
            f'cert = "{certs}/client-clinic.pem"\nkey = "{certs}/client-clinic.key"\n'
            "usd_per_m_in = 1.0\n"
        )

    @property
    def ledger(self) -> Path:
        return self._folder / "host" / "ledger.sqlite"

    def __enter__(self) -> KilledHost:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _start(self) -> subprocess.Popen[str]:
        text = HOST.replace("ANSWERS", ANSWERS).replace("PORT", str(self._port))
        (self._folder / "lm.toml").write_text(text)
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "host", "lm.toml"],
            cwd=self._folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        self._port = int(process.stderr.readline().rpartition(":")[2])
        return process

    def _kill(self) -> None:
        while self.kills < self._times:
            until = self._asked() + self._drawn.randint(1, 12)
            while self._asked() < until:
                if self._stopped.is_set():
                    return
                time.sleep(0.001)
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stderr is not None
            self._process.stderr.close()
            self.kills += 1
            self.under_way += self._count("requests WHERE answer IS NULL")
            self._process = self._start()

    def _asked(self) -> int:
        return self._count("entries WHERE direction = 'up'")

    def _count(self, what: str) -> int:
        with closing(sqlite3.connect(self.ledger, timeout=30)) as db:
            return int(db.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def bench(folder: Path, large: str, items: int) -> None:
    """Run the plan in `folder` with this large model."""
    folder.mkdir()
    drawn = random.Random(0)
    rows = [
        {"text": f"Ada{i} Keller saw a {label}", "label": label, "secrets": f"Ada{i} Keller"}
        for i, label in enumerate(drawn.choices(LABELS, k=items))
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = PLAN.replace("LARGE", large)
    (folder / "p.toml").write_text(text)
    store = Store(folder / "run", write=True)
    try:
        runner = Runner(parse_plan(text, folder / "p.toml"), store, reports=Silent())
        outcomes = asyncio.run(runner.run())
    finally:
        store.close()
    failed = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
    if failed:
        raise SystemExit(f"a point failed: {failed[0]}")


def killed(folder: Path, *, kills: int, items: int, seed: int = 0) -> dict[str, Any]:
    """What a run with a host that is killed `kills` times has in common with one in a process."""
    bench(folder / "here", ANSWERS, items)
    lm = folder / "lm"
    make_certificates(lm / "certs", hosts=["localhost"], clients=["clinic"])
    with KilledHost(lm, kills, seed) as host:
        bench(folder / "there", host.table, items)
    here, there = Run(folder / "here" / "run"), Run(folder / "there" / "run")
    found = compared(here, there)[1:]  # another owner is another model, so trials have other names
    with (
        open_record(str(there.path / NETWORK)) as crossed,
        open_record(str(host.ledger)) as record,
    ):
        agreement = compare(crossed.entries(), record.entries("clinic"), by_id=True)
        verdict = record.verify()
    with closing(sqlite3.connect(host.ledger)) as db:
        billed, usd = db.execute("SELECT sum(messages), sum(usd) FROM taken").fetchone()
        each = "SELECT count(*) FROM entries GROUP BY request, direction"
        repeated = sum(count > 1 for (count,) in db.execute(each))
    with closing(sqlite3.connect(there.path / "run.sqlite")) as db:
        paid = db.execute("SELECT sum(usd) FROM paid").fetchone()[0]
    return {
        "kills": host.kills,
        "under way when killed": host.under_way,
        "requests": agreement.agreed,
        "values compared": sum(each.values for each in found),
        "values that differ": sum(len(each.different) for each in found),
        "differences between the ledgers": len(agreement.faults) + agreement.unheard,
        "faults in the host's ledger": len(verdict.faults),
        "on record twice": repeated,
        "billed": billed,
        "dollars billed less paid": round(usd - paid, 12),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = killed(
            Path(folder), kills=arguments.kills, items=arguments.items, seed=arguments.seed
        )
    print(json.dumps(found, indent=1))
    kept = Kept("host_faults", seed=arguments.seed, settings={"items": arguments.items})
    for name, value in found.items():
        kept.put("run", name, value)
    kept.write()


if __name__ == "__main__":
    main()
