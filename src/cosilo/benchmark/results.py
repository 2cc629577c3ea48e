"""A run as selection and reports read it: its finished points with their numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.benchmark.missing import no_run
from cosilo.benchmark.places import plan_of
from cosilo.benchmark.plan import Plan, limit_texts
from cosilo.benchmark.record import fault
from cosilo.benchmark.rows import Result, Trial
from cosilo.benchmark.store import Store
from cosilo.errors import ConfigError, StoreError
from cosilo.objectives.base import Measurement
from cosilo.registry import unknown
from cosilo.selection import Limit, Point, objectives_of, parse_limit


@dataclass(frozen=True)
class Results:
    """What a run holds.

    Attributes:
        points: the finished ones, in the plan's order.
        trials: every point's name → its trial, finished or not.
        unfinished: name → why a point has no numbers.
        damaged: those of them that are done, but whose record is not whole → what is wrong with it.
    """

    plan: Plan
    store: Store
    task: str
    points: tuple[Point, ...]
    trials: Mapping[str, Trial]
    unfinished: Mapping[str, str]
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def way_on(self) -> str:
        """A sentence on how to get numbers for the points whose record is not whole."""
        return (
            f"cosilo bench {shlex.quote(str(self.plan.path))} --run "
            f"{shlex.quote(str(self.store.path))} answers again what is not on record; replies that "
            "the LM has given are recorded, and cost nothing"
        )

    def trial(self, point: str) -> Trial:
        """Raises:
        ConfigError: the run has no such point; the message gives the nearest name.
        """
        if point not in self.trials:
            raise ConfigError(unknown("point", point, self.trials))
        return self.trials[point]


@contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[Results]:
    """The run in the folder `path`.

    Raises:
        ConfigError: there is no run.
        StoreError: its files cannot be read.
    """
    if write and not (path / "run.sqlite").is_file():
        raise no_run(path)  # opening it to write would make one
    store = Store(path, write=write)
    try:
        yield read_results(store)
    finally:
        store.close()


def read_results(store: Store) -> Results:
    """Everything that is finished in the run; a point whose record is not whole gives no number."""
    about = store.read_json("run.json")
    named, task = about.get("points"), about.get("task")
    if not (isinstance(named, dict) and isinstance(task, str)):
        raise StoreError(f"{str(store.path / 'run.json')!r} is not a run's description")
    plan = plan_of(about, store.read_text("plan.toml"), store.path)
    points: list[Point] = []
    trials: dict[str, Trial] = {}
    unfinished: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for name, id in named.items():
        trial = store.trial(id)
        if trial is None:
            unfinished[name] = "not started"
            continue
        trials[name] = trial
        wrong = fault(store, trial) if trial.state == "done" else ""
        if wrong:
            unfinished[name] = damaged[name] = wrong
            continue
        point = _point(store, name, trial)
        if point is None:
            unfinished[name] = trial.error or "interrupted"
        else:
            points.append(point)
    return Results(plan, store, task, tuple(points), trials, unfinished, damaged)


def limits_for(
    results: Results, at_most: Sequence[str], at_least: Sequence[str]
) -> tuple[Limit, ...]:
    """The limits that the flags state, or those of the plan when there are no flags.

    Raises:
        ConfigError: a limit names an unknown objective or point, or is none.
    """
    if not at_most and not at_least:
        at_most, at_least = limit_texts(results.plan.limits, results.plan.at_least)
    known = objectives_of(results.points)
    names = [p.name for p in results.points]
    return (
        *(parse_limit(text, known, points=names, direction="at most") for text in at_most),
        *(parse_limit(text, known, points=names, direction="at least") for text in at_least),
    )


def ceilings_of(results: Results) -> dict[str, float]:
    """Objective name → the most one item can have, where the plan's `[request_budget]` enforces it.

    A retry can bill a prompt again, so these are counted in. Where an item has more all the same
    (an endpoint billed more than it was sent), nothing is enforced, and the objective is left out.
    """
    plan = results.plan
    given = plan.request_budget
    tries = max(peer.price.attempts for peer in plan.peers.values())
    found = {
        "usd_per_1k": None if given.usd is None else 1000 * tries * given.usd,
        "tokens_in": None if given.tokens_in is None else tries * given.tokens_in,
        "tokens_out": given.tokens_out,
        "bytes_up": given.bytes_up,
        "round_trips": given.messages,
    }
    return {
        name: float(most)
        for name, most in found.items()
        if most is not None
        and all((p.certificate.get(name, np.zeros(1)) <= most).all() for p in results.points)
    }


def compared(points: Sequence[Point]) -> tuple[str, ...]:
    """What a run's front is made of: utility, the chief privacy objective, and what a call costs.

    Money where any point costs some, calls otherwise; an objective that was not measured is left out.
    """
    known = objectives_of(points)
    privacy = [name for name, o in known.items() if o.family == "privacy"]
    chief = "privacy" if "privacy" in known else next(iter(privacy), None)
    priced = any(
        p.validation["usd_per_1k"].value > 0 for p in points if "usd_per_1k" in p.validation
    )
    wanted = ("utility", chief, "usd_per_1k" if priced else "calls")
    return tuple(name for name in wanted if name in known)


def _point(store: Store, name: str, trial: Trial) -> Point | None:
    validation, test = store.result(trial.id, "validation"), store.result(trial.id, "test")
    if trial.state != "done" or validation is None or test is None:
        return None
    certificate = store.result(trial.id, "certificate")
    settings: dict[str, Any] = json.loads(trial.settings)
    return Point(
        id=trial.id,
        name=name,
        strategy=settings["strategy"],
        defences=tuple(d["name"] for d in settings["defences"]),
        settings=settings["options"],
        validation=_by_name(validation),
        test=_by_name(test),
        certificate=certificate.values if certificate is not None else {},
    )


def _by_name(result: Result) -> dict[str, Measurement]:
    return {m.objective.name: m for m in result.measurements}
