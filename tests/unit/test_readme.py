"""What the README shows is what the program takes."""

from __future__ import annotations

import re
from pathlib import Path

from cosilo.benchmark.plan import parse_plan
from cosilo.cli import make_parser

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_plan_in_the_readme_is_read_and_spelt_out(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    plan = parse_plan(block.group(1), tmp_path / "plan.toml")
    assert len(plan.points) == 1 + 2 + 3 * 2
    assert plan.large.price.usd_per_m_in == 2.5


def test_the_commands_in_the_readme_are_understood() -> None:
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^    cosilo ([^#\n]+)", text, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        make_parser().parse_args(command.split())


def test_the_files_the_readme_points_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
