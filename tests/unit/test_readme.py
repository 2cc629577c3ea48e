"""What the README shows is what the program takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import cosilo
from cosilo.benchmark.plan import parse_plan
from cosilo.cli import make_parser
from cosilo.defences.base import defences
from cosilo.strategies.base import strategies

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


def test_the_readme_names_every_strategy_and_defence_of_ours() -> None:
    text = README.read_text(encoding="utf-8")
    for registry in (strategies, defences):
        for name in registry.names():
            ours = registry.get(name).__module__.startswith("cosilo.")
            assert not ours or f"`{name}`" in text, name


def test_the_extras_and_the_wheel_in_the_readme_are_ours() -> None:
    text = README.read_text(encoding="utf-8")
    project = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    named = {e for group in re.findall(r"\[([a-z,]+)\]'", text) for e in group.split(",")}
    table = set(re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", text, re.MULTILINE))
    listed = {e for row in table for e in re.findall(r"[a-z]+", row)}
    assert named | listed <= extras
    assert listed == extras - {"dp"}  # a second opinion on the accountant, in its own tests
    assert f"cosilo-{cosilo.__version__}-py3-none-any.whl" in text


def test_the_readmes_first_command_is_run_by_ci_from_nothing() -> None:
    ci = (README.parent / ".ci" / "run").read_text()
    first = re.search(r"^    (make \w+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert f'HOME="$fresh/home" {first.group(1)}' in ci
    assert "report.html" in ci


def test_a_users_install_has_nothing_that_only_developers_need() -> None:
    """What `make demo` installs, all that it brings by name included."""
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    makefile = (README.parent / "Makefile").read_text()
    asked = re.search(r"install .*-e '\.\[([a-z,]+)\]'", makefile)
    assert asked is not None
    wanted = " ".join(line for extra in asked.group(1).split(",") for line in extras[extra])
    for package in ("torch", "transformers", "ruff", "mypy", "pytest", "selenium", "openai"):
        assert package not in wanted


def test_no_page_installs_from_an_index_that_does_not_have_it() -> None:
    for page in [README, *(README.parent / "docs").glob("*.md")]:
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install [^.]*'cosilo\[", line), f"{page.name}: {line}"
