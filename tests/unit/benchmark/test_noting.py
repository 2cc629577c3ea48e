"""A run notes what it makes of its records, whatever its strategies are, before it makes it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from cosilo.benchmark.noting import kind_of, run_lineage, trial_artifact
from cosilo.benchmark.results import opened
from cosilo.benchmark.store import Store
from cosilo.cli import main
from cosilo.errors import StoreError
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.store import FILE, KEY, Lineage
from cosilo.types import Demonstration, Turn
from tiny_run import PLAN, bench, write_data

MORE = '[[points]]\nstrategy = "cascade"\n[[points]]\nstrategy = "distil_labels"\nitems = 10\n'
SMALL = 'kind = "scripted"\nreplies = {cat = "cat", dog = "cow"'
TRAINED = PLAN.replace(SMALL, f"train = true\n{SMALL}")
assert TRAINED != PLAN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noted")
    write_data(folder, TRAINED + MORE)
    outcomes, _ = bench(folder, TRAINED + MORE)
    assert [o.error for o in outcomes] == [None] * 4
    return folder


def ids_of(run: Path, split: str) -> list[str]:
    with opened(run) as results:
        return [e.id for e in results.store.examples(results.task, split)]  # type: ignore[arg-type]


def kinds(run: Path, record: str) -> dict[str, ArtifactKind]:
    with Lineage(run, write=False) as lineage:
        return {a.id: a.kind for a in lineage.derived([record])}


def test_what_a_record_went_into_is_noted_by_its_split(folder: Path) -> None:
    run = folder / "run"
    with opened(run) as results:
        trials = {name: trial_artifact(t.id) for name, t in results.trials.items()}
    for split in ("train", "tune"):
        found = kinds(run, ids_of(run, split)[0])
        assert {trials[name] for name in trials} <= found.keys()
        assert found[f"{trials['small']}/model"] is ArtifactKind.HEAD
        assert found[f"{trials['cascade']}/threshold"] is ArtifactKind.THRESHOLD
        assert found[f"{trials['cascade']}/record"] is ArtifactKind.SEALED
        assert found[f"{trials['large']}/sent/large"] is ArtifactKind.ABROAD
        assert found[f"{trials['large']}/replies"] is ArtifactKind.ANSWER
        assert f"{trials['small']}/record" not in found  # nothing crosses there
    tested = kinds(run, ids_of(run, "test")[0])
    assert ArtifactKind.HEAD not in tested.values()
    assert tested[f"{trials['small']}/answers"] is ArtifactKind.MEASUREMENT
    assert ArtifactKind.DATA in tested.values()


def test_bundles_reports_and_certificates_are_noted_before_they_are_made(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    run, out = tmp_path / "copy" / "run", tmp_path / "out"
    csv = tmp_path / "points.csv"
    assert main(["bundle", str(run), "--point", "cascade", str(out)]) == 0
    assert main(["report", str(run), "--csv", str(csv)]) == 0
    assert main(["select", str(run), "--limit", "calls=1"]) == 0
    tuned, certified = ids_of(run, "tune")[0], ids_of(run, "certificate")[0]
    with Lineage(run, write=False) as lineage:
        of_tuned = {(a.kind, a.place) for a in lineage.derived([tuned])}
        of_certified = {(a.kind, a.place) for a in lineage.derived([certified])}
    assert (ArtifactKind.BUNDLE, str(out)) in of_tuned
    for kind, place in (
        (ArtifactKind.REPORT, "report.html"),
        (ArtifactKind.REPORT, str(csv)),
        (ArtifactKind.CERTIFICATE, "what `cosilo select` printed"),
    ):
        assert (kind, place) in of_certified
    with sqlite3.connect(run / FILE) as db:  # what cannot be noted is not made
        db.execute("UPDATE about SET value = 99")
    db.close()
    (run / "report.html").unlink()
    for made in (
        ["report", str(run)],
        ["bundle", str(run), "--point", "small", str(tmp_path / "b")],
    ):
        assert main(made) == StoreError.exit_code
    assert "another version" in capsys.readouterr().err
    assert not (run / "report.html").exists()
    assert not (tmp_path / "b").exists()


def test_in_a_run_of_an_older_version_everything_counts_as_made_from_every_record(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    for name in (FILE, KEY):
        (tmp_path / "run" / name).unlink()
    store = Store(tmp_path / "run", write=True)
    with run_lineage(store) as lineage:
        found = lineage.derived([store.examples(task_of(store), "train")[0].id])
        assert {a.kind for a in found} >= {
            ArtifactKind.DATA, ArtifactKind.STATE, ArtifactKind.MEASUREMENT,
            ArtifactKind.SEALED, ArtifactKind.ANSWER, ArtifactKind.ABROAD,
        }  # fmt: skip
        assert lineage.derived(["nobody"]) == ()
    store.close()


def test_what_an_older_version_made_is_noted_whatever_was_noted_after_it(
    folder: Path, tmp_path: Path
) -> None:
    """Also where noting it was killed, and where a newer version went on with the run first."""
    shutil.copytree(folder / "run", tmp_path / "run")
    store = Store(tmp_path / "run", write=True)
    record = store.examples(task_of(store), "train")[0].id
    with run_lineage(store) as lineage:
        assert not lineage.late
    for name in (FILE, KEY):
        (tmp_path / "run" / name).unlink()
    trials = [trial_artifact(trial) for trial in store.trials()]
    assert len(trials) > 1
    with Lineage(tmp_path / "run") as lineage:
        made = Artifact(id=trials[0], kind=ArtifactKind.STATE, place="run.sqlite#cards")
        lineage.note(made, MadeFrom())
    for _ in range(2):
        with run_lineage(store) as lineage:
            assert lineage.late
            found = {a.id for a in lineage.derived([record])}
            assert found >= {f"task/{task_of(store)}", *trials[1:]}
            assert trials[0] not in found  # what was noted is known better
    store.close()


def task_of(store: Store) -> str:
    return str(store.read_json("run.json")["task"])


def test_what_preparing_set_is_told_by_what_it_is() -> None:
    chat = (Turn("user", "hello"),)
    for value, kind in (
        (0.5, ArtifactKind.THRESHOLD),
        ({"cat": 0.5}, ArtifactKind.THRESHOLD),
        (chat, ArtifactKind.PROMPT),
        ([Demonstration("1", chat, "x")], ArtifactKind.PROMPT),
        (object(), ArtifactKind.STATE),
        (Path("key"), None),
        (True, None),
        ((), None),
    ):
        assert kind_of(value) is kind
