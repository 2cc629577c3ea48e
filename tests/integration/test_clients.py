"""The recipes of docs/clients, run as they stand."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from clients import run as recipes

HERE = [name for name in recipes.names() if find_spec(name) is not None]


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_a_recipe_prints_what_its_page_says_and_nothing_private_leaves(
    name: str, tmp_path: Path
) -> None:
    assert recipes.run(recipes.read(name), sys.executable, tmp_path) == []


@pytest.mark.models
@pytest.mark.slow
def test_what_a_recipe_shows_the_model_or_prints_otherwise_is_noticed(tmp_path: Path) -> None:
    """The same code without the defence: all that it holds is seen, and the headers say so."""
    page = recipes.read("openai")
    bare = recipes.read("README").files["gateway.toml"].replace('defences = ["hide"]', "")
    page.files["gateway.toml"] = bare
    page.code = [*page.code[:2], ("print('something else')", "something")]
    wrong = recipes.run(page, sys.executable, tmp_path)
    assert len(wrong) == 2
    assert "printed\nsomething else" in wrong[0]
    assert "the large model saw Ottilie, Katzenstein, ottilie.katzenstein@" in wrong[1]


def test_the_clients_that_ci_runs_are_there() -> None:
    assert {"openai", "anthropic"} & set(recipes.names()) <= set(HERE)


def test_every_page_is_in_the_index_and_pins_what_it_installs() -> None:
    index = (recipes.PAGES / "README.md").read_text("utf-8")
    for name in recipes.names():
        assert f"({name}.md)" in index
        packages = recipes.read(name).packages
        assert packages
        assert all("==" in package for package in packages)
