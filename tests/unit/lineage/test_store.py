"""The file of what was made from what: found again, written by several, private without its key."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest

from cosilo.errors import ConfigError, StoreError
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.graph import LineageGraph
from cosilo.lineage.requests import Evidence, ForgetStep, Method, StepState
from cosilo.lineage.store import FILE, KEY, Lineage, has_lineage

HEAD = Artifact(id="trial/1/head", kind=ArtifactKind.HEAD, place="run.sqlite#cards")
BUNDLE = Artifact(id="bundle/1", kind=ArtifactKind.BUNDLE, place="/out", made_by="cosilo bundle")
TRAIN = MadeFrom(sets=frozenset({"train"}))
OF_HEAD = MadeFrom(artifacts=frozenset({HEAD.id}))


def made_of(folder: Path) -> Lineage:
    lineage = Lineage(folder)
    lineage.gather("train", ["ada", "bob"])
    lineage.gather("tune", ["cyd"])
    lineage.note(HEAD, TRAIN)
    lineage.note(BUNDLE, OF_HEAD)
    return lineage


def ids(found: tuple[Artifact, ...]) -> list[str]:
    return [artifact.id for artifact in found]


def test_what_was_made_from_a_record_is_found_over_sets_and_artifacts(tmp_path: Path) -> None:
    with made_of(tmp_path) as lineage:
        assert ids(lineage.derived(["ada"])) == [HEAD.id, BUNDLE.id]
        assert lineage.derived(["cyd"]) == lineage.derived(["nobody"]) == ()
        prompt = Artifact(id="prompt", kind=ArtifactKind.PROMPT)
        lineage.note(prompt, MadeFrom(records=frozenset({"cyd"}), sets=frozenset({"train"})))
        assert ids(lineage.derived(["cyd"])) == ["prompt"]
        assert ids(lineage.derived(["bob", "cyd"])) == [HEAD.id, BUNDLE.id, "prompt"]
        assert lineage.sources("prompt") == TRAIN
        assert lineage.sets_of("ada") == {"train"}
        assert [lineage.knows(r) for r in ("ada", "cyd", "nobody")] == [True, True, False]
    with Lineage(tmp_path, write=False) as again:
        found = again.derived(["bob"])
        assert [(a.kind, a.place, a.made_by) for a in found[:2]] == [
            (ArtifactKind.HEAD, "run.sqlite#cards", ""),
            (ArtifactKind.BUNDLE, "/out", "cosilo bundle"),
        ]
        with pytest.raises(StoreError, match="readonly"):
            again.gather("train", ["eve"])


def test_the_graph_has_the_ways_and_counts_records(tmp_path: Path) -> None:
    with made_of(tmp_path) as lineage:
        prompt = Artifact(id="prompt", kind=ArtifactKind.PROMPT)
        lineage.note(prompt, MadeFrom(records=frozenset({"cyd", "ada"}), sets=frozenset({"tune"})))
        lineage.gone(HEAD.id, "deleted")
        found = lineage.graph(["ada"])
        assert ids(found.artifacts) == [HEAD.id, BUNDLE.id, "prompt"]
        assert found.artifacts[0].gone == "deleted"
        assert [(s.name, s.records, s.size) for s in found.sets] == [("train", 1, 2)]
        assert (found.alone, found.from_alone) == (1, {"prompt"})
        assert found.from_sets == {("train", HEAD.id)}
        assert found.from_artifacts == {(HEAD.id, BUNDLE.id)}
        every = lineage.graph()
        assert [(s.name, s.records, s.size) for s in every.sets] == [
            ("train", 2, 2),
            ("tune", 1, 1),
        ]
        assert every.from_sets == {("train", HEAD.id), ("tune", "prompt")}
        assert every.alone == 2
        assert lineage.graph(["nobody"]) == lineage.graph([]) == LineageGraph(artifacts=())


def test_what_is_gone_is_found_no_more_but_what_was_made_from_it_is(tmp_path: Path) -> None:
    with made_of(tmp_path) as lineage:
        lineage.gone(HEAD.id, "deleted")
        assert ids(lineage.derived(["ada"])) == [BUNDLE.id]
        lineage.gather("less", ["bob"])
        lineage.note(HEAD, MadeFrom(sets=frozenset({"less"})))  # made anew, without ada
        assert ids(lineage.derived(["ada"])) == [BUNDLE.id]
        assert ids(lineage.derived(["bob"])) == [BUNDLE.id, HEAD.id]
        assert ids(lineage.standing()) == [BUNDLE.id, HEAD.id]


def test_sources_add_up_and_must_be_known_and_form_no_circle(tmp_path: Path) -> None:
    with made_of(tmp_path) as lineage:
        lineage.note(HEAD, MadeFrom(sets=frozenset({"tune"})))
        assert ids(lineage.derived(["cyd"])) == ids(lineage.derived(["ada"]))
        for unknown in (
            MadeFrom(sets=frozenset({"test"})),
            MadeFrom(artifacts=frozenset({"trial/2"})),
        ):
            with pytest.raises(StoreError, match="knows no"):
                lineage.note(BUNDLE, unknown)
        with pytest.raises(StoreError, match="made from itself"):
            lineage.note(HEAD, MadeFrom(artifacts=frozenset({BUNDLE.id})))
        with pytest.raises(StoreError, match="made from itself"):
            lineage.note(HEAD, OF_HEAD)
        with pytest.raises(StoreError, match="knows no"):
            lineage.gone("trial/2", "deleted")
        assert ids(lineage.derived(["ada"])) == [HEAD.id, BUNDLE.id]


def test_without_its_key_the_file_says_nothing_of_who_is_in_it(tmp_path: Path) -> None:
    made_of(tmp_path).close()
    held = b"".join(f.read_bytes() for f in tmp_path.glob(f"{FILE}*"))
    for record in (b"ada", b"bob", b"cyd"):
        guesses = [record, *(hashlib.new(h, record).digest() for h in ("sha256", "md5", "sha1"))]
        assert not any(guess[:8] in held for guess in guesses)
    assert (tmp_path / KEY).read_bytes()[:8] not in held
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    other = tmp_path / "other"
    with made_of(other) as there, Lineage(tmp_path) as here:
        assert there.name("ada") != here.name("ada")
    (tmp_path / KEY).unlink()
    with pytest.raises(StoreError, match=r"key .* is gone"):  # and no new one is made in its place
        Lineage(tmp_path)
    (other / KEY).chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        Lineage(other)


def test_a_folder_without_a_lineage_is_told_as_such(tmp_path: Path) -> None:
    assert not has_lineage(tmp_path)
    with pytest.raises(StoreError, match="nothing notes"):
        Lineage(tmp_path, write=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    (tmp_path / KEY).touch(mode=0o600)
    (tmp_path / KEY).write_bytes(bytes(32))
    with pytest.raises(StoreError, match="cannot be used"):
        Lineage(tmp_path)


def test_a_request_is_kept_whole_and_erased_only_when_every_step_is_done(tmp_path: Path) -> None:
    steps = [
        ForgetStep(method=Method.DELETE, artifact=HEAD.id, kind=ArtifactKind.HEAD),
        ForgetStep(method=Method.ASK, note="the owner of lm"),
    ]
    with made_of(tmp_path) as lineage:
        asked = lineage.begin([lineage.name("ada"), lineage.name("bob")], steps)
        with pytest.raises(StoreError):
            lineage.begin([lineage.name("cyd")], steps, id=asked.id)
        lineage.move(asked.id, 0, StepState.DOING)
        lineage.move(asked.id, 0, StepState.DONE, evidence=Evidence(what="rows", count=3))
        lineage.move(asked.id, 1, StepState.OPEN, deadline=5.0)
    with Lineage(tmp_path) as lineage:
        (found,) = lineage.requests()
        assert (found.id, found.records, len(found.id)) == (asked.id, 2, 32)
        assert found.steps[0].evidence == Evidence(what="rows", count=3)
        assert [s.deadline for s in found.standing] == [5.0]
        assert not found.erased
        assert lineage.forgotten() == {lineage.name("ada"), lineage.name("bob")}
        assert lineage.names_of(found.id) == lineage.forgotten()
        lineage.move(found.id, 1, StepState.UNREACHABLE)
        assert not lineage.requests()[0].erased
        lineage.move(found.id, 1, StepState.DONE)
        assert lineage.requests()[0].erased
        with pytest.raises(StoreError, match="no step 2"):
            lineage.move(found.id, 2, StepState.DONE)


def write_many(folder: Path, writer: int) -> None:
    with Lineage(folder) as lineage:
        for n in range(8):
            lineage.gather("shared", [f"{writer}-{n}"])
            lineage.note(
                Artifact(id=f"{writer}/{n}", kind=ArtifactKind.HEAD),
                MadeFrom(records=frozenset({f"{writer}-{n}"}), sets=frozenset({"shared"})),
            )


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write_many, args=(tmp_path, i)) for i in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    with Lineage(tmp_path, write=False) as lineage:
        assert len(lineage.standing()) == 16
        assert len(lineage.derived(["0-3"])) == 16  # a set is what all said of it
        assert lineage.knows("1-7")


def die_noting(folder: Path) -> None:
    lineage = Lineage(folder)
    lineage.note(Artifact(id="before", kind=ArtifactKind.HEAD), TRAIN)

    class Dying(sqlite3.Connection):
        def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
            if statement == "COMMIT":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(statement, *parameters)  # type: ignore[arg-type]

    lineage._db = sqlite3.connect(lineage.path, isolation_level=None, factory=Dying)
    lineage.note(Artifact(id="half", kind=ArtifactKind.HEAD), TRAIN)


def test_a_kill_before_the_commit_leaves_nothing_of_a_note_and_all_before_it(
    tmp_path: Path,
) -> None:
    made_of(tmp_path).close()
    process = multiprocessing.get_context("fork").Process(target=die_noting, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with Lineage(tmp_path) as lineage:
        assert ids(lineage.derived(["ada"])) == [HEAD.id, BUNDLE.id, "before"]
        lineage.note(
            Artifact(id="half", kind=ArtifactKind.HEAD), TRAIN
        )  # nothing is held or broken
        assert len(lineage.derived(["ada"])) == 4
