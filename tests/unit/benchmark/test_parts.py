"""Keys lie beside the recorded answers, unless the plan says where."""

from __future__ import annotations

from pathlib import Path

from cosilo.benchmark.parts import keyed
from cosilo.session import DefenceConfig, PointConfig


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
