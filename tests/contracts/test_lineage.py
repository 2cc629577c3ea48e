"""What a strategy leaves in its run's folder, and beside it, is made from records that lead to it."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import cosilo.strategies
from a_writer import SUBJECTS
from bag import Bag
from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.strategies.base import strategies
from cosilo.types import Chat, last_user
from made_from_records import all_named
from tiny_run import bench

POINTS = {
    "small": "",
    "large": "",
    "supericl": "examples = 4",
    "distil_labels": "",
    "narrow_labels": "",
    "step_by_step": "",
    "zerogen": "each = 4",
    "progen": "each = 4",
    "fusegen": "each = 4",
    "paraphrase": "each = 1",
}
"""Those that scripted models are enough for, and their options."""

INFERENCE = "test_all_inference_strategies"
ELSEWHERE = {
    "automix": INFERENCE, "cascade": INFERENCE, "decompose": INFERENCE,
    "decompose_tables": INFERENCE, "ensemble": INFERENCE, "fusion": INFERENCE,
    "infer_dp": INFERENCE, "offset": INFERENCE, "proxy": INFERENCE, "rerank": INFERENCE,
    "retrieve": INFERENCE, "rewrite": INFERENCE, "router": INFERENCE, "sketch": INFERENCE,
    "speculative": INFERENCE, "split": INFERENCE,
    "secure_head": "test_secure_head",
    "secure_adapter": "test_secure_bench", "secure_forward": "test_secure_bench",
    "private_evolution": "test_private_evolution",
    "distil_logits": "test_bench_torch", "distil_across": "test_bench_torch",
    "distil_states": "test_bench_torch",
    "offsite": "test_offsite", "split_learning": "test_split_learning",
    "weak_to_strong": "test_weak_to_strong", "crosslm": "test_crosslm",
    "federated": "test_federation", "fedcollm": "test_fedcollm", "fedmkt": "test_fedmkt",
}  # fmt: skip
"""Those that need other models: the tests in which a run of theirs is made within `all_named`."""

WRITERS = {
    "denoiser", "inference/pairwise", "inference/voting",
    "inference/energy", "inference/stacking", "inference/gain",
    # `save`, of what preparing made: a bundle's, which is noted as such
    "federating/files", "federating/scalars", "federating/summing",
    # in `checkpoints`, which a trial's note names
    "documents/index", "documents/share",
    # of the owner's documents, which are no records; counts of what has left
}  # fmt: skip
"""Modules below `strategies` that write files."""


def test_every_registered_strategy_is_looked_at() -> None:
    assert {*POINTS, *ELSEWHERE} == set(strategies.names())
    folder = Path(__file__).parents[1] / "integration"
    for module in set(ELSEWHERE.values()):
        assert "with all_named(" in (folder / f"{module}.py").read_text("utf-8")


def write_rows(folder: Path) -> None:
    rows = [
        {"text": f"{colour} text about {label} {i}", "label": label}
        for i in range(20)
        for label in ("cat", "dog")
        for colour in ("green", "blue")
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


_CATEGORY = re.compile(r"label '(cat|dog)'")


def _says(chat: Chat) -> str:
    """Texts where it is asked for texts of a category, else a label."""
    if found := _CATEGORY.search(chat[-1].content):
        return "\n".join(f"{s} animal is a {found[1]}" for s in SUBJECTS)
    return "cat" if "cat" in last_user(chat).rpartition("about")[2] else "dog"


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models._factories, "bag", Bag)
    monkeypatch.setitem(models._factories, "writer", lambda: ScriptedModel(_says, 0.9))


def test_what_scripted_models_are_taught_and_say(tmp_path: Path) -> None:
    plan = PLAN + "".join(f'[[points]]\nstrategy = "{n}"\n{more}\n' for n, more in POINTS.items())
    write_rows(tmp_path)
    with all_named(tmp_path):
        outcomes, _ = bench(tmp_path, plan)
    assert {o.point.name: str(o.error) for o in outcomes if o.error} == {}


def test_a_file_that_no_record_leads_to_is_told(tmp_path: Path) -> None:
    plan = PLAN + '[[points]]\nstrategy = "small"\n'
    write_rows(tmp_path)

    def benched() -> None:
        with all_named(tmp_path):
            bench(tmp_path, plan)
            (tmp_path / "run" / "head.npz").write_bytes(b"0")

    with pytest.raises(AssertionError, match=r"head\.npz"):
        benched()


@pytest.mark.parametrize("name", strategies.names())
def test_what_preparing_sets_can_be_read_off_the_strategy(name: str) -> None:
    """A lineage names the options that preparing set: those of a dataclass."""
    assert is_dataclass(strategies.get(name))


def test_every_module_of_strategies_that_writes_files_is_known() -> None:
    root = Path(inspect.getfile(cosilo.strategies)).parent
    found = {
        file.relative_to(root).with_suffix("").as_posix()
        for file in root.rglob("*.py")
        if any(map(_writes, ast.walk(ast.parse(file.read_text("utf-8")))))
    }
    assert found == WRITERS, "what it writes is noted in the lineage, or of no record"


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    named = node.func
    called = named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")
    return called in ("write_text", "write_bytes", "mkdir", "made_private", "savez", "save_file")


PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
file = "data.jsonl"
columns = {text = "text", target = "label"}
[models.small]
kind = "bag"
train = true
[models.large]
kind = "writer"
exposes = "logprobs"
"""
