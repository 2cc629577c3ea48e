"""A run moves, and a point leaves it: what is served stays what was measured."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.served import served

from cosilo.benchmark.reopen import reopen
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.bundle import read_bundle
from cosilo.cli import main
from cosilo.cli.serve import _layout
from cosilo.errors import ConfigError, CosiloError, DataError
from cosilo.gateway.serving.points import open_recipe
from cosilo.models import catalog
from cosilo.types import Turn
from house import open_tab

pytestmark = pytest.mark.timeout(300)

SCRIPTED = """
kind = "scripted"
confidence = 0.5
replies = {cat = "cat", dog = "cow", cow = "cow"}
"""
PLAN = """
name = "desk"
[attacks]
names = ["confidence"]
tamper_share = 0
published = {published}
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
{small}
[models.large]
kind = "scripted"
replies = {{cat = "cat", dog = "dog", cow = "cow"}}
usd_per_m_in = 1.0
[request_budget]
usd = 0.5
[defences.hide]
kind = "pseudonym"
detectors = ["patterns"]
{points}
"""
QUESTIONS = (
    "Ada saw a cat",
    "Bob's dog, see bob@example.org",
    "a cow",
    "nothing at all",
    "cat dog",
)


def point(strategy: str, more: str = "") -> str:
    return f'[[points]]\nstrategy = "{strategy}"\n{more}\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "project", random.Random(0)
    folder.mkdir()
    rows = [
        {"text": f"{rng.choice(('Ada', 'Bob'))} saw a {label} on day {i} of it", "label": label}
        for i, label in enumerate(rng.choices(("cat", "dog", "cow"), k=260))
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def bench(project: Path, points: str, *, small: str = SCRIPTED, published: bool = False) -> Path:
    plan = project / "desk.toml"
    said = str(published).lower()
    plan.write_text(PLAN.format(points=points, small=small, published=said))
    assert main(["bench", str(plan), "--yes"]) == 0
    return project / "runs" / "desk"


def answers(source: Path, *names: str) -> list[object]:
    """What the gateway would answer to `QUESTIONS`: text, by whom, how sure."""

    async def ask() -> list[object]:
        parts = _layout(Namespace(source=source, point=list(names), config=None)).load()
        opened = await open_recipe(
            parts.recipes[0], parts.upstreams, tabs={"": open_tab()}, ledger=MemoryLedger()
        )
        found: list[object] = []
        for text in QUESTIONS:
            chat = (Turn("system", opened.system), Turn("user", text))
            route = opened.routes[0]
            reply = await route.strategy.answer(route.session, chat)
            found.append((reply.generation.text, reply.by, reply.confidence))
        await parts.recipes[0].owner.model.close()
        for recorded in parts.recipes[0].answers.values():
            await recorded.close()
        return [*found, opened.system, opened.sampling, opened.budget]

    return asyncio.run(ask())


def bundle(run: Path, name: str, out: Path, *flags: str) -> int:
    return main(["bundle", str(run), "--point", name, str(out), *flags])


# ── a run moves ──────────────────────────────────────────────────────────────

MOVES: dict[str, Callable[[Path, Path], Path]] = {
    "the run alone": lambda run, to: run.rename(to / "elsewhere"),
    "all of the project": lambda run, to: run.parents[1].rename(to / "new") / "runs" / "desk",
    "a copy, and the data are gone": lambda run, to: _copy_without_data(run, to),
    "renamed": lambda run, to: run.rename(run.with_name("renamed")),
}


def _copy_without_data(run: Path, to: Path) -> Path:
    copy = shutil.copytree(run, to / "copy")
    shutil.rmtree(run.parents[1])
    return Path(copy)


@pytest.mark.parametrize("how", MOVES)
def test_a_run_that_moved_serves_and_is_read_as_before(
    project: Path, tmp_path: Path, how: str
) -> None:
    run = bench(project, point("cascade") + point("router", "calls = 0.4"))
    before = [answers(run, "cascade"), answers(run, "router")]
    now = MOVES[how](run, tmp_path)
    assert [answers(now, "cascade"), answers(now, "router")] == before
    assert main(["select", str(now), "--limit", "calls=1"]) in (0, 5)
    assert main(["report", str(now)]) == 0
    assert main(["attack", str(now)]) == 0


def test_a_folder_that_holds_neither_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").mkdir()  # what is left of a bundle whose description is gone
    for names in ([], ["--point", "small"]):
        assert main(["serve", str(tmp_path), *names]) == 2
        said = capsys.readouterr().err
        assert "neither a run nor a bundle: it has no run.sqlite and no bundle.json" in said


def test_data_that_changed_where_they_were_are_told(project: Path) -> None:
    run = bench(project, point("cascade"))
    with (project / "data.jsonl").open("a") as file:
        file.write('{"text": "one more cat", "label": "cat"}\n')
    with pytest.raises(DataError, match="changed"):
        reopen(run, ["cascade"])


def test_the_data_of_others_are_not_taken_for_the_runs_own(project: Path, tmp_path: Path) -> None:
    run = bench(project, point("cascade"))
    before = answers(run, "cascade")
    other = tmp_path / "other" / "runs"
    other.mkdir(parents=True)
    (other.parent / "data.jsonl").write_text('{"text": "x", "label": "cat"}\n')
    shutil.rmtree(project / "x", ignore_errors=True)
    moved = run.rename(other / "desk")
    (project / "data.jsonl").unlink()
    assert answers(moved, "cascade") == before


def test_answers_that_were_left_behind_are_told(project: Path) -> None:
    run = bench(project, point("cascade"))
    (run / "replay.sqlite").unlink()
    with pytest.raises(ConfigError, match="recorded answers"):
        reopen(run, ["cascade"])
    assert not (run / "replay.sqlite").exists()


# ── a point leaves its run ───────────────────────────────────────────────────

POINTS = {
    "small": point("small"),
    "large": point("large"),
    "large+hide": point("large", 'defences = ["hide"]'),
    "cascade": point("cascade"),
    "router": point("router", "calls = 0.4"),
    "distil_labels": point("distil_labels", 'then = "cascade"\nthen_options = {calls = 0.5}'),
}


def test_each_kind_of_point_answers_alike_without_its_run(project: Path, tmp_path: Path) -> None:
    run = bench(project, "".join(POINTS.values()))
    expected = {name: answers(run, name) for name in POINTS}
    moved = run.rename(tmp_path / "moved")
    shutil.rmtree(project)
    for name in POINTS:
        assert bundle(moved, name, tmp_path / "out" / name) == 0
    shutil.rmtree(moved)
    (tmp_path / "out").rename(tmp_path / "placed")
    for name in POINTS:
        place = tmp_path / "placed" / name
        assert answers(place) == expected[name], name
        for path in (place, *place.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600)


@pytest.mark.skipif(not catalog.is_here("minilm-int8"), reason="needs minilm-int8")
@pytest.mark.parametrize("published", [False, True])
def test_a_trained_classifier_is_in_the_bundle_with_its_membership(
    project: Path, tmp_path: Path, published: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    small = 'kind = "classifier"\nfeatures = "embedding"\ntrain = true'
    run = bench(project, point("cascade", "calls = 0.3"), small=small, published=published)
    expected = answers(run, "cascade")
    (project / "data.jsonl").unlink()
    capsys.readouterr()
    assert bundle(run, "cascade", tmp_path / "out") == 0
    said = capsys.readouterr().out
    shutil.rmtree(project)
    assert answers(tmp_path / "out") == expected
    found = read_bundle(tmp_path / "out")
    assert (tmp_path / "out" / "small" / "head.npz").is_file()
    assert not list((tmp_path / "out").rglob("*.pkl"))
    membership = found.about["model_membership"]
    assert membership.startswith("AUC " if published else "not measured")
    assert membership in said


def test_prompts_that_hold_examples_are_refused_unless_they_are_wanted(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench(project, point("supericl", 'name = "shown"') + point("supericl", "examples = 0"))
    out = tmp_path / "out"
    assert bundle(run, "shown", out) == 2
    assert "--with-examples" in capsys.readouterr().err
    assert not out.exists()
    assert bundle(run, "shown", out, "--with-examples") == 0
    assert answers(out) == answers(run, "shown")
    assert bundle(run, "supericl", tmp_path / "none") == 0


def test_instructions_that_quote_the_data_are_refused(project: Path, tmp_path: Path) -> None:
    text = json.loads((project / "data.jsonl").read_text().splitlines()[0])["text"]
    plan = PLAN.replace(
        'file = "data.jsonl"', f'file = "data.jsonl"\ninstructions = "Label it, as in: {text}"'
    )
    (project / "desk.toml").write_text(
        plan.format(points=point("large"), small=SCRIPTED, published="false")
    )
    assert main(["bench", str(project / "desk.toml"), "--yes"]) == 0
    run = project / "runs" / "desk"
    assert bundle(run, "large", tmp_path / "out") == 2
    assert bundle(run, "large", tmp_path / "out", "--with-examples") == 0


def test_what_exists_is_not_overwritten_and_what_fails_leaves_nothing(
    project: Path, tmp_path: Path
) -> None:
    run = bench(project, point("large"))
    there = tmp_path / "there"
    there.mkdir()
    assert bundle(run, "large", there) == 2
    assert bundle(run, "lrge", tmp_path / "out") == 2
    assert not list(there.iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"project", "there"}


@pytest.mark.parametrize("how", ["altered", "missing", "more", "a link"])
def test_a_bundle_that_was_altered_is_refused(project: Path, tmp_path: Path, how: str) -> None:
    run, out = bench(project, point("router")), tmp_path / "out"
    assert bundle(run, "router", out) == 0
    file = out / "strategy" / "model" / "gain.json"
    if how == "altered":
        (out / "bundle.json").write_text((out / "bundle.json").read_text().replace("dog", "cat"))
    elif how == "missing":
        file.unlink()
    elif how == "more":
        (out / "small").mkdir()
        (out / "small" / "head.json").write_text("{}")
    else:
        copy = file.rename(tmp_path / "gain.json")
        os.symlink(copy, file)
    with pytest.raises(ConfigError, match="bundle"):
        read_bundle(out)


def test_a_model_file_is_known_by_its_hash(project: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import tiny_lm

    assert torch
    tiny_lm.folder(project / "tiny", layers=1)
    small = 'kind = "torch"\npath = "tiny"\nprecision = "float32"\ntrain = true\nepochs = 1'
    run = bench(project, point("small"), small=small)
    expected = answers(run, "small")
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert bundle(run, "small", out) == 0
    assert (out / "small" / "adapter_model.safetensors").is_file()
    assert answers(out) == expected
    assert bundle(run, "small", whole, "--with-models") == 0
    weights = project / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match="sha256"):
        read_bundle(out)
    with pytest.raises(CosiloError):
        reopen(run, ["small"])
    shutil.rmtree(project)
    assert answers(whole) == expected


def test_a_recorded_model_cannot_leave_its_data(project: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (project / "data.jsonl").read_text().splitlines()]
    for row in rows:
        row["said"] = row["label"]
    (project / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = PLAN.format(points=point("large"), small=SCRIPTED, published="false")
    plan = plan.replace(
        'kind = "scripted"\nreplies = {cat = "cat", dog = "dog", cow = "cow"}',
        'kind = "recorded"\nmodel = "gpt"',
    ).replace("[models.small]", '[task.columns.recorded]\ngpt = "said"\n[models.small]')
    (project / "desk.toml").write_text(plan)
    assert main(["bench", str(project / "desk.toml"), "--yes"]) == 0
    assert bundle(project / "runs" / "desk", "large", tmp_path / "out") == 2


def test_a_bundle_is_served_by_the_real_command(project: Path, tmp_path: Path) -> None:
    run = bench(project, POINTS["cascade"])
    expected = [said for said, *_ in answers(run, "cascade")[: len(QUESTIONS)]]  # type: ignore[misc]
    moved = run.rename(tmp_path / "moved")
    shutil.rmtree(project)
    command = [sys.executable, "-m", "cosilo", "bundle", str(moved), "--point", "cascade"]
    made = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(moved)
    here = tmp_path / "elsewhere"
    here.mkdir()
    shutil.move(tmp_path / "out", here / "point")
    said = []
    with served(here / "point") as client:
        for text in QUESTIONS:
            reply = client.chat.completions.create(
                model="cosilo/cascade", messages=[{"role": "user", "content": text}]
            )
            said.append(reply.choices[0].message.content)
    assert said == expected
