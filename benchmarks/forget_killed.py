"""`cosilo forget` killed at random moments: does it end in the same state, and what does it cost?

    python benchmarks/forget_killed.py [--kills 20] [--seed 0] [--folder /tmp/forget_killed]

A run of made-up records (two scripted models, a small one that is trained, four points), of which
three records are forgotten: one that the small model learned from, one that a threshold was set with,
one that was tested. First nobody is killed. Then, each time on a copy, the process is killed (SIGKILL)
at a moment drawn evenly from the time that the undisturbed one took, and the same command is given
again until it ends; with every second copy it is killed a second time. Compared is all that the run
holds but times; every file is searched for what only these records say, and every certificate is read:
none may say "erased", as what was sent to the large model's owner stands. The cost is that of
`cosilo bench` on the same data without the records and with nothing recorded, beside that of
`cosilo forget`, in turns. It resumes: what a copy gave is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kept import ROOT, Kept

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))
from tests.integration.test_forget import canary, holding, ids_in, told, write_rows

COSILO = [sys.executable, "-m", "cosilo"]


def run(command: list[str], *, kill_after: float | None = None) -> tuple[int, float, float]:
    """Exit code, seconds and CPU seconds of a command; killed after so many seconds where they are
    given."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    child = subprocess.Popen(
        [*COSILO, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        child.wait(kill_after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return child.returncode, time.monotonic() - began, cpu


def forget(home: Path) -> list[str]:
    return ["forget", str(home / "run"), "--ids", f"@{home.parent / 'ids.txt'}"]


def early(home: Path) -> bool:
    """Whether a certificate says that all is erased."""
    return any(json.loads(f.read_text())["erased"] for f in home.glob("erasure-*.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/forget_killed"))
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "found.json"
    found: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"copies": {}}
    made = folder / "made" / "home"
    if not (made / "run" / "run.json").exists():
        shutil.rmtree(made.parent, ignore_errors=True)
        made.parent.mkdir()
        write_rows(made)
        assert run(["bench", str(made / "p.toml"), "--run", str(made / "run"), "--yes"])[0] == 0
    ids = ids_in(made / "run", "train", "tune", "test")

    def copied(name: str) -> Path:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(made.parent, folder / name)
        (folder / name / "ids.txt").write_text("\n".join(ids) + "\n")
        return folder / name / "home"

    home = copied("undisturbed")
    code, seconds, _ = run(forget(home))
    assert code == 0, code
    ended = told(home / "run")
    draw = random.Random(given.seed)
    number, kills = 0, 0
    while kills < given.kills:
        moments = [draw.uniform(0, seconds) for _ in range(1 + number % 2)]
        if str(number) not in found["copies"]:
            home = copied("killed")
            codes = []
            for moment in moments:
                codes.append(run(forget(home), kill_after=moment)[0])
            wrong = early(home)
            code, _, _ = run(forget(home))
            held = any(holding(home, canary(id)) or holding(home, id) for id in ids)
            found["copies"][str(number)] = {
                "kills": sum(c == -signal.SIGKILL for c in codes),
                "same": told(home / "run") == ended and code == 0,
                "early": wrong,
                "held": held,
            }
            state.write_text(json.dumps(found))
        kills += found["copies"][str(number)]["kills"]
        number += 1
        print(f"{kills} kills in {number} copies", file=sys.stderr, flush=True)
    copies = [found["copies"][str(n)] for n in range(number)]

    for turn in range(5):
        if len(found.setdefault("forget", [])) <= turn:
            home = copied("cost")
            forgotten = run(forget(home))
            anew = folder / "cost" / "anew"
            write_rows(anew, frozenset(int(id.split("-")[1]) for id in ids))
            bench = run(["bench", str(anew / "p.toml"), "--run", str(anew / "run"), "--yes"])
            found["forget"].append(forgotten[1:])
            found.setdefault("bench", []).append(bench[1:])
            state.write_text(json.dumps(found))

    kept = Kept(
        "forget_killed",
        seed=given.seed,
        settings={"threads": os.environ.get("OMP_NUM_THREADS", "")},
    )
    n = len(copies)
    kept.put("all", "kills", kills)
    kept.put("all", "copies", n)
    kept.put("all", "same state", sum(c["same"] for c in copies), n=n)
    kept.put("all", "said erased too early", sum(c["early"] for c in copies), n=n)
    kept.put("all", "still held", sum(c["held"] for c in copies), n=n)
    kept.put_mean("forget", "seconds", [s for s, _ in found["forget"]])
    kept.put_mean("forget", "cpu", [c for _, c in found["forget"]])
    kept.put_mean("bench", "seconds", [s for s, _ in found["bench"]])
    kept.put_mean("bench", "cpu", [c for _, c in found["bench"]])
    ratios = [f[1] / b[1] for f, b in zip(found["forget"], found["bench"], strict=True)]
    kept.put_mean("forget", "cpu over bench", ratios)
    kept.write()


if __name__ == "__main__":
    main()
