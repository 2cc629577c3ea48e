"""The plan in docs/plan.md is a plan."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosilo.benchmark.plan import parse_plan

PAGE = Path(__file__).parents[3] / "docs" / "plan.md"


def test_the_plan_in_the_docs_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", "x")
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    plan = parse_plan(found[1], Path("/somewhere/plan.toml"))
    assert [p.name for p in plan.points] == [
        "small",
        "large",
        "large+pseudonym",
        "careful-calls=0.2+pseudonym",
        "careful-calls=0.4+pseudonym",
        "private_evolution-epsilon=4",
        "private_evolution-epsilon=inf",
        "distil_labels",
    ]
    assert [s.point.name for s in plan.spaces] == ["router"]
