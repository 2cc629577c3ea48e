"""Several runs of the same data are one home: what they call a record, and which files they join."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from tests.integration.test_forget import (
    benched,
    canary,
    forget,
    holding,
    ids_in,
    killed,
    number_of,
    row_of,
    whom,
)

from cosilo.benchmark.noting import of_file
from cosilo.cli import main
from cosilo.forget.moved import NOT_THERE
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.store import Lineage

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return benched(tmp_path_factory.mktemp("several") / "home")


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


def other_plan(home: Path, name: str, *changed: tuple[str, str]) -> Path:
    """A second run in `home`, a copy of the first one but for what its plan says."""
    other = home / name
    shutil.copytree(home / "run", other)
    text = (other / "plan.toml").read_text()
    for here, there in changed:
        assert here in text
        text = text.replace(here, there)
    (other / "plan.toml").write_text(text)
    return other


def test_a_record_that_two_plans_call_differently_is_one_and_searched_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_plan(home, "other", (', id = "id"', ""))
    (id,) = ids_in(home / "run", "train")
    where = home.parent / "where.toml"
    where.write_text(f"id = '{id}'\n")
    assert main(["forget", str(home), "--where", f"@{where}", "--plan"]) == 0
    assert "to forget 1 record:" in capsys.readouterr().out
    (home / "copy.txt").write_text(row_of(number_of(id), "cat"))
    assert forget(home, id, more=("--no-retrain",)) == 1
    assert "still found in" in capsys.readouterr().out
    (home / "copy.txt").unlink()
    assert main(["forget", str(home)]) == 0
    assert holding(home, canary(id)) == set()


def test_an_id_that_different_records_have_is_refused_by_its_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs share a file, and each has another beside it; the ids of those two begin anew."""
    text = (home / "data.csv").read_text()
    (home / "b.csv").write_text(text.replace("Keller", "Kramer"))
    (home / "c.csv").write_text(text.replace("patient", "visitor"))
    for name, first in (("a", "b.csv"), ("z", "data.csv")):
        other_plan(home, name, ('file = "data.csv"', f'train = "{first}"\ntest = "c.csv"'))
    before = {f: (home / f).read_bytes() for f in ("data.csv", "b.csv")}
    (id,) = ids_in(home / "run", "train")
    assert forget(home, id) == 2
    said = capsys.readouterr().err
    assert "1 line holds an id that different records have" in said
    assert "(line 1)" in said
    assert id not in said
    assert {f: (home / f).read_bytes() for f in before} == before


