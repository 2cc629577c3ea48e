"""A record that was lost, cut, altered, reordered or put back gives no number and no certificate."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from cosilo.benchmark.estimate import Estimate
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.results import opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import SqliteLedger, connect, entry_hash, head_mac, read_entries
from cosilo.cli import main
from cosilo.errors import ConfigError, StoreError
from cosilo.types import user
from tiny_run import PLAN, bench, write_data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and `half`, how its two databases stood half-way."""
    folder = tmp_path_factory.mktemp("made")
    write_data(folder)
    keep, kept = Store.add_items, []

    def cut(self: Store, *arguments: object) -> None:
        if len(kept) == 75:
            raise StoreError("the power is out")
        kept.append(1)
        keep(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "add_items", cut)
        with pytest.raises(StoreError, match="power"):
            bench(folder, PLAN)
    shutil.copytree(folder / "run", folder / "half")
    outcomes, _ = bench(folder, PLAN)
    assert [o.error for o in outcomes] == [None, None]
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "made")
    described = json.loads((tmp_path / "made/run/run.json").read_text())
    described["plan"] = str(tmp_path / "made/p.toml")
    (tmp_path / "made/run/run.json").write_text(json.dumps(described))
    return tmp_path / "made"


def sql(*statements: str, file: str = "ledger.sqlite") -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "run" / file, isolation_level=None)) as db:
            for trigger in ("entries_no_update", "entries_no_delete"):
                db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
            for statement in statements:
                db.execute(statement.replace("CHAIN", _chain(folder)))

    return run


def _chain(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "run" / "run.sqlite")) as db:
        (id,) = db.execute("SELECT id FROM trials WHERE point = 'large'").fetchone()
    return f"'{id}'"


def restored(folder: Path) -> None:
    for ending in ("-wal", "-shm"):
        (folder / "run" / f"ledger.sqlite{ending}").unlink(missing_ok=True)
    shutil.copy(folder / "half" / "ledger.sqlite", folder / "run")


def deleted(folder: Path) -> None:
    for file in (folder / "run").glob("ledger.sqlite*"):
        file.unlink()


def garbage(folder: Path) -> None:
    deleted(folder)
    (folder / "run" / "ledger.sqlite").write_bytes(b"no database at all, but long enough " * 99)


def made_anew(folder: Path) -> None:
    """Without the messages of one item, every number and hash as if they had never been."""
    chain = _chain(folder).strip("'")
    with closing(connect(folder / "run" / "ledger.sqlite")) as db:
        entries = list(read_entries(db, chain))
        gone = entries[-1].request
        previous, rows = bytes(32), []
        for entry in entries:
            if entry.request != gone:
                new = replace(entry, number=len(rows))
                previous = entry_hash(previous, new)
                rows.append(astuple(replace(new, hash=previous))[:14])
        db.execute("DROP TRIGGER entries_no_delete")
        db.execute("DELETE FROM entries WHERE chain = ?", (chain,))
        db.executemany(f"INSERT INTO entries VALUES ({','.join('?' * 14)})", rows)
        head = (chain, len(rows), previous, head_mac(b"", chain, len(rows), previous))
        db.execute("INSERT OR REPLACE INTO heads VALUES (?,?,?,?)", head)
        assert verify(db) == []


def added(folder: Path) -> None:
    ledger = SqliteLedger(folder / "run" / "ledger.sqlite", _chain(folder).strip("'"))
    ask = Ask(chat=user("never sent"))
    asyncio.run(ledger.append("test/x", "up", ask, encode(ask)))
    ledger.close()


