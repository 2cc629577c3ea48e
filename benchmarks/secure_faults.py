"""A party of a joint run dies, stalls or sends garbage in the middle: what becomes of the run.

    python benchmarks/secure_faults.py --times 20

Each time a linear head is computed by real processes, by turns of ABY3 and of Cheetah, and a party
that is drawn does it at a moment that is drawn: while the weights are shared, or while the head is
computed. Afterwards no process of the run may be left, no file may have been written, and no result
may be there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.engines.base import Program, Setting
from cosilo.engines.spu.party import WORKER
from cosilo.engines.spu.run import Deadlines, JointRun
from cosilo.errors import EngineError
from kept import Kept, note, noted

KINDS = ("dies", "stalls", "garbage on a link", "garbage for a share", "garbage to us")
DEADLINES = Deadlines(step_s=20.0, silent_s=8.0, connect_s=20.0)
_SPOILED = """\
import os, random, socket, sys
sys.path.insert(0, {inside!r})
import worker
kind, rank, step = {kind!r}, {rank}, {step!r}
class Spoiled(worker.Party):
    def link(self, frame):
        self.addresses = frame["addresses"]
        return super().link(frame)
    def share(self, frame):
        if frame["do"] == step and self._rank == rank:
            if kind == "garbage on a link":
                host, port = self.addresses[(rank + 1) % self._size].split(":")
                socket.create_connection((host, int(port))).sendall(os.urandom(4096))
            elif kind == "garbage for a share":
                for other in range(self._size):
                    if other != rank:
                        self._link.send(other, os.urandom(4096))
            else:
                os.write(int(sys.argv[1]), os.urandom(4096))
        return super().share(frame)
worker.Party = Spoiled
worker.main(int(sys.argv[1]))
"""


def files(folder: str) -> list[str]:
    return [path.name for path in Path(folder).rglob("*")]


def alive(pids: Iterable[int]) -> int:
    return sum(Path(f"/proc/{pid}").exists() for pid in pids)


async def once(kind: str, protocol: str, rank: int, step: str, seed: int) -> dict[str, Any]:
    drawn = random.Random(seed)
    weights = [np.ones((384, 10), np.float32), np.ones(10, np.float32)]
    rows = 2048 if protocol == "aby3" else 1
    shape = {"inputs": 384, "outputs": 10, "rows": rows, "answer": "logits"}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "spoiled.py"
        script.write_text(
            _SPOILED.format(inside=str(WORKER.parent), kind=kind, rank=rank, step=step)
        )
        worker = script if kind.startswith("garbage") else WORKER
        os.environ["TMPDIR"] = folder
        here = Path.cwd()
        os.chdir(folder)
        began, said, results, wrong = 0.0, "", 0, 0
        run = JointRun(
            Program("head", shape), Setting(protocol), deadlines=DEADLINES, worker=worker
        )  # type: ignore[arg-type]
        try:
            async with run:
                await run.start()
                await run.compile()
                await run.link()
                pids = dict(run.pids)

                async def signalled() -> None:
                    nonlocal began
                    await asyncio.sleep(drawn.uniform(0, 0.004 if step == "share" else 0.08))
                    began = time.monotonic()
                    if not kind.startswith("garbage"):
                        sent = signal.SIGKILL if kind == "dies" else signal.SIGSTOP
                        os.kill(pids[rank], sent)

                begun = None
                try:
                    begun = asyncio.create_task(signalled()) if step == "share" else None
                    await run.share(weights)
                    begun = begun or asyncio.create_task(signalled())
                    for _ in range(2):
                        done = await run.compute([np.ones((rows, 384), np.float32)])
                        results += 1
                        wrong += bool(np.abs(done.outputs[0] - 385).max() > 0.1)
                        await begun
                except EngineError as error:
                    said = str(error)
                if begun is not None:
                    await begun
                took = time.monotonic() - began
        finally:
            os.chdir(here)
            del os.environ["TMPDIR"]
        written = files(folder)  # the script is one
    left = alive(pids.values())
    return {
        "kind": kind, "protocol": protocol, "rank": rank, "step": step, "said": said,
        "results": results, "wrong": wrong, "seconds": took, "left": left, "written": len(written) - 1,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--state", type=Path, default=Path("runs/secure_faults.jsonl"))
    arguments = parser.parse_args()
    for seed in range(len(noted(arguments.state)), arguments.times):
        drawn = random.Random(seed)
        kind, protocol = KINDS[seed % len(KINDS)], ("aby3", "cheetah")[seed // len(KINDS) % 2]
        rank = drawn.randrange(Setting(protocol).parties)  # type: ignore[arg-type]
        step = drawn.choice(["share", "run"])
        found = asyncio.run(once(kind, protocol, rank, step, seed))
        note(arguments.state, found)
        print(found, flush=True)
    all_ = noted(arguments.state)[: arguments.times]
    kept = Kept(
        "secure_faults", settings={"silent_s": DEADLINES.silent_s, "step_s": DEADLINES.step_s}
    )
    for kind in ("all", *KINDS):
        rows = [row for row in all_ if kind in ("all", row["kind"])]
        kept.put(kind, "times", len(rows))
        kept.put(kind, "a clear error", sum(bool(row["said"]) for row in rows))
        kept.put(kind, "results", sum(row["results"] for row in rows))
        kept.put(kind, "wrong results", sum(row["wrong"] for row in rows))
        kept.put(kind, "processes left", sum(row["left"] for row in rows))
        kept.put(kind, "files written", sum(row["written"] for row in rows))
        kept.put(kind, "longest", max((row["seconds"] for row in rows), default=0.0))
    kept.write()


if __name__ == "__main__":
    main()
