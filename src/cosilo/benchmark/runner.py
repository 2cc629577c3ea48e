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
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from time import monotonic

import cosilo
from cosilo.benchmark import clock, loads, places
from cosilo.benchmark.advice import oddities, require_taught
from cosilo.benchmark.answering import Answering, Commit
from cosilo.benchmark.estimate import (
    REMOTE_SECONDS,
    Estimate,
    Pace,
    Work,
    estimate,
    measured_pace,
    small_pace,
)
from cosilo.benchmark.identity import settings_of, task_identity, trial_identity
from cosilo.benchmark.measure import (
    attackers_encoder,
    load_run,
    measure,
    measuring_version,
    tampering,
)
from cosilo.benchmark.parts import Parts, open_parts, ready, replay_path
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.progress import Reports, Silent, Spent
from cosilo.benchmark.published import said_by
from cosilo.benchmark.record import Survey, chain_of, mend, note_heads, survey
from cosilo.benchmark.replies import Replies
from cosilo.benchmark.rows import Mark, Pass, Trial
from cosilo.benchmark.search import Proposals
from cosilo.benchmark.store import Store
from cosilo.benchmark.time_left import Moment, TimeLeft
from cosilo.boundary.meter import Meter
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    BudgetExceededError,
    CosiloError,
    OfflineError,
    StoreError,
    UnreachableError,
)
from cosilo.models.base import Embedder
from cosilo.models.present import require_present
from cosilo.objectives.base import Item
from cosilo.objectives.scoring import learned_by, some
from cosilo.session import PointConfig, make_strategy, open_point, require_all
from cosilo.strategies.base import Session, Strategy, forecast
from cosilo.tasks.base import Example, Split, Task

ANSWERED: tuple[Split, ...] = ("validation", "certificate", "test")
"""What a point is answered on; `train` and `tune` belong to the strategies."""

Confirm = Callable[[Estimate], None]