def test_what_was_asked_before_is_known_when_a_run_joins_other_files(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (id,) = ids_in(home / "run", "train")
    (home / "copy.txt").write_text((home / "data.csv").read_text())
    assert forget(home, id, more=("--no-retrain",)) == 1
    (home.parent / "first").mkdir()
    joined = home.parent / "first" / "c.csv"  # sorts before the data
    joined.write_text((home / "data.csv").read_text().replace("patient", "visitor"))
    files = f'train = "data.csv"\ntest = "{joined}"'
    other_plan(home, "joining", ('file = "data.csv"', files))
    capsys.readouterr()
    assert main(["forget", "status", str(home / "run")]) == 1
    assert "still found in" in capsys.readouterr().out
    (home / "copy.txt").unlink()
    joined.unlink()
    shutil.rmtree(home / "joining")
    assert main(["forget", str(home)]) == 0


def test_requests_of_two_folders_are_told_and_go_on_where_one_run_joins_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever sorts first: its status hid that the other one's request was open."""
    there = home.parent / "also"
    shutil.copytree(home, there)
    text = (there / "data.csv").read_text()
    (there / "data.csv").write_text(text.replace("Ada", "Eva").replace("garden gate", "cellar"))
    ids = ids_in(home / "run", "train", "tune")
    for place, id in zip((home, there), ids, strict=True):
        (place / "copy.txt").write_text((place / "data.csv").read_text())
        assert forget(place, id, more=("--no-retrain",)) == 1
    (there / "copy.txt").unlink()
    shutil.rmtree(there / "run")
    files = f'train = "data.csv"\ntest = "{there / "data.csv"}"'
    other_plan(home, "joining", ('file = "data.csv"', files))
    capsys.readouterr()
    assert main(["forget", "status", str(home)]) == 1
    assert capsys.readouterr().out.count("still found in") == 2
    (home / "copy.txt").unlink()
    assert main(["forget", str(home)]) == 0
    said = capsys.readouterr().out
    assert said.count("goes on") == said.count("certificate: ") == 2
    assert main(["forget", "status", str(home)]) == 0
    assert not [*home.glob(".forget-*"), *there.glob(".forget-*")]


def test_a_run_that_is_not_found_again_is_not_called_searched(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ids_in(home / "run", "train")
    afar = home.parent / "afar" / "other"
    afar.parent.mkdir()
    other_plan(home, "other", ("data.csv", str(home / "data.csv"))).rename(afar)
    context = multiprocessing.get_context("fork")
    process = context.Process(
        target=killed, args=(home, ids, "leave_out", 1, "--runs", str(afar.parent))
    )
    process.start()
    process.join()
    capsys.readouterr()
    assert main(["forget", str(home)]) == 1
    said = capsys.readouterr().out
    assert f"not done yet in {afar}: name the folder of its runs" in said
    assert said.count(f"{afar}: no run of these files is there any more") == 1
    assert not json.loads(next(home.glob("erasure-*.json")).read_text())["erased"]
    assert main(["forget", str(home), "--runs", str(afar.parent)]) == 0
    assert holding(afar, canary(ids[0])) == set()


def test_a_data_file_in_its_runs_own_folder_is_forgotten_from(home: Path) -> None:
    """Requests are kept above the run: its own lineage says what the run made."""
    run = home / "run"
    (home / "data.csv").rename(run / "data.csv")
    text = (run / "plan.toml").read_text()
    (run / "plan.toml").write_text(text.replace('"data.csv"', '"run/data.csv"'))
    (id,) = ids_in(run, "train")
    assert main(["forget", str(run / "data.csv"), "--ids", whom(home, id)]) == 0
    assert holding(home, canary(id)) == set()
    (certificate,) = home.glob("erasure-*.json")
    assert len(json.loads(certificate.read_text())["records"]) == 1
    assert main(["forget", "status", str(run)]) == 0


@pytest.fixture
def stopped(home: Path) -> str:
    """An id in `home`, whose request was stopped before anything was done; a bundle lies in the run."""
    (id,) = ids_in(home / "run", "train")
    folder = home / "run" / "bundles" / "small"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(row_of(number_of(id), "cat"))
    with Lineage(home / "run") as lineage:
        (data,) = (a for a in lineage.standing() if a.kind is ArtifactKind.DATA)
        made = of_file(ArtifactKind.BUNDLE, folder, home / "run", made_by="cosilo bundle")
        lineage.note(made, MadeFrom(artifacts=frozenset({data.id})))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=killed, args=(home, [id], "_tell_of", 1))
    process.start()
    process.join()
    return id


def test_a_run_that_was_moved_since_is_asked_for_and_goes_on_where_it_is(
    home: Path, stopped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its bundle was called deleted where nothing was, and its steps stayed planned for ever."""
    run, afar = home / "run", home.parent / "afar"
    other_plan(home, "other").joinpath("lineage.sqlite").unlink()
    text = (run / "plan.toml").read_text()  # which says where the data are, seen from anywhere
    (run / "plan.toml").write_text(text.replace("data.csv", str(home / "data.csv")))
    afar.mkdir()
    run.rename(afar / "moved")
    capsys.readouterr()
    assert main(["forget", "status", str(home)]) == 1
    assert capsys.readouterr().out.count(f"{run}: {NOT_THERE}") == 1
    assert main(["forget", str(home)]) == 1
    said = capsys.readouterr().out
    assert said.count(f"{run}: {NOT_THERE}") == 2, "while it works, and in the end"
    assert "erased: nothing stands" not in said
    assert (afar / "moved" / "bundles" / "small").is_dir()
    shutil.rmtree(home / "other")
    assert main(["forget", str(home), "--runs", str(afar)]) == 0
    assert not (afar / "moved" / "bundles" / "small").exists()
    assert holding(afar, canary(stopped)) == holding(home, canary(stopped)) == set()
    assert main(["forget", "status", str(home), "--runs", str(afar)]) == 0


def test_a_home_that_was_moved_since_goes_on_where_it_is(
    home: Path, stopped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what lies outside of its run: that was called deleted, as nothing was where it had been."""
    (home / "run" / "bundles" / "small").rename(home / "out")
    with Lineage(home) as lineage:
        (request,) = lineage.requests()
        number = next(n for n, s in enumerate(request.steps) if s.kind == ArtifactKind.BUNDLE)
        lineage.move(request.id, number, request.steps[number].state, note=str(home / "out"))
    home = home.rename(home.parent / "new")
    assert main(["forget", str(home)]) == 0
    assert "1 record" in capsys.readouterr().out
    assert holding(home, canary(stopped)) == set()
    assert not (home / "out").exists()
    assert main(["forget", "status", str(home)]) == 0
    capsys.readouterr()
    assert forget(home, stopped) == 0
    assert "forgotten before" in capsys.readouterr().out


def test_a_run_that_was_deleted_since_is_done_with_by_its_owners_word(
    home: Path, stopped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was the only one; its steps stayed planned for ever, and its data had no status any more."""
    run = home / "run"
    outside = home.parent / "elsewhere"
    outside.mkdir()
    (outside / "bundle.json").write_text(row_of(number_of(stopped), "cat"))
    with Lineage(home) as lineage:  # one that lay outside of the run
        (request,) = lineage.requests()
        number = next(n for n, s in enumerate(request.steps) if s.kind == ArtifactKind.BUNDLE)
        lineage.move(request.id, number, request.steps[number].state, note=str(outside))
    shutil.rmtree(run)
    for target in (home, home / "data.csv"):
        capsys.readouterr()
        assert main(["forget", "status", str(target)]) == 1
        assert f"{run}: {NOT_THERE}" in capsys.readouterr().out
    assert forget_data(home, stopped, "--plan") == 2
    assert "no run of the data" in capsys.readouterr().err
    assert main(["forget", str(home)]) == 1, "it may have been moved"
    assert "erased: nothing stands" not in capsys.readouterr().out
    assert outside.exists()
    assert main(["forget", str(home), "--deleted", str(home)]) == 2
    assert "it is still there" in capsys.readouterr().err
    assert main(["forget", str(home), "--deleted", str(home / "ran")]) == 2
    assert "no request names it" in capsys.readouterr().err
    assert main(["forget", str(home), "--deleted", str(run)]) == 0
    assert main(["forget", "status", str(home)]) == 0
    assert NOT_THERE not in capsys.readouterr().out
    assert not outside.exists()
    assert holding(home, canary(stopped)) == set()
    (certificate,) = home.glob("erasure-*.json")
    steps = json.loads(certificate.read_text())["steps"]
    said = [s for s in steps if "as its owner says" in s.get("evidence", {}).get("what", "")]
    assert {s["place"] for s in said} == {str(run)}
    assert {s["state"] for s in steps} == {"done", "cannot be reached"}, "messages that were sent"
    assert not list(home.glob(".forget-*"))


def forget_data(home: Path, id: str, *more: str) -> int:
    return main(["forget", str(home / "data.csv"), "--ids", whom(home, id), *more])


def test_of_a_deleted_run_the_replies_that_it_shared_are_not_called_deleted(
    home: Path, stopped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, shared = home / "run", home.parent / "shared.sqlite"
    shutil.copy(run / "replay.sqlite", shared)
    with Lineage(home) as lineage:
        (request,) = lineage.requests()
        for number, step in enumerate(request.steps):
            if step.kind == ArtifactKind.ANSWER:
                lineage.move(request.id, number, step.state, note=str(shared))
    shutil.rmtree(run)
    capsys.readouterr()
    assert main(["forget", str(home), "--deleted", str(run)]) == 1
    assert f"{shared} has replies that it had asked for" in capsys.readouterr().out
    shared.unlink()
    assert main(["forget", str(home), "--deleted", str(run)]) == 0


def test_a_data_file_that_was_deleted_since_is_done_with_by_its_owners_word(
    made: Path, home: Path, stopped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, about = home / "data.csv", home / "run" / "run.json"
    about.write_text(about.read_text().replace(str(made), str(home)))  # it is no copy
    data.unlink()
    assert main(["forget", str(home / "run")]) == 4
    assert "say with --deleted that it was deleted" in capsys.readouterr().err
    assert main(["forget", str(home / "run"), "--deleted", str(data)]) == 0
    assert holding(home, canary(stopped)) == set()


def test_a_folder_for_training_that_holds_the_data_is_not_deleted_whole(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (id,) = ids_in(home / "run", "train")
    with Lineage(home / "run") as lineage:
        (data,) = (a for a in lineage.standing() if a.kind is ArtifactKind.DATA)
        there = Artifact(id="trial/a/small/checkpoints", kind=ArtifactKind.STATE, place=str(home))
        lineage.note(there, MadeFrom(artifacts=frozenset({data.id})))
    assert forget(home, id, more=("--no-retrain",)) == 1
    said = capsys.readouterr().out
    assert f"{home} is not deleted, as " in said
    assert (home / "data.csv").exists()
    assert holding(home, canary(id)) == set()
