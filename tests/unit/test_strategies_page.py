"""docs/strategies.md speaks about every strategy, and links to what exists."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

import cosilo.strategies  # noqa: F401
from cosilo.strategies.base import strategies
from cosilo.strategies.guide import DIRECTIONS, guide

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "strategies.md").read_text("utf-8")
SECTIONS = {
    found[1]: found[2]
    for found in re.finditer(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def test_each_strategy_has_a_section_and_each_section_a_strategy() -> None:
    assert set(SECTIONS) == set(strategies.names())


@pytest.mark.parametrize("name", strategies.names())
def test_a_section_says_when_what_crosses_what_it_costs_and_what_was_measured(name: str) -> None:
    for word in ("When", "Crosses", "Costs", "Measured"):
        assert f"**{word}:**" in SECTIONS[name], f"docs/strategies.md, {name}: no {word}"


@pytest.mark.parametrize("name", strategies.names())
def test_each_strategy_has_a_guide_that_names_its_folder(name: str) -> None:
    factory = strategies.get(name)
    found = guide(factory)
    assert found is not None, f"{name} has no guide"
    assert factory.__module__.split(".")[2] == found.direction
    assert found.direction in DIRECTIONS
    for line in (found.crosses, found.choose):
        assert line
        assert not line.endswith(".")
        assert "\n" not in line


def test_what_the_page_links_to_is_a_heading_of_the_results() -> None:
    results = (ROOT / "docs" / "results.md").read_text("utf-8")
    headings = {_anchor(line) for line in results.splitlines() if line.startswith("#")}
    for anchor in re.findall(r"results\.md#([^)]+)\)", PAGE):
        assert anchor in headings, f"docs/results.md has no heading #{anchor}"


def test_headings_stand_apart() -> None:
    """Where pages of several hands are joined, a line can end up in another's section."""
    lines = PAGE.splitlines()
    for before, line in pairwise(lines):
        assert not line.startswith("#") or not before


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    words = heading.lstrip("#").strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
