"""A record is followed to everything that was made from it, and what is left is what would have been
without it; whatever happens on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from io import BytesIO, TextIOWrapper
from pathlib import Path

import msgspec
import pytest

from cosilo.benchmark.lock import take_lock
from cosilo.benchmark.results import opened
from cosilo.boundary.record.ledger import connect, read_entries
from cosilo.cli import main
from cosilo.forget import carrying_out
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.store import FILE, Lineage
from cosilo.models.kept.replay import ReplayStore
from cosilo.report.made_from import Became
from cosilo.tasks.base import Split
from cosilo.types import Answer
from pages import Page
from tiny_run import LABELS, bench

pytestmark = pytest.mark.timeout(300)

PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
file = "data.csv"
columns = {text = "text", target = "label", secrets = "secrets", id = "id"}
[models.small]
kind = "scripted"
train = true
confidence = 0.5
replies = {cat = "cat", dog = "cow", cow = "cow"}
[models.large]
kind = "scripted"
replies = {cat = "cat", dog = "dog", cow = "cow"}
[limits]
calls = 1.0
[defences.hide]
kind = "pseudonym"
detectors = ["patterns"]
[[points]]
strategy = "small"
[[points]]
strategy = "large"
defences = ["hide"]
[[points]]
strategy = "cascade"
[[points]]
strategy = "supericl"
examples = 4
"""
POINTS = ("small", "large+hide", "cascade", "supericl")


def row_of(number: int, label: str) -> str:
    # The large model answers some with the text itself, which is recorded then.
    seen = f"saw a {label}" if number % 3 else "saw nothing that anybody knows"
    told = f'Ada {number:03} Keller {seen}, ""by the garden gate no. {number:03}"",\nat noon'
    return f'patient-{number:04}-kel,"{told}",{label},Ada {number:03} Keller\n'


def write_rows(folder: Path, without: frozenset[int] = frozenset(), *, count: int = 70) -> None:
    folder.mkdir(exist_ok=True)
    labels = random.Random(0).choices(LABELS, k=count)
    rows = [row_of(i, label) for i, label in enumerate(labels) if i not in without]
    (folder / "data.csv").write_bytes(("id,text,label,secrets\n" + "".join(rows)).encode())
    (folder / "p.toml").write_text(PLAN)


def benched(folder: Path) -> Path:
    write_rows(folder)
    outcomes, _ = bench(folder, PLAN)
    assert [o.error for o in outcomes] == [None] * 4
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return benched(tmp_path_factory.mktemp("forget") / "home")


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


def ids_in(run: Path, *splits: str) -> list[str]:
    """An id of each split."""
    with opened(run) as results:
        return [results.store.examples(results.task, s)[1].id for s in splits]  # type: ignore[arg-type]


def number_of(id: str) -> int:
    return int(id.split("-")[1])


def whom(home: Path, *ids: str) -> str:
    file = home.parent / "whom.txt"
    file.write_text("\n".join(ids) + "\n")
    return f"@{file}"


def forget(home: Path, *ids: str, more: tuple[str, ...] = ()) -> int:
    return main(["forget", str(home / "run"), "--ids", whom(home, *ids), *more])


def told(run: Path) -> dict[str, object]:
    """Everything that a run holds, but how long things took and when they were."""
    found: dict[str, object] = {}
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        for table in ("tasks", "examples", "cards", "guesses", "faults", "said"):
            found[table] = sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
        found["trials"] = sorted(db.execute("SELECT id, point, settings, state FROM trials"))
        rows = db.execute(
            "SELECT trial, pass, split, id, answer, grade, small_text, refused FROM items"
        )
        found["items"] = sorted((*row[:4], timeless(row[4]), *row[5:]) for row in rows.fetchall())
    with closing(connect(run / "ledger.sqlite")) as db:
        chains = [chain for (chain,) in db.execute("SELECT chain FROM heads")]
        found["crossed"] = sorted(
            (e.chain, e.request, e.direction, e.kind, e.payload if e.direction == "up" else b"")
            for chain in chains
            for e in read_entries(db, chain)
        )
    with closing(ReplayStore(run / "replay.sqlite")) as store:
        found["asked"] = sorted(store.questions())
    return found


def timeless(answer: bytes) -> str:
    found = msgspec.msgpack.decode(answer, type=Answer)
    return repr((found.generation.text, found.by, found.generation.tokens))


