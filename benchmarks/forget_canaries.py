"""Canaries in everything that a run made: does the closure name it, and does `cosilo forget` reach it?

    python benchmarks/forget_canaries.py [--draws 20] [--seed 0] [--folder /tmp/forget_canaries]

A run of 70 made-up records (two scripted models, a small one that is trained, four points), a report
with quotations, a table of points, a selection, a bundle with examples, and a database whose free
pages and log hold a record, too. In each draw two of the records that were trained on, tuned on or
asked about are forgotten. Before, `Lineage.derived` says what was made from them, and every file, but
the owner's own data, that holds what only these records say is held against the places it names.
Whoever has guessed the whole text of a message can ask the ledger whether it crossed: that is tried
for each message that held one of the records, before and after. After, every file is searched again,
bytes as they are and as JSON writes them, and the chains are verified. It resumes: what a draw gave is
kept.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from kept import ROOT, Cells, Kept

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))
from tests.integration.test_forget import PLAN, canary, holding, spoil, whom, write_rows

from cosilo.benchmark.results import opened as opened_run
from cosilo.boundary.record.ledger import Entry, connect, keys_of, opened
from cosilo.cli import main as cosilo
from cosilo.lineage.store import Lineage
from cosilo.objectives import intervals
from cosilo.record_keys import masked
from tiny_run import bench

RECORDS = 70


def quietly(*command: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return cosilo(list(command))


def made(folder: Path) -> Path:
    """The run, with all that is taken out of it."""
    home = folder / "home"
    if (folder / "made").exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    write_rows(home, count=RECORDS)
    outcomes, _ = bench(home, PLAN)
    assert [o.error for o in outcomes] == [None] * 4
    (folder / "made").touch()
    return home


def exported(home: Path, ids: Sequence[str]) -> None:
    run = str(home / "run")
    bundle = ["bundle", run, "--point", "supericl", str(home / "bundle"), "--with-examples"]
    for command in (
        ["report", run, "--quote", "--csv", str(home / "points.csv")],
        ["select", run, "--limit", "calls=1"],
        bundle,
    ):
        assert quietly(*command) == 0, command
    spoil(home / "run" / "run.sqlite", [canary(id) for id in ids])


def stored(run: Path) -> Iterator[Entry]:
    """All entries as they are stored, without their keys."""
    with closing(connect(run / "ledger.sqlite")) as db:
        for row in db.execute("SELECT * FROM entries ORDER BY chain, number"):
            yield Entry(*row)


def messages(run: Path, ids: Sequence[str]) -> list[bytes]:
    """The encoded messages that held one of the records."""
    texts = [canary(id).encode() for id in ids]
    with closing(connect(run / "ledger.sqlite")) as db, closing(keys_of(db)) as keys:
        contents = [opened(entry, keys).payload for entry in stored(run)]
    return [c for c in contents if c is not None and any(t in c for t in texts)]


def confirmed(run: Path, guesses: Sequence[bytes]) -> int:
    """How many guessed messages the ledger confirms to one who has all its files: their SHA-256 is
    what an entry holds, as it is or under any key that is left."""
    entries = list(stored(run))
    with closing(connect(run / "ledger.sqlite")) as db, closing(keys_of(db)) as keys:
        found = [keys.of(e.key_id) for e in entries if e.key_id is not None]
    left = [key for key in found if isinstance(key, bytes)]
    digests = {hashlib.sha256(guess).digest() for guess in guesses}
    seen = {e.digest[:32] for e in entries}
    told = digests & (seen | {masked(k, e.digest)[:32] for e in entries for k in left})
    return len(told)


def draw(home: Path, ids: Sequence[str]) -> dict[str, Any]:
    run = home / "run"
    exported(home, ids)
    with Lineage(run, write=False) as lineage:
        derived = lineage.derived(list(ids))
    places = {str((run / a.place.partition("#")[0]).resolve()) for a in derived}
    before = set.union(*(holding(home, canary(id)) for id in ids)) - {"data.csv"}  # made of nothing

    def covered(file: str) -> bool:
        at = str((home / file).resolve()).removesuffix("-wal").removesuffix("-journal")
        return any(at == place or at.startswith(f"{place}/") for place in places)

    guesses = messages(run, ids)
    told = confirmed(run, guesses)
    code = quietly("forget", str(run), "--ids", whom(home, *ids))
    after = {text: sorted(holding(home, text)) for id in ids for text in (canary(id), id)}
    return {
        "code": code,
        "kinds": sorted({a.kind.value for a in derived}),
        "artifacts": len(derived),
        "files": len(before),
        "covered": sum(map(covered, before)),
        "left": sum(map(len, after.values())),
        "messages": len({hashlib.sha256(g).digest() for g in guesses}),
        "confirmed before": told,
        "confirmed after": confirmed(run, guesses),
        "verified": quietly("audit", "verify", str(run)) == 0,
    }


def share(kept: Kept, row: str, column: str, count: int, of: int) -> None:
    low, high = intervals.clopper_pearson(count, of)
    kept.put(row, column, count / of, n=of, low=low, high=high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/forget_canaries"))
    how = parser.parse_args()
    how.folder.mkdir(parents=True, exist_ok=True)
    home = made(how.folder)
    with opened_run(home / "run") as results:
        every = [
            e.id for s in ("train", "tune", "test") for e in results.store.examples(results.task, s)
        ]
    cells = Cells(how.folder / "cells.json")
    rng = random.Random(how.seed)
    for number in range(how.draws):
        ids = rng.sample(every, 2)
        if str(number) not in cells.done:
            copy = how.folder / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            shutil.copytree(home, copy / "home")
            cells.put(str(number), draw(copy / "home", ids))
            print(number, json.dumps(cells.done[str(number)]), file=sys.stderr, flush=True)
    found = [cells.done[str(n)] for n in range(how.draws)]
    kept = Kept("forget_canaries", settings={"draws": how.draws, "seed": how.seed})
    kept.put("closure", "records", len(every))
    kept.put("closure", "kinds", len(set.union(*(set(f["kinds"]) for f in found))))
    for what in ("kinds", "artifacts", "files"):
        sizes = [len(f[what]) if what == "kinds" else f[what] for f in found]
        kept.put("closure", f"fewest {what}", min(sizes), n=len(sizes))
    files, messages = (sum(f[what] for f in found) for what in ("files", "messages"))
    share(kept, "closure", "files covered", sum(f["covered"] for f in found), files)
    kept.put("after", "files that hold it", sum(f["left"] for f in found), n=files)
    kept.put("after", "erased or told", sum(f["code"] == 0 for f in found), n=len(found))
    kept.put("after", "chains verify", sum(f["verified"] for f in found), n=len(found))
    for when in ("before", "after"):
        share(kept, "guesses", when, sum(f[f"confirmed {when}"] for f in found), messages)
    kept.write()
    for row, columns in kept.rows.items():
        print(row, {k: round(v["value"], 3) for k, v in columns.items()})


if __name__ == "__main__":
    main()
