"""Scores stored trials: nothing in here calls a model that answers, so scoring again is free."""

from __future__ import annotations

from collections.abc import Sequence

from cosilo.benchmark.identity import hash_of, plain, source_identity
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.store import Result, Store, Trial
from cosilo.objectives import attacked, item_values, measure_all
from cosilo.objectives.base import Run
from cosilo.tasks.base import Split

MEASURED: tuple[Split, ...] = ("validation", "certificate", "test")
BACKGROUND: tuple[Split, ...] = ("train", "tune")


def measuring_version(plan: Plan) -> str:
    """What the numbers depend on besides the trial: who attacks, how it is scored, prices, link."""
    return hash_of(
        [
            source_identity("attacks", "objectives"),
            plain(plan.attacks),
            plain(plan.large.price),
            plain(plan.link),
        ]
    )


async def measure(
    plan: Plan, store: Store, task: str, trial: Trial, *, only: Sequence[str] | None = None
) -> None:
    """Attack and score `trial` on every split, and keep the numbers.

    Args:
        only: the attacks to use, instead of those of the plan.
    """
    names = plan.attacks.names if only is None else tuple(only)
    version = measuring_version(plan)
    for split in MEASURED:
        run = load_run(plan, store, task, trial, split)
        if run.items:
            run = await attacked(run, names=names, seed=plan.seed)
            store.put_result(
                trial.id, split, version, Result(tuple(measure_all(run)), item_values(run))
            )


def load_run(plan: Plan, store: Store, task: str, trial: Trial, split: Split) -> Run:
    """What a measure may read of `trial` on `split`; `task` is the task's identity."""
    about = store.about(task)
    examples = store.examples(task, split)
    attempts = store.answered(trial.id, "plain", split)
    return Run(
        items=store.items(trial.id, "plain", split, examples),
        entries=lambda: store.record(trial.id, split, attempts),
        prepare=lambda: store.prepare_record(trial.id, trial.attempt, MEASURED),
        background=tuple(e for s in BACKGROUND for e in store.examples(task, s)),
        price=plan.large.price,
        link=plan.link,
        tampered=store.items(trial.id, "tampered", split, examples),
        labels=about.labels,
        gold_secrets=about.gold_secrets,
        peak_memory=trial.memory,
    )
