"""What was made of a whole file, or serves a folder, is found by where that is."""

from __future__ import annotations

import os
from pathlib import Path

from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.beside import fitted_in, fitted_of, note_fitted, note_serving, serving
from cosilo.lineage.processes import this_process
from cosilo.lineage.store import Lineage, has_lineage


def test_what_was_made_of_a_file_is_found_by_the_file_alone(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "deep" / "two.txt"
    two.parent.mkdir()
    for file in (one, two):
        file.write_text("{}")
    out = tmp_path / "out"
    assert fitted_of(one) == ()
    assert note_fitted(out, [one, two, one]) == []
    assert note_fitted(tmp_path / "other", [two]) == []
    for file, places in ((one, {out}), (two, {out, tmp_path / "other"})):
        found = fitted_of(file)
        assert {file.parent / a.place for a in found} == places, "moved with the file, or absolute"
        assert {a.kind for a in found} == {ArtifactKind.WEIGHTS}
    with Lineage(tmp_path) as lineage:
        lineage.gone(fitted_of(one)[0].id, "deleted")
    assert fitted_of(one) == ()
    assert fitted_of(tmp_path / "three.txt") == ()


def test_of_a_folder_only_what_cosilo_fit_makes_is_found(tmp_path: Path) -> None:
    assert fitted_in(tmp_path / "none") == []
    made = ("model.gguf", ".model.gguf.7", "measured.json", "point.toml", "work/found.json")
    for name in (*made, "data.csv", "lineage.sqlite", "models/other.gguf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    names = {path.name for path in fitted_in(tmp_path)}
    assert names == {"model.gguf", ".model.gguf.7", "measured.json", "point.toml", "work"}


def test_processes_that_serve_a_bundle_are_noted_beside_it(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert serving(bundle) == ()
    here = this_process(os.getpid())
    ended = here.replace(f"process {os.getpid()} ", "process 4194303 ")
    assert note_serving(bundle, ended)
    assert note_serving(bundle, here)
    assert [a.place for a in serving(bundle)] == [here], "one that has ended serves no more"
    assert serving(tmp_path / "another") == ()
    assert not list(bundle.iterdir()), "a bundle's own folder holds its own files"


def test_a_bundle_in_its_run_stays_made_by_what_the_run_noted(tmp_path: Path) -> None:
    kind = ArtifactKind.BUNDLE
    made = Artifact(id=f"{kind}/b", kind=kind, place="b", made_by="point p")
    with Lineage(tmp_path) as lineage:
        lineage.note(made, MadeFrom())
    assert note_serving(tmp_path / "b", this_process(os.getpid()))
    with Lineage(tmp_path, write=False) as lineage:
        (bundle,) = (a for a in lineage.standing() if a.kind is kind)
    assert bundle.made_by == "point p"


def test_where_nothing_can_be_written_nothing_is_noted(tmp_path: Path) -> None:
    (tmp_path / "lineage.key").mkdir()  # no key can be made there
    (tmp_path / "one.txt").write_text("")
    assert note_fitted(tmp_path / "out", [tmp_path / "one.txt"]) == [tmp_path / "one.txt"]
    assert not note_serving(tmp_path / "bundle", this_process(1))
    assert not has_lineage(tmp_path)


def test_in_a_run_that_notes_nothing_no_lineage_is_begun(tmp_path: Path) -> None:
    """With one, it would no longer count as made from all of its records."""
    (tmp_path / "run.sqlite").write_text("")
    (tmp_path / "one.txt").write_text("")
    assert note_fitted(tmp_path / "out", [tmp_path / "one.txt"]) == [tmp_path / "one.txt"]
    assert not note_serving(tmp_path / "bundle", this_process(os.getpid()))
    assert not has_lineage(tmp_path)