SWAP = (
    "UPDATE entries SET number = number + 9000 WHERE chain = CHAIN AND number IN (4, 9)",
    "UPDATE entries SET number = 9 WHERE chain = CHAIN AND number = 9004",
    "UPDATE entries SET number = 4 WHERE chain = CHAIN AND number = 9009",
)
CUT = "DELETE FROM entries WHERE chain = CHAIN AND number >= 20"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "file deleted": (deleted, "record is gone: ledger.sqlite holds none of its .* deleted"),
    "all deleted": (sql("DELETE FROM entries", "DELETE FROM heads"), "is gone: .* holds none"),
    "all deleted, not its head": (sql("DELETE FROM entries"), r"all of its \d+ entries are gone"),
    "end cut off": (sql(CUT), "were cut off the end"),
    "end cut off, head too": (
        sql(
            CUT,
            "UPDATE heads SET count = 20 WHERE chain = CHAIN",
            "UPDATE heads SET hash = (SELECT hash FROM entries WHERE chain = CHAIN AND number = 19)"
            " WHERE chain = CHAIN",
        ),
        "the head's seal does not match",
    ),
    "older copy": (restored, "record was cut: ledger.sqlite ends after .* an older copy"),
    "middle deleted": (
        sql("DELETE FROM entries WHERE chain = CHAIN AND number = 5"),
        "entry 5 is missing",
    ),
    "direction altered": (
        sql("UPDATE entries SET direction = 'down' WHERE chain = CHAIN AND number = 6"),
        "entry 6 was altered",
    ),
    "content altered": (
        sql("UPDATE entries SET payload = x'81a178' WHERE chain = CHAIN AND number = 6"),
        "the content of entry 6 was altered",
    ),
    "content and digest altered": (
        sql("UPDATE entries SET payload = x'', digest = zeroblob(32) WHERE number = 6"),
        "was altered",
    ),
    "moved to another item": (
        sql(
            "UPDATE entries SET request = (SELECT request FROM entries WHERE chain = CHAIN AND"
            " number = 30) WHERE chain = CHAIN AND number = 6"
        ),
        "entry 6 was altered",
    ),
    "reordered": (sql(*SWAP), "entry 4 was moved: it was entry 9"),
    "made anew": (made_anew, "its record was made anew"),
    "added to": (added, "1 entries more than the run noted"),
    "no database": (garbage, r"ledger.sqlite cannot be read \(DatabaseError\)"),
    "older version": (
        sql("DROP TABLE marks", "DROP TABLE heads", file="run.sqlite"),
        "an older version made it",
    ),
}


