"""Joint computations without the engine: each party is a worker that computes nothing, and does wrong
what its program's name says (tests/unit/engines/spu/scripted.py)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Joint, Message
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.engines.spu import run as running
from cosilo.engines.spu.environment import Environment
from cosilo.engines.spu.run import Deadlines, JointRun
from cosilo.models.base import Shows
from cosilo.models.joint import JointPart, Wanted
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.joint import JointRuns
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.inference.joint_room import SENDS, JointRoom

SCRIPTED = Path(__file__).parent / "unit" / "engines" / "spu" / "scripted.py"
GIVEN = [np.ones((1, 2), np.float32)]
SHORT = Deadlines(step_s=3.0, silent_s=2.0, connect_s=5.0)


class Taking(ScriptedModel):
    """A model that takes part in whatever a scripted worker does."""

    def __init__(self, **changed: Any) -> None:
        super().__init__({}, name="taking")
        self.changed = changed
        self.ended: list[Callable[[], Any]] = []

    def takes_part(self, wanted: Wanted) -> JointPart:
        told: dict[str, Any] = {
            "program": wanted.program,
            "shape": {},
            "owned": (np.ones((2, 2), np.float32),),
            "weights": "these",
            "once": 1 << 20,
            "each": 1 << 20,
            "tells": wanted.tells,
        }
        return JointPart(**{**told, **self.changed})

    def on_close(self, callback: Callable[[], Any]) -> None:
        self.ended.append(callback)

    async def close(self) -> None:
        for callback in self.ended:
            await callback()


class Road:
    """A channel to an owner, its meter and its record."""

    def __init__(self, owner: Any, budget: Budget | None = None) -> None:
        self.meter, self.ledger = Meter(budget), MemoryLedger()
        self.channel = Boundary(
            InProcess(owner), declared=SENDS, meter=self.meter, ledger=self.ledger
        )

    @property
    def sent(self) -> list[str]:
        return [entry.kind for entry in self.ledger.entries() if entry.direction == "up"]

    def replies(self, kind: type[Message]) -> list[Message]:
        return [e.message for e in self.ledger.entries() if e.kind == kind.__name__]

    async def room(self, wanted: Wanted, deadlines: Deadlines = SHORT) -> JointRoom:
        class Told:
            lm = self.channel

        return await JointRoom.of(Told(), wanted, deadlines=deadlines)  # type: ignore[arg-type]


class Holds:
    """A guard that holds computations up until they may go on."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def guard(self, message: Message, forward: Any, *, request: str) -> Message:
        if isinstance(message, Joint):
            self.reached.set()
            await self.go.wait()
        reply: Message = await forward(message)
        return reply

    def guard_stream(self, ask: Any, forward: Any, *, request: str) -> Any:
        raise NotImplementedError


def scripted_engine(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have every party be a scripted worker."""
    patch.setenv("COSILO_ENGINES", str(folder))
    patch.setattr(running, "free_memory", lambda: 8 << 30)
    patch.setattr(running, "require", lambda: Environment(Path(sys.executable), {}))
    patch.setitem(JointRun.__init__.__kwdefaults__, "worker", SCRIPTED)


def owner_of(model: Taking, client: str = "", deadlines: Deadlines = SHORT, **most: int) -> LMOwner:
    runs = JointRuns(deadlines=deadlines, **most)  # type: ignore[arg-type]
    model.on_close(runs.close)
    return LMOwner(model, Shows.TEXT | Shows.JOINT, client=client, joint=runs)
