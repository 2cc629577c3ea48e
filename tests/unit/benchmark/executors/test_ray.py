"""What a worker on another machine of a cluster is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cosilo.benchmark.executors.base import Ended, Job
from cosilo.benchmark.executors.ray import _Remote
from cosilo.benchmark.plan import parse_plan
from cosilo.boundary.meter import Budget

PLAN = """
name = "desk"
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
[models.large]
kind = "scripted"
[privacy]
epsilon = 2.0
[[points]]
strategy = "large"
"""


@pytest.mark.parametrize("here", [True, False])
async def test_on_another_machine_a_worker_cannot_use_the_book(here: bool) -> None:
    given: list[Job] = []

    async def remote(job: Job) -> Ended:
        given.append(job)
        return Ended()

    plan = parse_plan(PLAN, Path("/somewhere/plan.toml"))
    job = Job(plan, plan.points[0], "t", Path("t"), Path("k"), Budget())
    ray: Any = SimpleNamespace(
        exceptions=SimpleNamespace(RayTaskError=KeyError, RayError=RuntimeError)
    )
    actor = SimpleNamespace(work=SimpleNamespace(remote=remote))
    await _Remote(ray, actor, here=here).run(job)
    assert [job.plan.privacy.here for job in given] == [here]
    assert given[0].plan.privacy.epsilon == 2.0