def holding(folder: Path, text: str) -> set[str]:
    forms = {text.encode(), json.dumps(text)[1:-1].encode()}
    files = (f for f in folder.rglob("*") if f.is_file())
    return {
        f.relative_to(folder).as_posix() for f in files if any(x in f.read_bytes() for x in forms)
    }


def spoil(file: Path, texts: list[str]) -> None:
    """Leave `texts` in free pages and in a write-ahead log that nobody has closed."""
    log = file.with_name(f"{file.name}-wal")
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA secure_delete = OFF")  # some builds of SQLite overwrite what is free
        db.execute("CREATE TABLE spare (text)")
        db.executemany("INSERT INTO spare VALUES (?)", [(text,) for text in texts] * 100)
        db.commit()
        db.execute("DROP TABLE spare")
        db.commit()
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("CREATE TABLE other (text)")
        db.executemany("INSERT INTO other VALUES (?)", [(text,) for text in texts])
        db.execute("DROP TABLE other")
        db.commit()
        kept = [(part, part.read_bytes()) for part in (file, log)]  # before it is closed
    for part, content in kept:
        part.write_bytes(content)
    for text in map(str.encode, texts):
        assert file.read_bytes().count(text) > 50, "no free page holds it"
        assert text in log.read_bytes(), "the log does not hold it"


def test_what_is_left_is_what_would_have_been_without_the_records(home: Path) -> None:
    run = home / "run"
    ids = ids_in(run, "train", "tune", "test")
    never = home.parent / "never"
    assert forget(home, *ids) == 0
    write_rows(never, frozenset(map(number_of, ids)))
    outcomes, _ = bench(never, PLAN)
    assert [o.error for o in outcomes] == [None] * 4
    assert (home / "data.csv").read_bytes() == (never / "data.csv").read_bytes()
    ours, theirs = told(run), told(never / "run")
    assert ours["trials"], "there is something to compare"
    # What the prompts of supericl hold was drawn anew, and was never asked: its point is gone.
    lost = {t[0] for t in theirs["trials"] if t[1] == "supericl"}  # type: ignore[attr-defined]
    for name in ("tasks", "examples"):
        assert ours[name] == theirs[name], name
    for name in ("trials", "items", "cards", "guesses", "faults", "said", "crossed"):
        kept = [row for row in theirs[name] if row[0].partition("/")[0] not in lost]  # type: ignore[attr-defined]
        here = [row for row in ours[name] if row[0].partition("/")[0] not in lost]  # type: ignore[attr-defined]
        assert here == kept, name
    assert set(ours["asked"]) <= set(theirs["asked"])  # type: ignore[call-overload]
    assert main(["audit", "verify", str(run)]) == 0
    with Lineage(run, write=False) as lineage:
        trials = [a for a in lineage.graph().artifacts if a.kind is ArtifactKind.STATE and a.gone]
    assert {a.made_by: a.gone for a in trials} == {
        point: "deleted" if point == "supericl" else "retrained exactly" for point in POINTS
    }


def test_canaries_in_every_kind_of_artifact_are_found_and_gone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = home / "run", home / "bundle"
    (trained,) = ids_in(run, "train")
    with opened(run) as results:  # one that the large model said again
        tests = [e.id for e in results.store.examples(results.task, "test")]
    tested = next(id for id in tests if number_of(id) % 3 == 0)
    assert main(["report", str(run), "--quote", "--csv", str(home / "points.csv")]) == 0
    assert main(["select", str(run), "--limit", "calls=1"]) == 0
    bundled = ["bundle", str(run), "--point", "supericl", str(out), "--with-examples"]
    assert main(bundled) == 0
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "votes").write_text(canary(trained))
    spoil(run / "run.sqlite", [canary(trained)])
    with Lineage(run, write=False) as lineage:
        derived = lineage.derived([trained, tested])
    kinds = {a.kind for a in derived}
    assert kinds >= {
        ArtifactKind.DATA, ArtifactKind.STATE, ArtifactKind.HEAD, ArtifactKind.THRESHOLD,
        ArtifactKind.ANSWER, ArtifactKind.SEALED, ArtifactKind.MEASUREMENT, ArtifactKind.ABROAD,
        ArtifactKind.BUNDLE, ArtifactKind.REPORT, ArtifactKind.CERTIFICATE,
    }  # fmt: skip
    before = holding(home, canary(trained)) | holding(home, canary(tested))
    covered = {str(Path(a.place.partition("#")[0])) for a in derived}
    places = {str((run / place).resolve()) for place in covered} | {str(run / "checkpoints")}
    assert {"data.csv", "run/run.sqlite", "run/run.sqlite-wal"} <= before
    assert {f for f in before if f.startswith("bundle/")}
    for file in before - {"data.csv"}:
        at = str((home / file).resolve()).removesuffix("-wal")
        assert any(at == place or at.startswith(f"{place}/") for place in places), file
    capsys.readouterr()
    assert forget(home, trained, tested) == 0
    said = capsys.readouterr()
    for id in (trained, tested):
        assert holding(home, canary(id)) == holding(home, id) == set()
        assert id not in said.out + said.err
        assert canary(id) not in said.out + said.err
    assert not out.exists()
    assert holding(home, canary(ids_in(run, "train")[0])), "others are still there"


