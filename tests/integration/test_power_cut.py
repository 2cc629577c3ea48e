"""A power cut takes the last commits of each database by itself; whatever is left, the run is finished
with the same numbers, and nothing that was paid for is paid for again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.benchmark.results import opened
from cosilo.benchmark.store import Store
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import SqliteLedger, connect
from tiny_run import PLAN, bench, write_data

TAUGHT = PLAN + '[[points]]\nstrategy = "distil_labels"\n'
NAMES = ("privacy", "utility", "calls", "bytes_up", "bytes_down", "integrity", "prepare_bytes_up")
MOMENTS, APART = 4, 120
FILES = ("run.sqlite", "ledger.sqlite")


def numbers(folder: Path) -> dict[str, dict[str, float]]:
    with opened(folder / "run") as results:
        assert not results.unfinished
        return {
            p.name: {name: p.test[name].value for name in NAMES if name in p.test}
            for p in results.points
        }


def snapshot(run: Path, where: Path) -> None:
    """Both databases as they would be found after a power cut now that lost nothing."""
    where.mkdir()
    for name in FILES:
        with (
            closing(sqlite3.connect(run / name)) as db,
            closing(sqlite3.connect(where / name)) as to,
        ):
            db.backup(to)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, float]]]:
    """A finished run, what it measured, and its databases at `MOMENTS` moments, `0` to `MOMENTS-1`."""
    folder = tmp_path_factory.mktemp("made")
    write_data(folder, TAUGHT)
    # Crossings and answers, in one count: some moments lie between a crossing and its answer.
    seen: list[int] = []

    def counted() -> None:
        seen.append(1)
        if len(seen) % APART == APART // 2 and len(seen) // APART < MOMENTS - 1:
            snapshot(folder / "run", folder / str(len(seen) // APART))

    keep, append = Store.add_items, SqliteLedger.append

    def add_items(self: Store, *arguments: object) -> None:
        keep(self, *arguments)  # type: ignore[arg-type]
        counted()

    async def appended(self: SqliteLedger, *arguments: object) -> int:
        number = await append(self, *arguments)  # type: ignore[arg-type]
        counted()
        return number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "add_items", add_items)
        patch.setattr(SqliteLedger, "append", appended)
        outcomes, _ = bench(folder, TAUGHT)
    assert [o.error for o in outcomes] == [None] * 3
    snapshot(folder / "run", folder / str(MOMENTS - 1))
    assert len(seen) > APART * (MOMENTS - 1)
    return folder, numbers(folder)


@pytest.mark.parametrize("run_at", range(MOMENTS))
@pytest.mark.parametrize("ledger_at", range(MOMENTS))
def test_whatever_is_left_of_either_database_the_run_ends_with_the_same_numbers(
    made: tuple[Path, dict[str, dict[str, float]]], tmp_path: Path, run_at: int, ledger_at: int
) -> None:
    folder, before = made
    shutil.copytree(folder, tmp_path / "made")
    folder = tmp_path / "made"
    for name, moment in zip(FILES, (run_at, ledger_at), strict=True):
        for ending in ("", "-wal", "-shm"):  # keys are on the disk before what they hide
            (folder / "run" / f"{name}{ending}").unlink(missing_ok=True)
        shutil.copy(folder / str(moment) / name, folder / "run")
    # What the folder says before it is mended is right, or it is not said.
    with opened(folder / "run") as results:
        for point in results.points:
            assert {n: point.test[n].value for n in before[point.name]} == before[point.name]
        if ledger_at < run_at == MOMENTS - 1:
            assert results.damaged
    outcomes, _ = bench(folder, TAUGHT, offline=True)
    assert [o.error for o in outcomes] == [None] * 3
    assert numbers(folder) == before
    with closing(connect(folder / "run" / "ledger.sqlite")) as db:
        assert verify(db) == []
    assert not list((folder / "run").glob("ledger.damaged*"))  # a cut is no change
    _, again = bench(folder, TAUGHT, offline=True)
    assert again.items == 0
