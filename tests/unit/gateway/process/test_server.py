"""Reading the configuration again: what is wrong with the new one leaves the old one serving."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cosilo.errors import (
    CapabilityError,
    ConfigError,
    CosiloError,
    RejectedError,
    UnreachableError,
)
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.process.config import ServerConfig
from cosilo.gateway.process.server import _Reloads
from cosilo.gateway.web.http import Bodies

SECRET = "Ada Lovelace"


def quoted(error: CosiloError) -> CosiloError:
    error.quoted = True
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("no model named 'x'"), "no model named 'x'"),
        (CapabilityError("it shows no logits"), "it shows no logits"),
        (UnreachableError("it cannot be reached"), "it cannot be reached"),
        (OSError(f"can't find model {SECRET!r}"), "OSError"),
        (quoted(RejectedError(SECRET)), "(words of the other party)"),
        (ValueError(SECRET), "ValueError"),
        (ImportError(SECRET), "ImportError"),
        (RecursionError(SECRET), "RecursionError"),
    ],
)
async def test_a_configuration_that_cannot_be_opened_is_told_and_the_one_before_stays(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> Any:
        raise error

    metrics = Metrics()
    reloads = _Reloads(load, cast(Any, SimpleNamespace(metrics=metrics, setup="before")))
    with caplog.at_level(logging.WARNING, "cosilo.gateway"):
        for _ in range(2):  # it can be asked again after one that failed
            reloads.ask()
            task = reloads._task
            assert task is not None
            await asyncio.wait_for(task, 5)
    told = [r.getMessage() for r in caplog.records]
    assert told == [f"configuration not taken, the one before stays: {said}"] * 2
    assert SECRET not in caplog.text
    assert 'cosilo_reloads_total{result="failed"} 2' in metrics.exposition()
    assert cast(Any, reloads)._gateway.setup == "before"


async def test_a_new_configurations_limits_on_bodies_hold_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ServerConfig(
        max_body_bytes=1000, held_body_bytes=5000, body_seconds=2.0, cors="https://a.example"
    )

    async def opened(*_: object) -> Any:
        return SimpleNamespace(points={})

    async def adopt(setup: object) -> None: ...

    monkeypatch.setattr("cosilo.gateway.process.server.open_setup", opened)
    gateway = SimpleNamespace(
        metrics=Metrics(), store=None, tabs={}, bodies=Bodies(1, 1, 30.0), adopt=adopt
    )
    reloads = _Reloads(lambda: cast(Any, SimpleNamespace(server=server)), cast(Any, gateway))
    reloads.ask()
    assert reloads._task is not None
    await asyncio.wait_for(reloads._task, 5)
    bodies = gateway.bodies
    assert (bodies.largest, bodies.together, bodies.seconds) == (1000, 5000, 2.0)
    assert gateway.cors