def canary(id: str) -> str:
    return f"by the garden gate no. {number_of(id):03}"


def test_a_plan_changes_nothing_and_says_what_would_be_done(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (id,) = ids_in(home / "run", "certificate")
    before = {f: f.read_bytes() for f in home.rglob("*") if f.is_file() and FILE not in f.name}
    assert forget(home, id, more=("--plan",)) == 0
    said = capsys.readouterr().out
    for part in ("deleted", "withdrawn", "retrained exactly", "cannot be reached", "cost: "):
        assert part in said
    assert "a record is in the certificate split" in said
    assert id not in said
    after = {f: f.read_bytes() for f in home.rglob("*") if f.is_file() and FILE not in f.name}
    assert after == before


def test_the_page_draws_what_would_become_of_it_and_names_nobody(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = home / "run", home.parent / "plan.html"
    ids = ids_in(run, "train", "test")
    assert main(["report", str(run)]) == 0
    assert 'id="lineage"' in (run / "report.html").read_text()
    before = {f: f.read_bytes() for f in home.rglob("*") if f.is_file() and FILE not in f.name}
    assert forget(home, *ids, more=("--page", str(page))) == 2
    assert "--plan" in capsys.readouterr().err
    assert forget(home, *ids, more=("--plan", "--page", str(page))) == 0
    after = {f: f.read_bytes() for f in home.rglob("*") if f.is_file() and FILE not in f.name}
    assert after == before
    text = page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    found = Page(text)
    assert found.open == []
    told = " ".join(found.texts["tr"])
    for state in (Became.AGAIN, Became.DELETED, Became.UNREACHABLE):
        assert state in told
    assert Became.STANDS not in told
    with Lineage(run, write=False) as lineage:
        graph = lineage.graph(ids)
    made = f"{len(graph.artifacts)} things were made from the records in this run"
    assert made in text
    assert f"1 of {len(results_ids(run, 'test'))} records" in told
    for private in ("patient-", "garden gate", "Keller", "whom.txt"):
        assert private not in text
    assert forget(home, *ids) == 0
    assert main(["report", str(run)]) == 0
    rows = Page((run / "report.html").read_text()).texts["tr"]
    for state in (Became.AGAIN, Became.DELETED, Became.UNREACHABLE, Became.STANDS):
        assert any(state in row for row in rows), "what became of it stays in the run's report"


def results_ids(run: Path, split: Split) -> list[str]:
    with opened(run) as results:
        return [example.id for example in results.store.examples(results.task, split)]


def test_certificates_are_withdrawn_and_reports_say_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "run"
    (id,) = ids_in(run, "certificate")
    assert main(["select", str(run), "--limit", "calls=1"]) == 0
    assert forget(home, id) == 0
    capsys.readouterr()
    main(["select", str(run), "--limit", "calls=1"])
    assert "certificates and reports given before are withdrawn" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["report", str(run)]) == 0
    assert "are withdrawn" in (run / "report.html").read_text()
    certificate = next(home.glob("erasure-*.json"))
    found = json.loads(certificate.read_text())
    assert not found["erased"], "what was sent cannot be reached"
    assert {s["state"] for s in found["steps"]} == {"done", "cannot be reached"}
    assert main(["forget", "verify", str(certificate)]) == 0
    assert main(["forget", "verify", str(certificate), "--key", "00" * 32]) == 2
    found["erased"] = True
    certificate.write_text(json.dumps(found))
    assert main(["forget", "verify", str(certificate)]) == 2
    assert "altered" in capsys.readouterr().err
    assert main(["forget", "status", str(home)]) == 0
    assert "cannot be reached" in capsys.readouterr().out


def test_whom_is_never_said_and_never_guessed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (id,) = home / "run", ids_in(home / "run", "train")
    before = (home / "data.csv").read_bytes()
    assert forget(home, id, "nobody-of-that-name", "", "nor-of-this") == 2
    said = capsys.readouterr()
    assert "2 lines hold ids that no record has (line 2, 4)" in said.err
    assert "nobody-of" not in said.out + said.err
    assert main(["forget", str(run), "--ids", id]) == 2
    assert id not in capsys.readouterr().err
    assert main(["forget", str(run)]) == 2
    assert main(["forget", str(home.parent / "elsewhere"), "--ids", whom(home, id)]) == 2
    where = home.parent / "where.toml"
    where.write_text("id = 'x'\nsecret words = 3\n")
    assert main(["forget", str(run), "--where", f"@{where}"]) == 2
    assert "secret words" not in capsys.readouterr().err
    for wrong, told in (
        ("label = 'x'\nsecret = ''\n", "the column of condition 2"),
        ("secret = [[1]]\n", "condition 1 is neither"),
    ):
        where.write_text(wrong)
        for more in ((), ("--plan",)):
            assert main(["forget", str(run), "--where", f"@{where}", *more]) == 2
            said = capsys.readouterr()
            assert told in said.err
            assert "secret" not in said.err + said.out
    where.write_text("label = 'nobody'\n")
    assert main(["forget", str(run), "--where", f"@{where}", "--plan"]) == 0
    assert capsys.readouterr().out == "no record fits\n"
    assert (home / "data.csv").read_bytes() == before
    where.write_text(f"id = ['{id}', 'other']\nlabel = {list(LABELS)}\n")
    assert main(["forget", str(home / "data.csv"), "--where", f"@{where}", "--plan"]) == 0
    assert "to forget 1 record:" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(f"{id}\n".encode())))
    assert main(["forget", str(home), "--ids", "-", "--no-retrain"]) == 0
    assert id.encode() not in (home / "data.csv").read_bytes()
    with opened(run) as results:
        assert not results.trials
    capsys.readouterr()
    assert forget(home, id) == 0  # it is known, and gone
    assert "forgotten before" in capsys.readouterr().out


