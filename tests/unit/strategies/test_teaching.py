"""What strategies that train have in common."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

import cosilo.strategies  # noqa: F401  registers them
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling, user


class Waits(ScriptedModel):
    """Learns only once somebody else has had a turn."""

    def __init__(self, others: threading.Event) -> None:
        super().__init__({"about a": "a"})
        self.others = others

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> ScriptedModel:
        assert self.others.wait(5), "the event loop stood still"
        return ScriptedModel({"about a": "a"})


@pytest.mark.parametrize("name", ["distil_labels", "step_by_step"])
def test_training_keeps_nobody_waiting(name: str) -> None:
    pool = tuple(Demonstration(str(i), user(f"m {i} about {'ab'[i % 2]}"), "") for i in range(6))
    others = threading.Event()
    owner = DataOwner(Waits(others), private=(), pool=pool)
    strategy = strategies.create(name)

    async def main() -> None:
        session = open_session(
            owner,
            LMOwner(ScriptedModel({"about a": "a", "about b": "b"})),
            strategy,
            sampling=Sampling(choices=("a", "b")),
        )
        preparing = asyncio.create_task(strategy.prepare(session))
        while not preparing.done():
            await asyncio.sleep(0)
            if threading.active_count() > 1:
                others.set()
        await preparing

    asyncio.run(main())