@dataclass(frozen=True)
class Outcome:
    """How far a point came.

    Attributes:
        error: why it is not done; None when it is.
    """

    point: PointConfig
    trial: str
    error: CosiloError | None = None


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
        task: the plan's task, where it is loaded already.
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
    ) -> None:
        self.plan = plan
        self.store = store
        self._task = task
        self._offline = offline
        self._reports = reports or Silent()
        self._confirm = confirm
        self._task_id = task_identity(plan)
        self._parts: Parts | None = None
        self._lm_down: CosiloError | None = None
        self._calls_before, self._busy_before = 0, 0.0
        self._ahead: list[tuple[PointConfig, Work]] = []
        self._behind: list[tuple[PointConfig, Work]] = []  # points whose questions were asked
        self._time = TimeLeft((), 0.0)
        self._started = False
        self._record = Survey()  # what is wrong with it, until it is mended
        self._encoder: tuple[Embedder | None] | None = None  # loaded when first needed
        self._ids: dict[str, str] = {}

    async def run(self) -> list[Outcome]:
        """Finish the run; what is done already is not done again.

        Raises:
            CosiloError: the run cannot start. What goes wrong later is in the outcomes.
        """
        plan = self.plan
        clock.install(asyncio.get_running_loop())
        known = {p.name: self._id(p) for p in plan.points}
        self._record = survey(self.store, known.values())
        left, searched = self._unfinished(), self._unsearched()
        try:
            if left or searched:
                await self._start(left, searched)
            self._describe(known)
            outcomes = [await self._point(p) for p in plan.points]
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
        self._record = survey(self.store, [self._id(p) for p in self.plan.points])
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
        if self._parts is not None:
            await self._parts.close()

    # ── before anything is spent ─────────────────────────────────────────────

    async def _start(self, left: Sequence[PointConfig], searched: int) -> None:
        """Check, estimate and confirm. Only then the run's files say that they are of this plan: a plan
        that cannot work, or is not wanted, leaves a finished run as it was."""
        self._started = True
        expected, work, pace = await self._expected(left, searched)
        self._confirm(expected)
        parts = self._open()
        self._describe({p.name: self._id(p) for p in self.plan.points})
        for done in mend(self.store, self._record):
            self._reports.note(done)
        self._record = Survey()
        self.store.keep_task(self._task_id, parts.task)
        parts.paid.promise(expected.usd_most)
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
        parts = self._open()
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
        return [(s, self._left(self._id(point), "plain", s)) for s in ANSWERED]

    def _preflight(self, parts: Parts, point: PointConfig) -> str:
        """Refuse a point that cannot work; returns a note on one that can, or an empty text."""
        strategy = make_strategy(point)
        require_all(parts.owner, parts.lm, strategy, by=f"point {point.name!r}")
        require_taught(parts.owner, strategy, by=f"point {point.name!r}")
        return parts.require_defences(point)

    def _open(self) -> Parts:
        if self._parts is None:
            self._parts = open_parts(self.plan, self.store, offline=self._offline, task=self._task)
        return self._parts

    def _describe(self, known: Mapping[str, str]) -> None:
        """What a reader of the folder needs to know of how it was made."""
        self.store.write_text("plan.toml", self.plan.text)
        before = self._described()
        found = before.get("points")
        points = dict(found) if isinstance(found, dict) and self.plan.search else {}
        about = {
            "name": self.plan.name,
            **places.described(self.plan, self.store.path),
            "task": self._task_id,
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

    # ── one point ────────────────────────────────────────────────────────────

    def _id(self, point: PointConfig) -> str:
        # Worked out once: a source file that is edited meanwhile must not split a run.
        if point.name not in self._ids:
            sends = bool(make_strategy(point).needs.sends)
            found = trial_identity(self.plan, point, task=self._task_id, sends=sends)
            self._ids[point.name] = found
        return self._ids[point.name]

    def _done(self, id: str) -> bool:
        trial = self.store.trial(id)
        if trial is None or trial.state != "done":
            return False
        return id not in self._record.broken

    async def _point(self, point: PointConfig) -> Outcome:
        id = self._id(point)
        trial = self.store.trial(id) or Trial(id, point.name, json.dumps(settings_of(point)))
        if trial.state != "done":
            trial, error = await self._tried(point, replace(trial, point=point.name))
            self.store.put_trial(trial)
            if error is not None:
                self._reports.note(f"{point.name}: {error}")
                return Outcome(point, id, error)
        if self.store.result(id, "test", measuring_version(self.plan)) is None:
            if self._encoder is None:
                require_present(loads.scoring(self.plan))
                self._encoder = (attackers_encoder(self.plan),)
            await measure(self.plan, self.store, self._task_id, trial, encoder=self._encoder[0])
        return Outcome(point, id)

    async def _tried(self, point: PointConfig, trial: Trial) -> tuple[Trial, CosiloError | None]:
        """The trial as far as it got, and what stopped it."""
        if not self._started:
            await self._start([], self._unsearched())
        try:
            return replace(await self._answer(point, trial), state="done", error=""), None
        except BudgetExceededError as error:
            return replace(trial, state="unaffordable", error=str(error)), error
        except StoreError:  # nothing more can be kept: the run ends here
            raise
        except CosiloError as error:
            if isinstance(error, UnreachableError | OfflineError) and self._lm_down is None:
                self._lm_down = error
            return replace(trial, state="failed", error=str(error)), error

    async def _answer(self, point: PointConfig, trial: Trial) -> Trial:
        """Prepare the point and answer what is left of every split, plain and tampered with."""
        parts, store = self._open(), self.store
        sends = bool(make_strategy(point).needs.sends)
        if sends and self._lm_down is not None:
            raise type(self._lm_down)(f"not tried: {self._lm_down}")
        todo = dict(self._work(point))
        self._begun(point, todo)
        reset_peak_memory()
        ledger = SqliteLedger(store.ledger_path, trial.id)
        try:
            strategy, session = open_point(
                ready(point, parts.task, replay_path(self.plan, store).parent),
                parts.owner,
                parts.lm,
                sampling=parts.task.sampling,
                meter=Meter(price=self.plan.large.price),
                ledger=ledger,
                watch=(self._heard(trial),),
            )
            strategy, session = await strategy.prepare(session)
            trial = replace(trial, attempt=ledger.attempt)
            store.put_trial(trial)
            store.put_cards(trial.id, "plain", session.cards)
            if self.plan.attacks.published:
                trial = replace(trial, memory=max(trial.memory, peak_memory()))
                await self._listen(trial, session)
                reset_peak_memory()  # attackers take their own
            for split, examples in todo.items():
                commit = self._committing(trial, "plain", split, ledger)
                await self._answering(strategy, session, split, commit, trial).run(examples)
        finally:
            ledger.close()
        if sends and self.plan.attacks.tamper_share > 0:
            await self._tamper(point, trial)
        note_heads(store, trial.id)
        if refused := sum(store.refused(trial.id, split) for split in ANSWERED):
            self._reports.note(
                f"{point.name}: {refused} items got no answer, because a defence or a model refused "
                "them; they count as answered wrongly"
            )
        return replace(trial, memory=max(trial.memory, peak_memory()))

    def _begun(self, point: PointConfig, todo: Mapping[Split, Sequence[Example]]) -> None:
        """Say that a trial begins, with what is known by now of the LM calls to come."""
        parts, names = self._open(), [p.name for p, _ in self._ahead]
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

    def _moment(self) -> Moment:
        paid = self._open().paid
        return Moment(
            now=monotonic(),
            calls=paid.calls - self._calls_before,
            busy=paid.busy.seconds - self._busy_before,
        )

    async def _listen(self, trial: Trial, session: Session) -> None:
        """Keep what the small model says for those who will attack it, where it was trained."""
        owner, splits = session.owner, self._open().task.splits
        if not owner.learned:
            return
        run = load_run(self.plan, self.store, self._task_id, trial, "test")
        inside = learned_by(replace(run, learned=owner.learned & {e.id for e in run.background}))
        asked = [e for s in ANSWERED for e in some(splits.get(s, ()))]
        members = some([e for e in run.background if e.id in inside])
        said = await said_by(owner.model, owner.learned, [*members, *asked])
        if said is not None:
            self.store.put_said(trial.id, said)

    async def _tamper(self, point: PointConfig, trial: Trial) -> None:
        """Answer again, with a party in between that changes a share of the LM's replies.

        Where nothing crossed in `prepare`, only the items whose replies are changed can differ.
        """
        parts, store = self._open(), self.store
        party = tampering(self.plan, parts.lm)
        learned = any(True for _ in store.prepare_record(trial.id, trial.attempt, ANSWERED))
        todo: dict[Split, list[Example]] = {}
        for split in ANSWERED:
            left = self._left(trial.id, "tampered", split)
            if not learned:
                attempts = store.answered(trial.id, "plain", split)
                changed = party.requests(store.record(trial.id, split, attempts))
                left = [e for e in left if e.id in changed]
            todo[split] = left
        if not any(todo.values()):
            return
        ledger = SqliteLedger(store.ledger_path, chain_of(trial.id, "tampered"))
        try:
            strategy, session = open_point(
                ready(point, parts.task, replay_path(self.plan, store).parent),
                parts.owner,
                parts.lm,
                sampling=parts.task.sampling,
                meter=Meter(price=self.plan.large.price),
                ledger=ledger,
                transport=InProcess(party),
            )
            strategy, session = await strategy.prepare(session)
            store.put_cards(trial.id, "tampered", session.cards)
            for split, examples in todo.items():
                commit = self._committing(trial, "tampered", split, ledger)
                await self._answering(strategy, session, split, commit, trial).run(examples)
        finally:
            ledger.close()

    def _answering(
        self, strategy: Strategy, session: Session, split: Split, commit: Commit, trial: Trial
    ) -> Answering:
        return Answering(
            self._open().task,
            strategy,
            session,
            split,
            commit=commit,
            concurrency=self.plan.concurrency,
            proved=self.store.proved(trial.id),
            budget=self.plan.request_budget.budget,
            tried=any(self.store.answered(trial.id, "plain", s) for s in ANSWERED),
        )

    def _heard(self, trial: Trial) -> Replies:
        """The guard that checks whether the trial's first replies can be read; replies of earlier
        processes count.
        """
        seen, before = self.store.replies(trial.id)
        return Replies(
            self._open().task,
            most=self.plan.unreadable,
            allowed=self.plan.large.price.reasoning,
            seen=seen,
            before=before,
        )

    def _left(self, id: str, which: Pass, split: Split) -> list[Example]:
        done = self.store.answered(id, which, split).keys() - self._record.lacking(id, which, split)
        return [e for e in self._open().task.splits.get(split, ()) if e.id not in done]

    def _committing(self, trial: Trial, which: Pass, split: Split, ledger: SqliteLedger) -> Commit:
        parts = self._open()

        def commit(items: Sequence[tuple[Item, str]]) -> None:
            ids = [item.example.id for item, _ in items]
            marks = {id: Mark(*ledger.head, ledger.sent(f"{split}/{id}")) for id in ids}
            self.store.add_items(trial.id, which, split, ledger.attempt, items, marks)
            if which == "plain":
                at = self._moment()
                self._time.answered(len(items), at)
                spent = Spent(at.calls, parts.paid.totals.usd)
                left, here = self._time.of_run(at), self._time.of_trial(at)
                self._reports.advance(len(items), spent, left, here)

        return commit

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
    return forecast(make_strategy(point)).answer


def reset_peak_memory() -> None:
    """Let the kernel count this process's peak memory anew, where it can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Peak resident bytes since `reset_peak_memory`, or of the process where that cannot be."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _versions() -> Iterator[tuple[str, str]]:
    for name in ("numpy", "onnxruntime", "xllamacpp", "presidio-analyzer", "spacy", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
