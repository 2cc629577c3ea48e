"""Keys lie beside the recorded answers; which records have gold targets, and how they were chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.benchmark.parts import _computed_by, keyed, make_owner
from cosilo.benchmark.plan import parse_plan
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.session import DefenceConfig, PointConfig
from cosilo.tasks.config import load_task


def test_what_derives_from_a_key_gets_one_in_the_folder(tmp_path: Path) -> None:
    hide = DefenceConfig("hide", "pseudonym")
    point = keyed(PointConfig("p", "private_evolution", {"about": "notes"}, (hide,)), tmp_path)
    assert point.options == {"about": "notes", "key_file": tmp_path / "private_evolution.key"}
    assert point.defences[0].options == {"key_file": tmp_path / "pseudonym.key"}


def test_a_key_that_the_plan_names_stays_and_others_get_none(tmp_path: Path) -> None:
    mine = {"key_file": Path("/keys/mine.key")}
    point = PointConfig("p", "private_evolution", mine, (DefenceConfig("h", "pseudonym", mine),))
    assert keyed(point, tmp_path) == point
    assert keyed(PointConfig("p", "large"), tmp_path) == PointConfig("p", "large")


def test_checkpoints_lie_in_the_folder_for_each_point_apart(tmp_path: Path) -> None:
    one, other = (keyed(PointConfig(name, "federated"), tmp_path) for name in ("a/b", "c"))
    assert one.options["checkpoints"].is_relative_to(tmp_path / "checkpoints")
    assert one.options["checkpoints"].parent == other.options["checkpoints"].parent
    assert one.options != other.options
    mine = PointConfig("p", "federated", {"checkpoints": Path("/mine"), "key_file": Path("/k")})
    assert keyed(mine, tmp_path) == mine


def owner(folder: Path, rows: list[str], task: str = "", small: str = "") -> DataOwner:
    """The owner of `rows` as training data, each with a label."""
    (folder / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "test.csv").write_text("text,label\n" + "some other text,a\n" * 3)
    text = f"""name = "x"
        [task]
        kind = "classification"
        train = "train.csv"
        test = "test.csv"
        split = {{ train = 0.8, tune = 0.1, validation = 0.05, certificate = 0.05 }}
        {task}
        [models.small]
        kind = "scripted"
        {small}
        [models.large]
        kind = "scripted"
        [[points]]
        strategy = "large"
    """
    plan = parse_plan(text, folder / "plan.toml")
    return make_owner(plan, load_task(plan.task, plan.base), ScriptedModel(), None)


ROWS = [f"message {i} about {'ab'[i % 2]},{'ab'[i % 2]}" for i in range(100)]


@pytest.mark.parametrize(
    ("task", "small", "chosen"),
    [
        ("", "", "all"),
        ("", "train_items = 30", "first"),
        ("", "train_items = 1000", "all"),  # one record more and it still is more than there are
        ("max_items = 20", "", "sampled"),
        ("max_items = { train = 20 }", "train_items = 10", "sampled"),
        ("max_items = { test = 2, tune = 5 }", "", "all"),
        ("max_items = { test = 2 }", "train_items = 10", "first"),
        ("max_items = { train = 1000 }", "train_items = 30", "first"),
    ],
)
def test_how_records_were_chosen_is_known(
    tmp_path: Path, task: str, small: str, chosen: str
) -> None:
    assert owner(tmp_path, ROWS, task, small).chosen == chosen


def test_a_limit_that_is_just_reached_chooses_too(tmp_path: Path) -> None:
    count = len(owner(tmp_path, ROWS).private)
    assert owner(tmp_path, ROWS, small=f"train_items = {count + 1}").chosen == "all"
    assert owner(tmp_path, ROWS, small=f"train_items = {count}").chosen == "first"
    assert owner(tmp_path, ROWS, f"max_items = {{ train = {count} }}").chosen == "sampled"


@pytest.mark.parametrize("place", [0, 50, 100])
def test_of_the_first_so_many_at_most_one_goes_and_one_comes(tmp_path: Path, place: int) -> None:
    def texts(rows: list[str]) -> set[str]:
        found = owner(tmp_path, rows, small="train_items = 30")
        return {e.chat[-1].content for e in found.private}

    before = texts(ROWS)
    for k in range(8):
        after = texts([*ROWS[:place], f"extra {k} about a,a", *ROWS[place:]])
        assert len(after - before) <= 1
        assert len(before - after) <= 1


def test_another_processor_computes_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one name: what was trained on one is not taken for what would be trained on the other."""
    found = []
    for flags in ("avx2", "avx2 avx512f"):
        cores = "".join(f"model name : X\ncpu MHz : {n}\nflags : {flags}\n" for n in range(2))
        monkeypatch.setattr(Path, "read_text", lambda *_, cores=cores: cores)
        found.append(next(_computed_by()))
    assert found[0] != found[1]
