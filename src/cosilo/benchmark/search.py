"""Proposes points inside the ranges of a plan, learning from the ones already measured.

Optuna's multi-objective TPE sampler, seeded. Resuming asks and tells the same trials in the same
order, so the same points are proposed, and what is stored is not run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cosilo.benchmark.plan import Search, Space
from cosilo.benchmark.rows import Result
from cosilo.errors import ConfigError
from cosilo.objectives.base import objectives
from cosilo.registry import unknown
from cosilo.session import PointConfig


class Proposals:
    """Ask for a point, tell its numbers, as often as the search allows.

    Args:
        spaces: the points with ranges; each proposal belongs to one.
        seed: of the sampler.

    Raises:
        ConfigError: Optuna is not installed, or an objective is not known.
    """

    def __init__(self, spaces: Sequence[Space], search: Search, *, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError("[search] needs Optuna: pip install 'cosilo[bench]'") from None
        goals = {
            m.objective.name: m.objective.goal for m in map(objectives.create, objectives.names())
        }
        for name in search.objectives:
            if name not in goals:
                raise ConfigError(f"[search]: {unknown('objective', name, goals)}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._spaces = {space.point.name: space for space in spaces}
        self._search = search
        self._study = optuna.create_study(
            directions=["maximize" if goals[n] == "max" else "minimize" for n in search.objectives],
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, search.trials)),
        )

    def ask(self) -> tuple[Any, PointConfig]:
        """The next point to try, with what `tell` wants back."""
        trial = self._study.ask()
        name = trial.suggest_categorical("point", sorted(self._spaces))
        space = self._spaces[name]
        chosen: dict[str, float] = {}
        for key, r in space.ranges.items():
            label = f"{name}: {key}"
            if key in space.whole:
                chosen[key] = trial.suggest_int(label, int(r.low), int(r.high), log=r.log)
            else:
                chosen[key] = trial.suggest_float(label, r.low, r.high, log=r.log)
        return trial, space.at(chosen)

    def tell(self, asked: Any, found: Result | None) -> None:
        """The numbers of a point that was asked for; None when it could not be measured."""
        names = self._search.objectives
        values = {m.objective.name: m.value for m in found.measurements} if found else {}
        if any(name not in values for name in names):
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, [values[name] for name in names])
