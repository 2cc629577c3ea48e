"""A party of a joint run dies, stalls or sends garbage in the middle: what becomes of the run.

    python benchmarks/secure_faults.py               # 20 of the engine alone, 20 behind the boundary
    python benchmarks/secure_faults.py --times 0     # those of a private head behind the boundary

Each time a linear head is computed by real processes, by turns of ABY3 and of Cheetah, and a party
that is drawn does it at a moment that is drawn: while the weights are shared, or while the head is
computed. Afterwards no process of the run may be left, no file may have been written, and no result
may be there.

Behind the boundary a strategy asks a private head one text after the other, and each time one of the
three parties fails while it is answered. Nothing may stay reserved at the meter, and the next answer,
by a run that is opened for it, must be the one in clear.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.meter import NOTHING, Meter
from cosilo.engines.base import Program, Setting
from cosilo.engines.spu.party import WORKER
from cosilo.engines.spu.run import Deadlines, JointRun
from cosilo.errors import CosiloError, EngineError
from cosilo.models.base import Shows
from cosilo.models.encoder.head import TrainedHead
from cosilo.models.encoder.private_head import PrivateHead
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.joint import JointRuns
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.inference import joint_room
from cosilo.strategies.inference.secure_head import SecureHead
from cosilo.types import user
from kept import Kept, note, noted

KINDS = ("dies", "stalls", "garbage on a link", "garbage for a share", "garbage to us")
INPUTS, OUTPUTS = 384, 10
DEADLINES = Deadlines(step_s=20.0, silent_s=8.0, connect_s=20.0)
_SPOILED = """\
import json, os, random, socket, sys
sys.path.insert(0, {inside!r})
import worker
told = {told!r}
class Spoiled(worker.Party):
    def link(self, frame):
        self.addresses = frame["addresses"]
        return super().link(frame)
    def share(self, frame):
        kind, rank, step = json.load(open(told)) if os.path.exists(told) else (0, 0, 0)
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
        told = Path(folder) / "told.json"
        told.write_text(json.dumps([kind, rank, step]))
        script.write_text(_SPOILED.format(inside=str(WORKER.parent), told=str(told)))
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
        written = set(files(folder)) - {script.name, told.name}
    left = alive(pids.values())
    return {
        "kind": kind, "protocol": protocol, "rank": rank, "step": step, "said": said,
        "results": results, "wrong": wrong, "seconds": took, "left": left, "written": len(written),
    }  # fmt: skip


