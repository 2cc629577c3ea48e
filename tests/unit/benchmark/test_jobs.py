"""What becomes of a run whose workers die, fail, or are asked to share one budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cosilo.benchmark.executors.base import Ended, Executor, Job, Worker, WorkerLostError
from cosilo.benchmark.executors.processes import Processes
from cosilo.benchmark.jobs import GIVE_UP
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.benchmark.trial import Outcome
from cosilo.boundary.transports.refusals import refusal
from cosilo.errors import CatalogError, ConfigError
from cosilo.parties.around.paid import Purse
from tiny_run import PLAN, Counting, write_data


class Scripted:
    """Workers that do nothing and say how it went."""

    def __init__(self, ended: Ended | WorkerLostError) -> None:
        self.ended = ended
        self.started = self.closed = 0

    async def worker(self) -> Worker:
        self.started += 1
        return _Idle(self)

    async def close(self) -> None: ...


class _Idle:
    here = True

    def __init__(self, among: Scripted) -> None:
        self._among = among

    async def run(self, job: Job) -> Ended:
        if isinstance(self._among.ended, WorkerLostError):
            raise self._among.ended
        return self._among.ended

    async def close(self) -> None:
        self._among.closed += 1


class Watched(Processes):
    """Real workers; `before` sees each job, and `after` how it ended."""

    def __init__(
        self,
        before: Callable[[Job], object] = bool,
        after: Callable[[Ended], object] = bool,
    ) -> None:
        self.before = before
        self.after = after

    async def worker(self) -> Worker:
        return _Watched(self, await super().worker())


class _Watched:
    here = True

    def __init__(self, among: Watched, worker: Worker) -> None:
        self._among = among
        self._worker = worker

    async def run(self, job: Job) -> Ended:
        self._among.before(job)
        ended = await self._worker.run(job)
        self._among.after(ended)
        return ended

    async def close(self) -> None:
        await self._worker.close()


def bench(
    folder: Path, executor: Executor | None, plan: str = PLAN, jobs: int = 2
) -> tuple[list[Outcome], Counting]:
    write_data(folder, plan)
    counting, store = Counting(), Store(folder / "run", write=True)
    try:
        parsed = parse_plan(plan, folder / "p.toml")
        runner = Runner(parsed, store, reports=counting, executor=executor, jobs=jobs)
        outcomes = asyncio.run(runner.run())
        assert store.leased() == type(store.leased())()
        return outcomes, counting
    finally:
        store.close()


def test_a_point_that_ends_every_process_is_given_up(tmp_path: Path) -> None:
    dying = Scripted(WorkerLostError("signal 11"))
    outcomes, said = bench(tmp_path, dying)
    assert dying.started == dying.closed >= 2 * GIVE_UP
    for outcome in outcomes:
        assert f"{GIVE_UP} times without a new answer, at last by signal 11" in str(outcome.error)
    assert sum("it is tried again" in note for note in said.notes) == 2 * (GIVE_UP - 1)
    assert not (tmp_path / "run/trials").exists()


def test_what_no_trial_can_work_with_ends_the_run(tmp_path: Path) -> None:
    failing = Scripted(Ended(refusal(CatalogError("model 'x' is not here")), fatal=True))
    with pytest.raises(CatalogError, match="model 'x' is not here"):
        bench(tmp_path, failing)
    assert failing.closed >= failing.started
    assert not (tmp_path / "run/trials").exists()


def test_a_worker_that_dies_when_all_is_done_and_not_told_yet_is_replaced(tmp_path: Path) -> None:
    deaths = [0]

    def die(_: Ended) -> None:
        if deaths[0] < 3:
            deaths[0] += 1
            raise WorkerLostError("signal 9")

    outcomes, _ = bench(tmp_path, Watched(after=die), jobs=1)
    assert [o.error for o in outcomes] == [None, None]
    assert deaths == [3]


def test_a_worker_that_sees_other_data_is_refused(tmp_path: Path) -> None:
    def change(_: Job) -> None:
        data = tmp_path / "data.jsonl"
        data.write_text(data.read_text().replace("cat", "dog"))

    with pytest.raises(ConfigError, match="are not the same for its worker"):
        bench(tmp_path, Watched(change))


def test_points_with_the_same_settings_are_run_once(tmp_path: Path) -> None:
    ran: list[str] = []
    twice = PLAN + '[[points]]\nname = "again"\nstrategy = "small"\n'
    watched = Watched(lambda job: ran.append(job.point.name))
    outcomes, _ = bench(tmp_path, watched, twice, jobs=1)
    assert [o.error for o in outcomes] == [None] * 3
    assert outcomes[0].trial == outcomes[2].trial
    assert ran == ["small", "large"]


def test_a_trial_has_its_part_of_the_budget_and_all_that_is_left_when_alone(tmp_path: Path) -> None:
    allowed: list[tuple[str, int | None]] = []
    watched = Watched(lambda job: allowed.append((job.point.name, job.allowance.messages)))
    plan = PLAN + "[budget]\nmessages = 20\n"
    outcomes, _ = bench(tmp_path, watched, plan)
    assert allowed[0] == ("small", 0)  # it sends nothing
    assert allowed[1:] == [("large", 10), ("large", 20)]  # its part, then the run's own
    (tmp_path / "turn").mkdir()
    in_turn, _ = bench(tmp_path / "turn", None, plan)
    assert str(outcomes[1].error) == str(in_turn[1].error)
    assert "messages would reach 21, over the budget, 20" in str(outcomes[1].error)


class OnePlace(Watched):
    """A cluster with room for one worker: the next can start when that one is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.place = asyncio.Lock()

    async def worker(self) -> Worker:
        await self.place.acquire()
        return _Placed(self, await super().worker())


class _Placed(_Watched):
    async def close(self) -> None:
        await super().close()
        assert isinstance(self._among, OnePlace)
        self._among.place.release()


def test_more_jobs_than_a_cluster_has_places_end_all_the_same(tmp_path: Path) -> None:
    outcomes, _ = bench(tmp_path, OnePlace(), jobs=3)
    assert [o.error for o in outcomes] == [None, None]


def test_a_search_goes_on_here_within_what_was_confirmed(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    large = 'replies = {cat = "cat", dog = "dog"'
    search = """
[search]
trials = 3
objectives = ["utility", "calls"]
[[points]]
strategy = "cascade"
threshold = {low = 0.1, high = 0.9}
"""
    plan = PLAN.replace(large, f"usd_per_m_in = 1.0\n{large}") + search
    promised: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        real = Purse.promise

        def promise(purse: Purse, usd: float) -> None:
            promised.append(purse.totals.usd + usd)
            real(purse, usd)

        patch.setattr(Purse, "promise", promise)
        outcomes, _ = bench(tmp_path, Watched(), plan)
    assert [o.error for o in outcomes] == [None] * len(outcomes)
    assert len(outcomes) > 2
    assert len(promised) == 2
    assert promised[0] == pytest.approx(promised[1])
