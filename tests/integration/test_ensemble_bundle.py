"""What an ensemble has learned is served from a bundle, each kind of it to OpenAI's own library."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.integration.served import served
from tests.integration.test_bundle import PLAN, bundle, point, project

from cosilo.cli import main
from cosilo.models import catalog

__all__ = ["project"]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not catalog.is_here("minilm-int8"), reason="needs minilm-int8"),
]

SMALL = 'kind = "classifier"\nfeatures = "embedding"\ntrain = true'
OTHERS = """
[models.large.one]
kind = "scripted"
name = "one"
replies = {saw = "cow"}
[models.large.three]
kind = "scripted"
name = "three"
replies = {saw = "cow"}
"""
LEARNED = {
    "stacking": "learned/stacking.npz",
    "pairwise": "ranker/pairwise.npz",
}


@pytest.mark.parametrize(("method", "own"), [("stacking", "true"), ("pairwise", "false")])
def test_what_was_learned_is_served_from_a_bundle(
    method: str, own: str, project: Path, tmp_path: Path
) -> None:
    more = (
        f'method = "{method}"\nown = {own}\npeers = ["one", "two", "three"]\ndefences = ["hide"]\n'
    )
    plan = project / "desk.toml"
    several = PLAN.replace("[models.large]", '[models.large.two]\nname = "two"')
    points = OTHERS + point("ensemble", more)
    plan.write_text(several.format(points=points, small=SMALL, published="false"))
    assert main(["bench", str(plan), "--yes"]) == 0
    run = project / "runs" / "desk"
    assert bundle(run, "ensemble+hide", tmp_path / "out") == 0
    shutil.rmtree(project)
    assert (tmp_path / "out" / "strategy" / LEARNED[method]).is_file()
    with served(tmp_path / "out") as client:
        told = client.chat.completions.create(
            model="cosilo/ensemble+hide",
            messages=[{"role": "user", "content": "Bob saw a dog, see bob@example.org"}],
        )
    assert told.choices[0].message.content == "dog"