@pytest.mark.parametrize("verb", ["select", "report", "attack"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_is_not_whole_gives_no_number_and_says_why(
    folder: Path, damage: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, (damaged, why) = folder / "run", DAMAGES[damage]
    assert main(["select", str(run)]) == 0
    capsys.readouterr()
    damaged(folder)
    more = ["--csv", str(folder / "out.csv")] if verb == "report" else []
    assert main([verb, str(run), *more]) == 4
    said = capsys.readouterr()
    assert said.err.startswith("cosilo: large") or "\ncosilo: large" in said.err
    assert re.search(why, said.err), said.err
    assert f"cosilo bench {folder / 'p.toml'}" in said.err  # the way on
    if verb == "select":
        assert said.out == ""
    if verb == "attack":
        assert "no numbers: large" in said.out
        with closing(sqlite3.connect(run / "run.sqlite")) as db:
            versions = db.execute("SELECT count(*) FROM results").fetchone()
        assert versions == (6,)  # as they were
    if verb == "report":
        page = (run / "report.html").read_text()
        assert "Nothing is certified" in page
        assert "large" not in {
            r.split(",")[0] for r in (folder / "out.csv").read_text().splitlines()
        }
    with opened(run) as results:
        assert "large" in results.damaged
        assert "large" not in [p.name for p in results.points]


@pytest.mark.parametrize("damage", DAMAGES)
def test_bench_answers_again_what_is_not_on_record_and_pays_nothing(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def numbers() -> dict[str, float]:
        with opened(folder / "run") as results:
            (large,) = [p for p in results.points if p.name == "large"]
            names = ("privacy", "utility", "calls", "bytes_up", "integrity")
            return {name: large.test[name].value for name in names}

    before = numbers()
    assert before["privacy"] > 0.9
    assert before["integrity"] > 0
    DAMAGES[damage][0](folder)
    outcomes, counting = bench(folder, PLAN, offline=True)
    assert [o.error for o in outcomes] == [None, None]
    assert counting.items > 0
    notes = "\n".join(counting.notes)
    assert re.search(DAMAGES[damage][1], notes), notes
    assert numbers() == before
    assert main(["select", str(folder / "run")]) == 0
    assert bench(folder, PLAN, offline=True)[1].items == 0
    with closing(connect(folder / "run" / "ledger.sqlite")) as db:
        assert verify(db) == []


def test_only_what_the_older_copy_lacks_is_answered_again(folder: Path) -> None:
    with opened(folder / "run") as results:
        count = sum(len(results.store.answers(t.id, "plain")) for t in results.trials.values())
    restored(folder)
    _, counting = bench(folder, PLAN, offline=True)
    assert 0 < counting.items < count / 2


def test_a_run_put_back_beside_a_whole_ledger_is_finished_from_it(folder: Path) -> None:
    with opened(folder / "run") as results:
        before = {p.name: p.test["bytes_up"].value for p in results.points}
    for file in (folder / "run").glob("run.sqlite*"):
        file.unlink()
    shutil.copy(folder / "half" / "run.sqlite", folder / "run")
    with opened(folder / "run") as results:
        assert results.unfinished == {"large": "interrupted"}
    outcomes, counting = bench(folder, PLAN, offline=True)
    assert [o.error for o in outcomes] == [None, None]
    assert counting.items > 0
    with opened(folder / "run") as results:
        assert {p.name: p.test["bytes_up"].value for p in results.points} == before


def test_an_unfinished_trial_whose_record_lost_its_end_goes_on_from_what_is_there(
    folder: Path,
) -> None:
    """Power cut while answering: the run kept items whose messages the ledger did not."""
    shutil.rmtree(folder / "run")
    shutil.copytree(folder / "half", folder / "run")
    whole = bench(folder, PLAN, offline=False)[1].items
    shutil.rmtree(folder / "run")
    shutil.copytree(folder / "half", folder / "run")
    with closing(connect(folder / "run" / "ledger.sqlite")) as db:
        chain = _chain(folder).strip("'")
        last = list(read_entries(db, chain))[-10]
        db.execute("DROP TRIGGER entries_no_delete")
        db.execute("DELETE FROM entries WHERE chain = ? AND number > ?", (chain, last.number))
        count = last.number + 1
        head = (chain, count, last.hash, head_mac(b"", chain, count, last.hash))
        db.execute("INSERT OR REPLACE INTO heads VALUES (?,?,?,?)", head)
        assert verify(db) == []
    _, counting = bench(folder, PLAN)
    assert counting.items > whole
    assert any("large: its record ends too early" in note for note in counting.notes)
    with opened(folder / "run") as results:
        assert not results.damaged
        (large,) = [p for p in results.points if p.name == "large"]
        assert large.test["calls"].value == 1.0


def test_who_does_not_go_ahead_leaves_the_run_as_it_is(folder: Path) -> None:
    sql(*SWAP)(folder)
    before = {file.name: file.read_bytes() for file in (folder / "run").iterdir()}

    def refuse(_: Estimate) -> None:
        raise ConfigError("nothing was spent")

    store = Store(folder / "run", write=True)
    try:
        runner = Runner(parse_plan(PLAN, folder / "p.toml"), store, confirm=refuse)
        with pytest.raises(ConfigError, match="nothing was spent"):
            asyncio.run(runner.run())
    finally:
        store.close()
    after = {file.name: file.read_bytes() for file in (folder / "run").iterdir()}
    assert after == {**before, "lock": after["lock"]}


@pytest.mark.parametrize("replay", [True, False])
def test_an_estimate_knows_what_is_neither_on_record_nor_recorded(
    folder: Path, replay: bool
) -> None:
    restored(folder)
    for file in () if replay else (folder / "run").glob("replay.sqlite*"):
        file.unlink()
    store = Store(folder / "run", write=True)
    try:
        left = asyncio.run(Runner(parse_plan(PLAN, folder / "p.toml"), store).expected())
    finally:
        store.close()
    assert left.points == 1
    assert left.cost is not None
    assert (left.cost.calls == 0) is replay


def test_an_estimate_counts_a_point_whose_record_is_not_whole_and_changes_nothing(
    folder: Path,
) -> None:
    sql(*SWAP)(folder)
    before = {file.name: file.read_bytes() for file in (folder / "run").iterdir()}
    store = Store(folder / "run", write=True)
    try:
        runner = Runner(parse_plan(PLAN, folder / "p.toml"), store, offline=True)
        left = asyncio.run(runner.expected())
        assert left.points == 1
        assert left.cost is not None
        assert left.cost.calls == 0
    finally:
        store.close()
    after = {file.name: file.read_bytes() for file in (folder / "run").iterdir()}
    assert after == {**before, "lock": after["lock"]}
