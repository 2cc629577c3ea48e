"""From a plan to a finished run: each point is prepared, answers every split, and is measured.

    identities ─▶ what is left to do? ─▶ preflight ─▶ estimate, confirm ─▶ trial by trial ─▶ measure
                          │ nothing                                            ▲
                          └──────────────▶ done, no model is loaded            └─ search proposes

A trial that fails does not stop the others: those that ask the LM nothing can still be finished when
its endpoint is down, and those whose answers are recorded when the money is out.
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from time import monotonic

import cosilo
from cosilo import clock
from cosilo.benchmark import loads, places
from cosilo.benchmark.absorb import absorb_all
from cosilo.benchmark.advice import oddities, require_taught
from cosilo.benchmark.estimate import (
    REMOTE_SECONDS,
    Estimate,
    Pace,
    Work,
    estimate,
    measured_pace,
    small_pace,
)
from cosilo.benchmark.executors.base import Executor
from cosilo.benchmark.identity import trial_identity
from cosilo.benchmark.jobs import Jobs
from cosilo.benchmark.measure import measuring_version
from cosilo.benchmark.parts import Loaded, Parts, replay_path
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.progress import Reports, RunSpent, Silent
from cosilo.benchmark.record import Survey, mend, survey
from cosilo.benchmark.search import Proposals
from cosilo.benchmark.store import Store
from cosilo.benchmark.time_left import Moment, TimeLeft
from cosilo.benchmark.trial import ANSWERED, Outcome, Trials
from cosilo.boundary.meter import Budget
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.present import require_present
from cosilo.session import PointConfig, make_strategy, require_all
from cosilo.strategies.base import forecast
from cosilo.tasks.base import Example, Split, Task

Confirm = Callable[[Estimate], None]


@dataclass(frozen=True)
class Left:
    """What a run still has to do.

    Attributes:
        points: that are not answered yet, of `total`.
        stale: points that are answered and will be measured again, which calls nobody.
        cost: of the points; None where none is left.
    """

    points: int
    total: int
    stale: int
    cost: Estimate | None

    def __str__(self) -> str:
        again = f"; {self.stale} will be measured again, which calls nobody" if self.stale else ""
        if self.cost is None:
            return f"nothing is left to answer: all {self.total} points are done{again}"
        return f"{self.points} of {self.total} points left: {self.cost}{again}"


def accept(_: Estimate) -> None:
    """A `confirm` that accepts any cost."""


class Runner:
    """One process's work on a run.

    Args:
        store: opened for writing.
        offline: make no LM call; what is not recorded is an error.
        confirm: shown the estimate before anything is spent; raises to stop the run.
        executor: where trials run, `jobs` at once; in this process, one after another, where there
            is none. What a search proposes runs here, as each proposal learns from those before.
        task: the plan's task, where it is loaded already.
        lineage: the folder whose lineage notes what is made; the run's own by default.
        recorded: replies that were recorded elsewhere, instead of those where the plan says.
        taught: a run's folder whose stages of training may be gone on from.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        offline: bool = False,
        reports: Reports | None = None,
        confirm: Confirm = accept,
        task: Task | None = None,
        executor: Executor | None = None,
        jobs: int = 1,
        lineage: Path | None = None,
        recorded: ReplayStore | None = None,
        taught: Path | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self._offline = offline
        self._reports = reports or Silent()
        self._confirm = confirm
        self._loaded = Loaded(task, recorded=recorded, taught=taught)
        self._trials = Trials(
            plan,
            store,
            self,
            offline=offline,
            loaded=self._loaded,
            lineage=lineage or store.path,
        )
        self._calls_before, self._busy_before = 0, 0.0
        self._ahead: list[tuple[PointConfig, Work]] = []
        self._behind: list[tuple[PointConfig, Work]] = []  # points whose questions were asked
        self._time = TimeLeft((), 0.0)
        self._started = False
        self._executor = executor
        self._jobs = jobs
        self._most_usd: float | None = None  # that this run may have spent in the end
        self._minutes = 0.0
        self._ids: dict[str, str] = {}

    async def run(self) -> list[Outcome]:
        """Finish the run; what is done already is not done again.

        Raises:
            CosiloError: the run cannot start. What goes wrong later is in the outcomes.
        """
        plan = self.plan
        clock.install(asyncio.get_running_loop())
        known = {p.name: self._id(p) for p in plan.points}
        for said in absorb_all(self.store, replay_path(plan, self.store)):
            self._reports.note(said)
        self._trials.record = survey(self.store, known.values())
        left, searched = self._unfinished(), self._unsearched()
        try:
            if left or searched:
                await self._start(left, searched)
            self._describe(known)
            outcomes = await self._points()
            if plan.search:
                outcomes += await self._search(known)
        finally:
            await self._close()
        return outcomes

    async def expected(self) -> Left:
        """What is still to be done, and what it will cost. Nothing is answered, and nothing written
        but what trying out a model on this machine records.

        Raises:
            CosiloError: the run could not start.
        """
        clock.install(asyncio.get_running_loop())
        self._trials.record = survey(self.store, [self._id(p) for p in self.plan.points])
        left, searched = self._unfinished(), self._unsearched()
        total = len(self.plan.points) + (self.plan.search.trials if self.plan.search else 0)
        try:
            cost = (await self._expected(left, searched))[0] if left or searched else None
        finally:
            await self._close()
        version = measuring_version(self.plan)
        done = (self._id(p) for p in self.plan.points if p not in left)
        stale = sum(self.store.result(id, "test", version) is None for id in done)
        return Left(len(left) + searched, total, stale, cost)

    async def _close(self) -> None:
        self._reports.end()
        await self._trials.close()
        await self._loaded.close()
        if self._executor is not None:
            await self._executor.close()

    # ── before anything is spent ─────────────────────────────────────────────

    async def _start(self, left: Sequence[PointConfig], searched: int) -> None:
        """Check, estimate and confirm. Only then the run's files say that they are of this plan: a plan
        that cannot work, or is not wanted, leaves a finished run as it was."""
        self._started = True
        expected, work, pace = await self._expected(left, searched)
        self._confirm(expected)
        parts = self._trials.parts()
        self._describe({p.name: self._id(p) for p in self.plan.points})
        for done in mend(self.store, self._trials.record):
            self._reports.note(done)
        self._trials.record = Survey()
        self.store.keep_task(self._trials.task_id, parts.task)
        parts.paid.promise(expected.usd_most)
        self._most_usd = parts.paid.totals.usd + expected.usd_most
        self._minutes = expected.minutes + expected.small_minutes
        # A few calls may have been tried out already, which is not the run's own pace.
        self._calls_before, self._busy_before = parts.paid.calls, parts.paid.busy.seconds
        self._ahead = list(work)
        guess = REMOTE_SECONDS / self.plan.concurrency if pace is None else pace.seconds
        self._time = TimeLeft([p.strategy for p, _ in work], guess)
        self._reports.begin(len(work), sum(len(some) for _, splits in work for _, some in splits))

    async def _expected(
        self, left: Sequence[PointConfig], searched: int
    ) -> tuple[Estimate, list[tuple[PointConfig, Work]], Pace | None]:
        """What `left` and `searched` proposals will cost, what they have to answer, and how fast the
        LM is, where that was measured."""
        require_present(loads.running(self.plan))
        parts = self._trials.parts()
        checked = [
            self._preflight(parts, p) for p in (*left, *(s.lowest for s in self.plan.spaces))
        ]
        odd = oddities(self.plan, parts.task, parts.owner)
        for note in dict.fromkeys([*odd, *filter(None, checked)]):
            self._reports.note(note)
        work = [(p, self._work(p)) for p in left]
        if searched:  # which point of which space a proposal will be is not known yet
            whole = [(s, parts.task.splits.get(s, ())) for s in ANSWERED]
            most = max((s.lowest for s in self.plan.spaces), key=_most_calls)
            work += [(most, whole)] * searched
        sends = any(make_strategy(point).needs.sends for point, _ in work)
        try_out = sends and not self._offline
        pace = await measured_pace(self.plan, parts, self.store) if try_out else None
        small = await small_pace(parts)
        return estimate(self.plan, parts, work, pace=pace, small=small), work, pace

    def _work(self, point: PointConfig) -> Work:
        """The items that `point` still has to answer."""
        return [(s, self._trials.left(self._id(point), "plain", s)) for s in ANSWERED]

    def _preflight(self, parts: Parts, point: PointConfig) -> str:
        """Refuse a point that cannot work; returns a note on one that can, or an empty text."""
        strategy = make_strategy(point)
        asked = list(self.plan.peers_of(point)) or [next(iter(parts.peers))]
        owners = {name: parts.peers[name].party for name in asked}
        first = owners.pop(asked[0])
        require_all(parts.owner, first, strategy, by=f"point {point.name!r}", others=owners)
        require_taught(parts.owner, strategy, by=f"point {point.name!r}")
        return parts.require_defences(point)

    def _describe(self, known: Mapping[str, str]) -> None:
        """What a reader of the folder needs to know of how it was made."""
        self.store.write_text("plan.toml", self.plan.text)
        before = self._described()
        found = before.get("points")
        points = dict(found) if isinstance(found, dict) and self.plan.search else {}
        about = {
            "name": self.plan.name,
            **places.described(self.plan, self.store.path),
            "task": self._trials.task_id,
            "seed": self.plan.seed,
            "points": {**points, **known},
            "cosilo": cosilo.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "packages": dict(_versions()),
        }
        if about != before:
            self.store.write_text("run.json", json.dumps(about, indent=2) + "\n")

    def _described(self) -> dict[str, object]:
        if not (self.store.path / "run.json").exists():
            return {}
        return self.store.read_json("run.json")

    # ── the points ───────────────────────────────────────────────────────────

    def _id(self, point: PointConfig) -> str:
        # Worked out once: a source file that is edited meanwhile must not split a run.
        if point.name not in self._ids:
            sends = bool(make_strategy(point).needs.sends)
            found = trial_identity(self.plan, point, task=self._trials.task_id, sends=sends)
            self._ids[point.name] = found
        return self._ids[point.name]

    def _done(self, id: str) -> bool:
        trial = self.store.trial(id)
        if trial is None or trial.state != "done":
            return False
        return id not in self._trials.record.broken

    async def _points(self) -> list[Outcome]:
        points = self.plan.points
        if self._executor is None:
            return [await self._point(p) for p in points]
        version = measuring_version(self.plan)
        todo = [
            (p, self._id(p), sum(len(items) for _, items in self._work(p)))
            for p in points
            if not self._done(self._id(p))
            or self.store.result(self._id(p), "test", version) is None
        ]
        if todo:
            require_present(loads.scoring(self.plan))
        for point, id, _ in todo:
            if not self._done(id):
                self._trials.note(point, id)
        await self._trials.close()
        await self._loaded.close()  # the models are the workers' to load
        jobs = Jobs(
            self.plan,
            self.store,
            self._executor,
            self._jobs,
            task=self._trials.task_id,
            budget=self._budget(),
            reports=self._reports,
            offline=self._offline,
            minutes=self._minutes,
        )
        ended = {outcome.trial: outcome.error for outcome in await jobs.run(todo)}
        if self._most_usd is not None and self._unsearched():
            paid = self._trials.parts().paid
            paid.promise(max(0.0, self._most_usd - paid.totals.usd))
            self._calls_before, self._busy_before = 0, 0.0
        return [Outcome(p, self._id(p), ended.get(self._id(p))) for p in points]

    def _budget(self) -> Budget:
        """The run's, and no more dollars than were confirmed."""
        budget, most = self.plan.budget, self._most_usd
        if most is None:
            return budget
        most *= 1 + 1e-9  # sums of the same amounts, in another order
        return replace(budget, usd=most if budget.usd is None else min(budget.usd, most))

    async def _point(self, point: PointConfig) -> Outcome:
        id = self._id(point)
        if not (self._started or self._done(id)):
            await self._start([], self._unsearched())
        return await self._trials.run(point, id)

    def begun(self, point: PointConfig, todo: Mapping[Split, Sequence[Example]]) -> None:
        """Say that a trial begins, with what is known by now of the LM calls to come."""
        parts, names = self._trials.parts(), [p.name for p, _ in self._ahead]
        if self._ahead:  # a search's proposals stand there under another name
            self._ahead.pop(names.index(point.name) if point.name in names else 0)
        here: tuple[PointConfig, Work] = (point, tuple(todo.items()))
        # What two points would ask is asked by the first of them. Without defences the replay tells
        # what was asked; with them nobody knows the words, so the points before are counted along.
        before, till_here, till_end = (
            estimate(self.plan, parts, [*self._behind, *some], pace=None).calls
            for some in ((), (here,), (here, *self._ahead))
        )
        if point.defences:
            splits = parts.task.splits
            self._behind.append((point, tuple((s, splits.get(s, ())) for s in ANSWERED)))
        calls, after = till_here - before, till_end - till_here
        answers = sum(map(len, todo.values()))
        self._time.trial(point.strategy, answers, calls, after, self._moment())
        self._reports.trial(point.name, answers)

    def answered(self, items: int, spent: RunSpent) -> None:
        at = self._moment()
        self._time.answered(items, at)
        so_far = RunSpent(at.calls, spent.usd)
        self._reports.advance(items, so_far, self._time.of_run(at), self._time.of_trial(at))

    def note(self, text: str) -> None:
        self._reports.note(text)

    def _moment(self) -> Moment:
        paid = self._trials.parts().paid
        return Moment(
            now=monotonic(),
            calls=paid.calls - self._calls_before,
            busy=paid.busy.seconds - self._busy_before,
        )

    def _unfinished(self) -> list[PointConfig]:
        return [p for p in self.plan.points if not self._done(self._id(p))]

    # ── search ───────────────────────────────────────────────────────────────

    async def _search(self, known: dict[str, str]) -> list[Outcome]:
        """Points proposed from what was measured so far; a resumed search proposes the same."""
        plan = self.plan
        assert plan.search is not None
        proposals = Proposals(plan.spaces, plan.search, seed=plan.seed)
        outcomes = {}
        for _ in range(plan.search.trials):
            asked, point = proposals.ask()
            outcome = await self._point(point)
            outcomes[outcome.trial] = outcome
            known[point.name] = outcome.trial
            self._describe(known)
            found = None if outcome.error else self.store.result(outcome.trial, "validation")
            proposals.tell(asked, found)
        return list(outcomes.values())

    def _unsearched(self) -> int:
        """How many proposals of the search are not answered yet."""
        plan = self.plan
        if plan.search is None:
            return 0
        proposals = Proposals(plan.spaces, plan.search, seed=plan.seed)
        for done in range(plan.search.trials):
            asked, point = proposals.ask()
            if not self._done(self._id(point)):
                return plan.search.trials - done
            proposals.tell(asked, self.store.result(self._id(point), "validation"))
        return 0


def _most_calls(point: PointConfig) -> float:
    """Messages for each item that is answered."""
    expected = forecast(make_strategy(point))
    return sum(e.share * e.each for e in expected if e.about == "answers")


def _versions() -> Iterator[tuple[str, str]]:
    for name in ("numpy", "onnxruntime", "xllamacpp", "presidio-analyzer", "spacy", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
