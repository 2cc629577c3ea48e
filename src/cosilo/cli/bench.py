"""`cosilo bench`: run a plan, or finish a run that was interrupted."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo import interrupts
from cosilo.errors import ConfigError, CosiloError, of_point
from cosilo.report.screen import Screen

if TYPE_CHECKING:
    from cosilo.benchmark.estimate import Estimate
    from cosilo.benchmark.executors.base import Executor
    from cosilo.benchmark.progress import Reports
    from cosilo.benchmark.trial import Outcome

DESCRIPTION = """\
Run every point of a plan on its task, measure each, and keep everything in the run's folder.

First the cost is estimated (calls, tokens, money, minutes) and you are asked; --yes answers for you.
No LM answer is paid for twice: after an interruption, a crash or a full disk the same command goes on
where it stopped, and a finished run does nothing.

    cosilo bench plan.toml                 run it; results in runs/NAME beside the plan
    cosilo bench plan.toml --estimate      only say what is left and what it would cost; writes nothing
    cosilo bench plan.toml --offline       use recorded answers only; call nobody
    cosilo bench plan.toml --jobs 4        four points at once, each in a process of its own
    cosilo bench plan.toml --on ray        the same on a Ray cluster (extra: ray)

Exit code: 0 all points done; 1 an endpoint or a model failed; 2 the plan or the data are wrong;
3 the budget ran out; 4 the run's files. Whatever was finished is kept and can be reported."""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "bench",
        help="run a plan: every point, measured on your data",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="the plan, a TOML file")
    parser.add_argument("--run", type=Path, metavar="DIR", help="where the run is kept")
    parser.add_argument("--yes", action="store_true", help="spend what is estimated, do not ask")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="say what is left and what it would cost, and stop; nothing is written",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="make no LM call; nothing is asked either, as nothing can be spent",
    )
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="items at once, instead of the plan's number"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="points at once, each in a process of its own; 1, or the cluster's processors, if unset",
    )
    parser.add_argument(
        "--on",
        metavar="WHERE",
        help="where these processes run: ray, or ray:ADDRESS; every node must see the run's folder, "
        "the data and the models at the paths they have here",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.benchmark.loads import running
    from cosilo.benchmark.parts import load_data
    from cosilo.benchmark.plan import load_plan
    from cosilo.benchmark.runner import Runner
    from cosilo.benchmark.scratch import scratch
    from cosilo.benchmark.store import Store
    from cosilo.models.present import require_present

    plan = load_plan(arguments.plan)
    if arguments.concurrency is not None:
        if arguments.concurrency < 1:
            raise ConfigError(f"--concurrency {arguments.concurrency} is not positive")
        plan = replace(plan, concurrency=arguments.concurrency)
    folder = arguments.run or plan.base / "runs" / plan.name
    offline = arguments.offline
    if arguments.estimate:
        with scratch(folder, plan) as (store, plan):
            left = interrupts.run(Runner(plan, store, offline=offline).expected)
        Screen().say(f"{plan.name}: {left}")
        return 0

    def confirm(estimate: Estimate) -> None:
        Screen().say(f"{plan.name}: {estimate}")
        if offline:  # nothing can be spent
            Screen().say(
                "offline: nobody is called; a point that needs an answer not recorded will fail"
            )
        else:
            _ask(estimate, yes=arguments.yes)

    task = None
    if not (folder / "run.sqlite").is_file():
        # A folder is made only once all is here, and the data are known to be what the plan says.
        require_present(running(plan))
        task = load_data(plan)
    store = Store(folder, write=True)
    try:
        executor, jobs = _executor(arguments.on, arguments.jobs)
        runner = Runner(
            plan,
            store,
            offline=offline,
            reports=_reports(jobs),
            confirm=confirm,
            task=task,
            executor=executor,
            jobs=jobs,
        )
        outcomes = interrupts.run(runner.run)
    finally:
        store.close()
    return finish(outcomes, folder)


def _executor(where: str | None, jobs: int | None) -> tuple[Executor | None, int]:
    """Where trials run and how many at once; None for this process, one after another.

    Raises:
        ConfigError: there is no such place, or it is not to be had.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs} is not positive")
    if where is None:
        if jobs in (None, 1):
            return None, 1
        from cosilo.benchmark.executors.processes import Processes

        return Processes(), jobs
    kind, _, address = where.partition(":")
    if kind != "ray":
        raise ConfigError(f"--on {where!r}: trials run on ray, or ray:ADDRESS")
    from cosilo.benchmark.executors.ray import Cluster

    cluster = Cluster(address)
    return cluster, jobs or cluster.cpus


def finish(outcomes: list[Outcome], folder: Path) -> int:
    """Say how it went; the exit code of the first point that is not done."""
    from cosilo.benchmark.results import opened
    from cosilo.cli.select import show

    failed = [o for o in outcomes if o.error is not None]
    if len(failed) < len(outcomes):
        with opened(folder) as results:
            show(results)
    for outcome in failed:
        print(f"cosilo: {of_point(outcome.point.name, outcome.error)}", file=sys.stderr)
    done = len(outcomes) - len(failed)
    Screen().say(f"{done} of {len(outcomes)} points done, kept in {folder}")
    if not failed:
        Screen().say(
            f"next: cosilo select {folder} --limit NAME=VALUE, or cosilo report {folder}", indent=2
        )
        return 0
    print("what was finished is kept; the same command goes on where it stopped", file=sys.stderr)
    error = failed[0].error
    assert isinstance(error, CosiloError)
    return error.exit_code


def _ask(estimate: Estimate, *, yes: bool) -> None:
    if yes or not estimate.calls or not (estimate.usd > 0 or estimate.minutes > 0):
        return
    if not sys.stdin.isatty():
        raise ConfigError("this costs money or time on the LM: say --yes to spend it")
    if input("Go ahead? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was spent")


def _reports(jobs: int) -> Reports:
    from cosilo.benchmark.progress import Bars, Lines

    if sys.stderr.isatty():
        from rich.console import Console

        return Bars(Console(stderr=True, no_color="NO_COLOR" in os.environ), single=jobs == 1)
    return Lines(sys.stderr)
