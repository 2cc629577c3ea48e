"""Trials of a run several at once, each in a process and a folder of its own.

    waiting ─▶ lend, lease ─▶ worker ─▶ absorb ─▶ done
       ▲                        │
       ├── its process was lost ┤   with all that it had paid for
       └── its lease is used up ┘   alone now, with all that is left of the budget

What a trial may spend is set aside before it starts, so the budget holds whatever the trials do and
whichever of the processes is killed. A trial is given its part of what is left; one that needs more is
tried again when no other is under way. So a point is unaffordable when the run's money is out, as it
is where trials run one after another.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic

from cosilo.benchmark.absorb import TRIALS, absorb, free, lease, lend
from cosilo.benchmark.executors.base import (
    Ended,
    Executor,
    Job,
    Progress,
    Worker,
    WorkerLostError,
    progress_of,
)
from cosilo.benchmark.identity import settings_of
from cosilo.benchmark.parts import replay_path
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.progress import Reports, RunSpent
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.store import AMOUNTS, Store
from cosilo.benchmark.trial import ANSWERED, Outcome
from cosilo.boundary.meter import Budget, Totals
from cosilo.errors import (
    BudgetExceededError,
    CosiloError,
    OfflineError,
    UnreachableError,
    of_point,
)
from cosilo.session import PointConfig, make_strategy

GIVE_UP = 8
"""So many processes in a row that end without a new answer: what they work on is what ends them."""

_POLL = 0.5
"""Seconds between two looks at how far the trials are."""


@dataclass
class _Waiting:
    """A trial that is to be finished.

    Attributes:
        items: answers it has to make.
        told: that it begins was reported.
        alone: it needs all that is left of the budget.
        lost: processes that ended with it and left nothing new behind.
    """

    point: PointConfig
    id: str
    items: int
    told: bool = False
    alone: bool = False
    lost: int = 0


@dataclass
class _Pace:
    """How far the run is, over all trials under way."""

    total: int
    minutes: float
    began: float = field(default_factory=monotonic)
    calls_before: int = 0
    done: int = 0

    @property
    def left(self) -> float:
        """Seconds: by what was answered so far, or as estimated before anything was."""
        spent = monotonic() - self.began
        if not self.done:
            return max(0.0, 60 * self.minutes - spent)
        return spent / self.done * max(0, self.total - self.done)


class Jobs:
    """Finishes trials of `plan` with the workers of `executor`, `count` at once.

    Args:
        store: of the run, opened for writing by nobody else.
        budget: of the whole run.
        minutes: that all will take, as estimated.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        executor: Executor,
        count: int,
        *,
        task: str,
        budget: Budget,
        reports: Reports,
        offline: bool = False,
        minutes: float = 0.0,
    ) -> None:
        self._plan = plan
        self._store = store
        self._executor = executor
        self._count = count
        self._task = task
        self._budget = budget
        self._reports = reports
        self._offline = offline
        self._minutes = minutes
        self._replay = replay_path(plan, store)
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[str, Progress] = {}
        self._before: dict[str, float] = {}  # dollars that a trial counts and has not spent itself
        self._alone = False
        self._changed = asyncio.Condition()
        self._ended: dict[str, CosiloError | None] = {}
        self._lm_down: CosiloError | None = None
        self._pace = _Pace(0, 0.0)

    async def run(self, todo: Sequence[tuple[PointConfig, str, int]]) -> list[Outcome]:
        """Finish the trials of `todo`: points, their identities, and how many answers each has to
        make.

        Raises:
            CosiloError: the run cannot go on. What is wrong with one trial is in its outcome.
        """
        once = {id: _Waiting(point, id, items) for point, id, items in reversed(todo)}
        self._waiting.extend(once[id] for id in dict.fromkeys(id for _, id, _ in todo))
        self._pace = _Pace(
            sum(w.items for w in self._waiting),
            self._minutes / self._count,
            calls_before=self._store.paid().messages,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._count, len(self._waiting))):
                    group.create_task(self._work())
        except BaseExceptionGroup as found:
            raise _first(found) from None
        finally:
            with suppress(OSError):
                (self._store.path / TRIALS).rmdir()
        return [Outcome(point, id, self._ended[id]) for point, id, _ in todo]

    async def _work(self) -> None:
        """Hand trials to one worker after another until none is waiting."""
        worker: Worker | None = None
        try:
            while self._waiting or self._running:
                # Before a trial is taken: where all places are held, one is free when others end.
                worker = worker or await self._executor.worker()
                if (trial := await self._next()) is None:
                    return
                try:
                    lost = await self._tried(worker, trial)
                finally:
                    self._running.pop(trial.id, None)
                    self._alone = False
                    async with self._changed:
                        self._changed.notify_all()
                if lost:
                    worker = None
        finally:
            if worker is not None:
                await worker.close()

    async def _next(self) -> _Waiting | None:
        """The next trial that may start; None when all have ended."""
        async with self._changed:
            while self._waiting or self._running:
                fit = (w for w in self._waiting if not (w.alone and self._running))
                if not self._alone and (found := next(fit, None)) is not None:
                    self._waiting.remove(found)
                    self._running[found.id] = Progress()
                    self._alone = found.alone
                    return found
                await self._changed.wait()
            return None

    async def _tried(self, worker: Worker, waiting: _Waiting) -> bool:
        """Try to finish a trial once; whether its worker was lost."""
        store, point = self._store, waiting.point
        trial = store.trial(waiting.id)
        trial = trial or Trial(waiting.id, point.name, json.dumps(settings_of(self._plan, point)))
        trial = replace(trial, point=point.name)
        sends = bool(make_strategy(point).needs.sends)
        if sends and self._lm_down is not None and trial.state != "done":
            self._failed(trial, type(self._lm_down)(f"not tried: {self._lm_down}"))
            return False
        if not waiting.told:
            self._reports.trial(point.name, waiting.items)
            waiting.told = True
        recorded = None if worker.here else self._replay
        folder = lend(store, trial, self._task, recorded=recorded)
        # Elsewhere the answers are in the folder, and come back with it.
        path = self._replay if worker.here else folder / "replay.sqlite"
        if waiting.alone:  # then it is held to the run's budget, as where trials run in turn
            spent, allowance = store.paid(), self._budget
            lease(store, folder, free(store, self._budget), before=spent)
        else:
            spent = Totals()
            allowance = free(store, self._budget, share=self._count) if sends else NOTHING
            lease(store, folder, allowance)
        self._before[waiting.id] = spent.usd
        job = Job(
            replace(self._plan, replay=replace(self._plan.replay, path=path)),
            point,
            waiting.id,
            folder,
            self._replay.parent,
            allowance,
            self._offline,
        )
        before, items = self._known(waiting.id), self._answered(waiting.id)
        ended, cause = None, ""
        try:
            ended = await self._watched(worker, job)
        except WorkerLostError as lost:
            cause = str(lost)
        finally:
            try:
                if ended is None:
                    await worker.close()  # where the run is being stopped, it is still at work
            finally:
                shown, self._running[waiting.id] = self._running[waiting.id].items, Progress()
                absorb(store, folder, self._replay)
                made = self._answered(waiting.id) - items
                waiting.items -= made
                self._advance(made - shown)
        if ended is None:
            self._lost(waiting, trial, cause, new=self._known(waiting.id) != before)
            return True
        self._over(waiting, ended)
        return False

    def _over(self, waiting: _Waiting, ended: Ended) -> None:
        error = ended.error
        if ended.fatal and error is not None:
            raise error
        if isinstance(error, BudgetExceededError) and not waiting.alone:
            waiting.alone = True  # others may give back what they do not need
            self._waiting.append(waiting)
            return
        for note in ended.notes:
            self._reports.note(note)
        if isinstance(error, UnreachableError | OfflineError) and self._lm_down is None:
            self._lm_down = error
        self._ended[waiting.id] = error

    def _lost(self, waiting: _Waiting, trial: Trial, cause: str, *, new: bool) -> None:
        waiting.lost = 0 if new else waiting.lost + 1
        name = waiting.point.name
        if waiting.lost < GIVE_UP:
            self._reports.note(f"{name}: its process was lost ({cause}); it is tried again")
            self._waiting.appendleft(waiting)
            return
        trial = self._store.trial(waiting.id) or trial
        why = f"its process was lost {GIVE_UP} times without a new answer, at last by {cause}"
        self._failed(trial, CosiloError(why))

    def _failed(self, trial: Trial, error: CosiloError) -> None:
        if trial.state != "done":
            self._store.put_trial(replace(trial, state="failed", error=str(error)))
        self._reports.note(of_point(trial.point, error))
        self._ended[trial.id] = error

    async def _watched(self, worker: Worker, job: Job) -> Ended:
        """How `job` ended; how far it is, is told meanwhile."""
        running = asyncio.ensure_future(worker.run(job))
        try:
            while not (await asyncio.wait([running], timeout=_POLL))[0]:
                before, now = self._running[job.trial], progress_of(job.folder)
                self._running[job.trial] = now
                self._advance(now.items - before.items)
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _advance(self, items: int) -> None:
        if not items:
            return
        self._pace.done += items
        under_way = self._running.items()
        paid = self._store.paid()
        calls = paid.messages - self._pace.calls_before + sum(p.calls for _, p in under_way)
        usd = paid.usd + sum(p.usd - self._before[id] for id, p in under_way if p.items)
        self._reports.advance(items, RunSpent(calls, usd), self._pace.left, self._pace.left)

    def _known(self, id: str) -> tuple[int, int]:
        """What tells whether anything new came back for a trial."""
        # A call that was cut off is no news: the next one may end like it.
        calls = self._store.rows("SELECT count(*) FROM paid WHERE settled")
        return self._answered(id), calls[0][0]

    def _answered(self, id: str) -> int:
        return sum(len(self._store.answered(id, "plain", split)) for split in ANSWERED)


NOTHING = Budget(**{name: 0 for name in AMOUNTS})
"""The allowance of a trial that sends nothing."""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of the failures; those that followed from it say nothing more."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