@pytest.mark.parametrize(
    "what", ["data.csv", "run/replay.sqlite", "run", "run/shards/0", "told/page.html", "told"]
)
def test_a_store_that_can_only_be_read_is_refused_before_anything_is_touched(
    home: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "run" / "shards" / "0").mkdir(parents=True)
    (home / "told").mkdir()
    assert main(["report", str(home / "run"), "-o", str(home / "told" / "page.html")]) == 0
    files = [
        f for f in home.rglob("*") if f.suffix in (".csv", ".html", ".json", ".toml", ".sqlite")
    ]
    before = {f: f.read_bytes() for f in files if f.name != "lineage.sqlite"}
    path = home / what
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    assert forget(home, *ids_in_made(home)) == 4
    path.chmod(mode)
    assert "nothing was touched" in capsys.readouterr().err
    assert {f: f.read_bytes() for f in before} == before
    assert main(["forget", "status", str(home / "run")]) == 0
    assert "nothing was ever asked" in capsys.readouterr().out


def ids_in_made(home: Path) -> list[str]:
    """The id of one record, whose text goes over two lines."""
    lines = (home / "data.csv").read_text().split("\n")
    return [line.split(",")[0] for line in lines if "Ada 007" in line][:1]


@pytest.mark.parametrize("lock", ["forget.lock", "run/lock"])
def test_what_works_there_is_waited_for(
    home: Path, lock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = take_lock(home / lock)
    before = (home / "data.csv").read_bytes()
    assert forget(home, *ids_in(home / "run", "train")) == 4
    os.close(handle)
    assert "works on" in capsys.readouterr().err
    assert (home / "data.csv").read_bytes() == before


# ── killed ───────────────────────────────────────────────────────────────────


def die_at(count: int, call: Callable[..., object]) -> Callable[..., object]:
    """`call`, which is killed with its process the `count`-th time, before it does anything."""
    calls = iter(range(1, count + 1))

    def dying(*arguments: object, **named: object) -> object:
        if next(calls, 0) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    return dying


def killed(home: Path, ids: list[str], where: str, count: int, *more: str) -> None:
    if where == "replace":
        Path.replace = die_at(count, Path.replace)  # type: ignore[method-assign,assignment]
    elif where == "move":
        Lineage.move = die_at(count, Lineage.move)  # type: ignore[method-assign,assignment]
    elif where == "noted":
        Lineage.begin = die_at(count, Lineage.begin)  # type: ignore[method-assign,assignment]
    else:
        setattr(carrying_out, where, die_at(count, getattr(carrying_out, where)))
    os._exit(forget(home, *ids, more=more))


@pytest.fixture(scope="module")
def ended(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run holds that was not disturbed."""
    home = tmp_path_factory.mktemp("ended") / "home"
    shutil.copytree(made, home)
    assert forget(home, *ids_in(made / "run", "train", "test")) == 0
    return told(home / "run")


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("begin", 1),
        ("noted", 2),
        ("move", 5),
        ("replace", 9),
        ("drop_kept", 2),
        ("clear", 1),
    ],
)
def test_killed_at_any_moment_it_ends_in_the_same_state(
    home: Path, ended: dict[str, object], where: str, count: int
) -> None:
    ids = ids_in(home / "run", "train", "test")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=killed, args=(home, ids, where, count))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for certificate in home.glob("erasure-*.json"):
        assert not json.loads(certificate.read_text())["erased"]
    if where not in ("begin", "noted", "drop_kept", "clear"):
        assert main(["forget", "status", str(home)]) == 1
    assert forget(home, *ids) == 0
    assert told(home / "run") == ended
    for id in ids:
        assert holding(home, canary(id)) == holding(home, id) == set()
    assert not list(home.rglob(".forget-*"))
    assert main(["forget", "status", str(home)]) == 0


def test_what_nobody_can_search_for_is_not_called_erased(home: Path) -> None:
    ids = ids_in(home / "run", "train")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=killed, args=(home, ids, "holding", 1))
    process.start()
    process.join()
    (kept,) = home.glob(".forget-*.pieces")
    kept.unlink()
    assert main(["forget", str(home)]) == 0
    found = json.loads(next(home.glob("erasure-*.json")).read_text())
    (search,) = (step for step in found["steps"] if step["method"] == "verified")
    assert search["state"] == "cannot be reached"
    assert not found["erased"]


def test_a_request_about_other_data_beside_these_waits_for_its_own_run(home: Path) -> None:
    run, other = home / "run", home / "other"
    shutil.copytree(run, other)
    text = (home / "data.csv").read_text()
    for here, there in (("Ada", "Eva"), ("Keller", "Kramer"), ("garden gate", "cellar door")):
        text = text.replace(here, there)
    (home / "other.csv").write_text(text)
    plan = other / "plan.toml"
    plan.write_text(plan.read_text().replace("data.csv", "other.csv"))
    mine, theirs = ids_in(run, "train", "test")
    stray = other / "notes.txt"
    stray.write_text(text)
    asked = ["--ids", whom(home, theirs), "--no-retrain"]
    assert main(["forget", str(other), *asked]) == 1
    (before,) = home.glob("erasure-*.json")
    (kept,) = home.glob(".forget-*.pieces")
    told = before.read_bytes()
    assert forget(home, mine, more=("--no-retrain",)) == 0
    assert before.read_bytes() == told
    assert kept.exists()
    assert main(["forget", "status", str(home)]) == 1
    stray.unlink()
    assert main(["forget", str(other)]) == 0
    assert not list(home.rglob(".forget-*"))


def test_nothing_is_done_to_a_file_that_something_else_has_changed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ids_in(home / "run", "train")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=killed, args=(home, ids, "leave_out", 1))
    process.start()
    process.join()
    data = (home / "data.csv").read_bytes()
    (home / "data.csv").write_bytes(data + row_of(999, "cat").encode())
    assert forget(home, *ids) == 4
    assert "changed by something else" in capsys.readouterr().err
    assert (home / "data.csv").read_bytes() == data + row_of(999, "cat").encode()
    (home / "data.csv").write_bytes(data)
    assert forget(home, *ids) == 0
