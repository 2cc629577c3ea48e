"""What docs/architecture.md calls a file or a folder of the package is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cosilo"
PATH = re.compile(r"`([\w/]+(?:/|\.py))`")


def tree() -> list[str]:
    """The rows of the tree's table."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = text.partition("## The tree")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def named(row: str) -> list[str]:
    """The paths in `row`; those of its second cell lie in the folder of its first."""
    first, second = row.strip("| ").split(" | ", 1)
    folders = PATH.findall(first)
    return folders + [folders[0] + inner for inner in PATH.findall(second)]


def is_there(path: str) -> bool:
    found = PACKAGE / path
    return found.is_dir() if path.endswith("/") else found.is_file()


@pytest.mark.parametrize("path", [path for row in tree() for path in named(row)])
def test_what_the_table_names_exists(path: str) -> None:
    assert is_there(path), f"docs/architecture.md names {path}, which src/cosilo does not have"


def test_every_part_of_the_package_is_in_the_table() -> None:
    parts = {
        path.name + "/" * path.is_dir()
        for path in PACKAGE.iterdir()
        if not path.name.startswith(("_", ".")) and (path.suffix == ".py" or path.is_dir())
    }
    assert parts == {path for row in tree() for path in named(row) if "/" not in path[:-1]}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_elsewhere_on_the_page_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8").partition("## The tree")
    rest = text[0] + text[2].partition("\n## ")[2]
    for path in PATH.findall(rest):
        assert is_there(path) or (ROOT / path).exists(), path


@pytest.mark.parametrize("path", ["selection.py", "gateway.py", "types/", "report/page.py"])
def test_a_file_that_is_a_package_is_noticed(path: str) -> None:
    assert not is_there(path)
