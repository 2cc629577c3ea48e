"""A trial handed to another process, and what comes back.

runner ── Job ──▶ worker: `work` ── Ended ──▶ runner
                    │    └── progress.json, now and then
                    └── all that is made, in the job's folder
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from cosilo import clock
from cosilo.benchmark.identity import task_identity, trial_identity
from cosilo.benchmark.parts import Loaded
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.progress import RunSpent
from cosilo.benchmark.trial import run_trial
from cosilo.boundary.messages import Refused
from cosilo.boundary.meter import Budget
from cosilo.boundary.transports.refusals import raised, refusal
from cosilo.errors import ConfigError, CosiloError
from cosilo.session import PointConfig, make_strategy
from cosilo.tasks.base import Example, Split

PROGRESS = "progress.json"
_EVERY = 0.3
"""Seconds between two notes of how far a trial is."""


class WorkerLostError(Exception):
    """A worker's process ended in the middle of a trial: it was killed, or its machine went down."""


@dataclass(frozen=True)
class Job:
    """A trial, as a worker is given it.

    Attributes:
        trial: its identity, which must be the same where the worker is.
        folder: where the worker finds what is known of the trial, and writes; it sees it at this path.
        keys: the folder of the run's secret keys.
        allowance: what the trial may spend.
        offline: make no LM call.
    """

    plan: Plan
    point: PointConfig
    trial: str
    folder: Path
    keys: Path
    allowance: Budget
    offline: bool = False


@dataclass(frozen=True)
class Ended:
    """How a trial ended.

    Attributes:
        refused: what stopped it, as errors cross; None when it is done.
        fatal: what stopped it is not of this trial alone: the run ends.
        notes: what a reader should know.
    """

    refused: Refused | None = None
    fatal: bool = False
    notes: Sequence[str] = ()

    @property
    def error(self) -> CosiloError | None:
        return None if self.refused is None else raised(self.refused, quoted=False)


class Worker(Protocol):
    """A process that works on one trial at a time.

    Attributes:
        here: it runs on this machine, so that it can use the run's own recorded answers.
    """

    @property
    def here(self) -> bool: ...

    async def run(self, job: Job) -> Ended:
        """What became of `job`.

        Raises:
            WorkerLostError: the process is gone; what it had done is in the job's folder.
        """

    async def close(self) -> None:
        """End the process, in the middle of a trial too."""


class Executor(Protocol):
    async def worker(self) -> Worker:
        """A worker, started.

        Raises:
            ConfigError: it cannot be.
        """

    async def close(self) -> None: ...


class Progress(msgspec.Struct, frozen=True):
    """How far a trial is, since its worker began with it.

    Attributes:
        items: answers that are kept.
        calls: LM calls.
        usd: what they cost.
    """

    items: int = 0
    calls: int = 0
    usd: float = 0.0


def progress_of(folder: Path) -> Progress:
    try:
        return msgspec.json.decode((folder / PROGRESS).read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError):  # not begun, or just being replaced
        return Progress()


class _Telling:
    """Notes in the job's folder how far the trial is."""

    def __init__(self, job: Job) -> None:
        self.notes: list[str] = []
        self._folder = job.folder
        self._items = 0
        self._last = 0.0

    def begun(self, point: PointConfig, todo: Mapping[Split, Sequence[Example]]) -> None: ...

    def answered(self, items: int, spent: RunSpent) -> None:
        self._items += items
        if monotonic() - self._last > _EVERY:
            self._last = monotonic()
            new = self._folder / f".{PROGRESS}.new"
            new.write_bytes(msgspec.json.encode(Progress(self._items, spent.calls, spent.usd)))
            new.replace(self._folder / PROGRESS)

    def note(self, text: str) -> None:
        self.notes.append(text)


class WorkerState:
    """A process that works on one trial of a plan after another, and keeps what it has loaded."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()  # one for all trials: models may be bound to its event loop
        clock.install(self._runner.get_loop())
        self._loaded = Loaded()
        self._task: asyncio.Task[Any] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Break off what is under way, and begin nothing more; called from another thread."""
        self._stopped = True
        self._runner.get_loop().call_soon_threadsafe(self._break_off)

    def _break_off(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def work(self, job: Job) -> Ended:
        """Work on `job` until it ends, or is stopped: what it had done then is in the folder."""
        telling = _Telling(job)
        try:
            _require_same(job)
            return self._runner.run(self._work(job, telling))
        except asyncio.CancelledError:
            return Ended(refusal(CosiloError("a worker was stopped")), fatal=True)
        except CosiloError as error:
            return Ended(refusal(error), fatal=True, notes=telling.notes)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            why = f"a worker failed with {type(error).__name__}; its traceback is above, or in its log"
            return Ended(refusal(CosiloError(why)), fatal=True, notes=telling.notes)

    async def _work(self, job: Job, telling: _Telling) -> Ended:
        self._task = asyncio.current_task()
        if self._stopped:
            raise asyncio.CancelledError
        self._loaded.taught = job.folder.parents[1]  # the run's, where it can be seen from here
        outcome = await run_trial(
            job.plan,
            job.point,
            job.folder,
            job.allowance,
            trial=job.trial,
            keys=job.keys,
            offline=job.offline,
            watch=telling,
            loaded=self._loaded,
        )
        found = None if outcome.error is None else refusal(outcome.error)
        return Ended(found, notes=telling.notes)


def _require_same(job: Job) -> None:
    """Raises:
    ConfigError: what decides the trial's outcome is not the same here.
    """
    sends = bool(make_strategy(job.point).needs.sends)
    task = task_identity(job.plan)
    if trial_identity(job.plan, job.point, task=task, sends=sends) != job.trial:
        raise ConfigError(
            f"point {job.point.name!r}: the data, the model files or the code are not the same for "
            "its worker as for the process that began the run"
        )


def machine() -> str:
    """What tells this machine from others, as long as it runs."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return " ".join(os.uname()[:2])
