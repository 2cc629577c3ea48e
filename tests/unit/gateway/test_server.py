"""Reading the configuration again: what is wrong with the new one leaves the old one serving."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cosilo.errors import CapabilityError, ConfigError, UnreachableError
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.server import _Reloads

SECRET = "Ada Lovelace"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("no model named 'x'"), "no model named 'x'"),
        (CapabilityError("it shows no logits"), "it shows no logits"),
        (UnreachableError("it cannot be reached"), "it cannot be reached"),
        (OSError(f"can't find model {SECRET!r}"), "OSError"),
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