class Drawn:
    """An encoder whose vectors go by the text alone."""

    identity = "drawn"
    threads = 1

    def embed(self, texts: Sequence[str]) -> Any:
        rows = [np.random.default_rng(list(text.encode())).normal(size=INPUTS) for text in texts]
        vectors = np.array(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def close(self) -> None: ...


class Encoding(ScriptedModel):
    """The small model, for its vectors."""

    encoder = Drawn()

    def embed(self, texts: Sequence[str]) -> Any:
        return self.encoder.embed(texts)


async def crossings(state: Path, times: int) -> None:
    """So many faults behind the boundary, less those that are noted already."""
    drawn = np.random.default_rng(0).normal(size=(OUTPUTS, INPUTS + 1)).astype(np.float32)
    trained = TrainedHead(
        tuple(f"label {i}" for i in range(OUTPUTS)), drawn[:, 1:], drawn[:, 0], 2.0
    )
    encoder: Any = Drawn()
    with tempfile.TemporaryDirectory() as folder:
        script, told = Path(folder) / "spoiled.py", Path(folder) / "told.json"
        script.write_text(_SPOILED.format(inside=str(WORKER.parent), told=str(told)))
        JointRun.__init__.__kwdefaults__["worker"] = script
        joint_room.Deadlines = lambda: DEADLINES  # type: ignore[assignment,misc]
        os.environ["TMPDIR"] = folder
        lm = LMOwner(
            PrivateHead(encoder, trained, None),
            Shows.TEXT | Shows.JOINT,
            joint=JointRuns(deadlines=DEADLINES),
        )
        strategy: Any = SecureHead(engine="spu", protocol="aby3")
        meter = Meter()
        session = open_session(DataOwner(Encoding()), lm, strategy, meter=meter)
        strategy, session = await strategy.prepare(session)
        room: Any = strategy._heads._heads["large"].room

        async def right(text: str) -> bool:
            """Whether the answer is the one in clear."""
            said = (await strategy.answer(session, user(text))).text
            logits = drawn[:, 1:] @ encoder.embed([text])[0] + drawn[:, 0]
            return bool(said == trained.labels[int(logits.argmax())])

        for seed in range(len(noted(state)), times):
            rng = random.Random(seed)
            await room.ready(session.lm)
            assert lm.joint is not None
            assert lm.joint._trial is not None
            (helped,) = lm.joint._trial[0]._runs.values()
            pids = [lm.joint.pids[-1], room.side.pid, helped.run.pids[2]]
            kind, rank = KINDS[seed % len(KINDS)], rng.randrange(3)
            if kind.startswith("garbage"):
                told.write_text(json.dumps([kind, rank, "run"]))
            answering = asyncio.create_task(right(f"text {seed}"))
            began, said, results, wrong = time.monotonic(), "", 0, 0
            if not kind.startswith("garbage"):
                await asyncio.sleep(rng.uniform(0, 0.1))
                os.kill(pids[rank], signal.SIGKILL if kind == "dies" else signal.SIGSTOP)
            try:
                wrong = not await answering
                results = 1  # the party failed later: whoever asks next has the error
                wrong = not await right(f"text {seed} again") or wrong
            except CosiloError as error:
                said = str(error)
            took = time.monotonic() - began
            told.unlink(missing_ok=True)
            held = meter.reserved != NOTHING
            try:
                after = await right(f"text {seed} after it")
            except CosiloError:
                after = False
            written = set(files(folder)) - {script.name}
            found = {
                "kind": kind, "rank": rank, "said": said, "results": results, "wrong": int(wrong),
                "seconds": took, "held": int(held), "after": int(after), "left": alive(pids),
                "written": len(written),
            }  # fmt: skip
            note(state, found)
            print(found, flush=True)
        await strategy.close(session)
        await lm.joint.close()


COUNTED = {
    "a clear error": "said", "results": "results", "wrong results": "wrong", "still reserved": "held",
    "right after it": "after", "processes left": "left", "files written": "written",
}  # fmt: skip


def report(name: str, every: list[dict[str, Any]], **settings: float) -> None:
    """A row for each kind of fault; a count that a benchmark does not take has no column."""
    kept = Kept(name, settings=settings)
    for kind in ("all", *KINDS):
        rows = [row for row in every if kind in ("all", row["kind"])]
        kept.put(kind, "times", len(rows))
        for column, key in COUNTED.items():
            if all(key in row for row in every):
                # What was said is a text; the others are counts.
                counts = [bool(row[key]) if key == "said" else row[key] for row in rows]
                kept.put(kind, column, sum(counts))
        kept.put(kind, "longest", max((row["seconds"] for row in rows), default=0.0))
    kept.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--crossings", type=int, default=20)
    parser.add_argument("--state", type=Path, default=Path("runs/secure_faults.jsonl"))
    arguments = parser.parse_args()
    if arguments.crossings:
        state = arguments.state.with_stem(f"{arguments.state.stem}_crossings")
        state.parent.mkdir(parents=True, exist_ok=True)
        asyncio.run(crossings(state, arguments.crossings))
        rows = noted(state)[: arguments.crossings]
        report("secure_faults_crossings", rows, silent_s=DEADLINES.silent_s)
    if not arguments.times:
        return
    for seed in range(len(noted(arguments.state)), arguments.times):
        drawn = random.Random(seed)
        kind, protocol = KINDS[seed % len(KINDS)], ("aby3", "cheetah")[seed // len(KINDS) % 2]
        rank = drawn.randrange(Setting(protocol).parties)  # type: ignore[arg-type]
        step = drawn.choice(["share", "run"])
        found = asyncio.run(once(kind, protocol, rank, step, seed))
        note(arguments.state, found)
        print(found, flush=True)
    rows = noted(arguments.state)[: arguments.times]
    report("secure_faults", rows, silent_s=DEADLINES.silent_s, step_s=DEADLINES.step_s)


if __name__ == "__main__":
    main()
