"""A plan in one process, in two, on a Ray cluster of two workers, and there with workers killed.

    python benchmarks/jobs.py                         cfpb_llm, all of them
    python benchmarks/jobs.py --plan nyc311 one two

Each is a run of its own in runs/jobs/PLAN-NAME, and what is finished is not done again. All are held
against the run in one process with `same.py`: answers, what preparing found, numbers, and, where no
attempt was cut off, the bytes that crossed. Of each: how many messages were paid for and how many
different ones are recorded; booked and cut off are those that were under way when a worker was killed.
Kept in benchmarks/results/jobs.json.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kept import ROOT, Kept
from same import Run, compared

KINDS = {
    "one": (),
    "two": ("--jobs", "2"),
    "ray": ("--jobs", "2", "--on", "ray"),
    "ray-killed": ("--jobs", "2", "--on", "ray"),
}
KILLS = 5
CLUSTER = """
import sys
import ray
from cosilo.cli import main

ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, _temp_dir=sys.argv[1])
code = main(sys.argv[2:])
ray.shutdown()
sys.exit(code)
"""


def bench(plan: Path, run: Path, kind: str, rng: random.Random) -> tuple[float, int]:
    """Finish the run; seconds on the wall, and how many workers were killed."""
    arguments = ["bench", str(plan), "--run", str(run), "--yes", *KINDS[kind]]
    with tempfile.TemporaryDirectory(prefix="ray-") as temp:  # short: it holds sockets
        command = [sys.executable, "-m", "cosilo", *arguments]
        if "ray" in kind:
            command = [sys.executable, "-c", CLUSTER, temp, *arguments]
        env = {**os.environ, "HOME": temp, "RAY_USAGE_STATS_ENABLED": "0"}
        env.setdefault("XDG_DATA_HOME", str(Path.home() / ".local/share"))
        env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env)
        killed = 0
        while process.poll() is None:
            if kind.endswith("killed") and killed < KILLS:
                killed += kill(run, process, rng)
            else:
                time.sleep(0.2)
        if process.returncode:
            raise SystemExit(process.returncode)
        return time.perf_counter() - began, killed


def kill(run: Path, process: subprocess.Popen[bytes], rng: random.Random) -> int:
    """Kill -9 a worker, drawn like the moment, within the next seconds; 0 where there was none."""
    until = time.perf_counter() + rng.uniform(1.0, 5.0)
    while process.poll() is None and time.perf_counter() < until:
        time.sleep(0.05)
    found = [path.read_text().strip() for path in (run / "trials").glob("*/lock")]
    workers = sorted(int(text) for text in found if text and int(text) != process.pid)
    if not workers:
        return 0
    try:
        os.kill(rng.choice(workers), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def paid(run: Path) -> tuple[int, int, int]:
    """Messages that were paid for and answered, that were cut off, and that are recorded."""
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        settled, cut = db.execute("SELECT sum(settled), sum(NOT settled) FROM paid").fetchone()
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    with closing(sqlite3.connect(run / "replay.sqlite")) as db:
        recorded = db.execute(
            "SELECT (SELECT count(*) FROM answers) + (SELECT count(*) FROM scores)"
        ).fetchone()
    return settled or 0, cut or 0, recorded[0]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="cfpb_llm")
    parser.add_argument("--seed", type=int, default=0, help="of when workers are killed")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    arguments = parser.parse_args(argv)
    plan = ROOT / "benchmarks/plans" / f"{arguments.plan}.toml"
    runs = ROOT / "runs/jobs"
    runs.mkdir(parents=True, exist_ok=True)
    kept, rng = Kept("jobs", seed=arguments.seed, fresh=False), random.Random(arguments.seed)
    wrong = 0
    for kind in arguments.kinds or KINDS:
        run, row = runs / f"{arguments.plan}-{kind}", f"{arguments.plan} {kind}"
        fresh = not run.exists()
        seconds, killed = bench(plan, run, kind, rng)
        if fresh:
            kept.put(row, "seconds", seconds)
            kept.put(row, "workers killed", killed)
        settled, cut, recorded = paid(run)
        kept.put(row, "paid for and answered", settled)
        kept.put(row, "cut off", cut)
        kept.put(row, "recorded", recorded)
        different = abs(settled - recorded)
        first = runs / f"{arguments.plan}-one"
        for found in compared(Run(first), Run(run)):
            if killed and found.what == "bytes that crossed":
                continue  # the attempts that were cut off are in the record too
            print(found)
            kept.put(row, found.what, found.values)
            different += len(found.different)
        kept.put(row, "different", different)
        kept.write()
        print(f"{row}: {settled} paid for, {recorded} recorded, {cut} cut off, {killed} killed")
        wrong += different
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
