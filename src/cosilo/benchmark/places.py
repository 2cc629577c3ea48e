"""Where a run's plan, data and model files are now: a run may have been moved since it was made.

    run.json   plan            where the plan was
               plan_from_run   the same, as a path from the run's folder
               data, models    what lay there: name → SHA-256

A run moves alone, or with all that stands around it. So both places are looked at, and files are known
by their content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cosilo.benchmark.identity import task_identity
from cosilo.benchmark.plan import Plan, parse_plan
from cosilo.bundle import digest_of
from cosilo.errors import ConfigError, StoreError
from cosilo.strategies.base import ONE

Data = Literal["same", "changed", "gone"]


def described(plan: Plan, folder: Path) -> dict[str, object]:
    """What `run.json` says of the places of a run in `folder`."""
    return {
        "plan": str(plan.path),
        "plan_from_run": os.path.relpath(plan.path, folder.absolute()),
        "data": {name: digest_of(path) for name, path in _data(plan).items() if path.exists()},
        "models": {name: digest_of(path) for name, path in _models(plan).items() if path.exists()},
    }


def plan_of(about: Mapping[str, object], text: str, folder: Path) -> Plan:
    """The plan with its paths from where its files are now.

    Raises:
        StoreError: `about` says nothing of its place.
    """
    was = about.get("plan")
    if not isinstance(was, str):
        raise StoreError(f"{str(folder / 'run.json')!r} is not a run's description")
    near = about.get("plan_from_run")
    wanted = [folder.absolute() / near] if isinstance(near, str) else []
    plans = [parse_plan(text, Path(os.path.normpath(path))) for path in (*wanted, Path(was))]
    return max(plans, key=lambda plan: sum(path.exists() for path in _all(plan)))


def moved(path: Path, about: Mapping[str, object], plan: Plan) -> Path:
    """`path`, which lay below the plan's old folder, where that folder is now."""
    was = Path(str(about["plan"])).parent
    return plan.base / path.relative_to(was) if path.is_relative_to(was) else path


def data_now(about: Mapping[str, object], plan: Plan) -> Data:
    """Whether the data files are what the run was measured on."""
    files, known = _data(plan), about.get("data")
    here = str(plan.path) == about["plan"]
    if not isinstance(known, dict):  # made before contents were kept apart
        same = task_identity(plan) == about["task"]
    else:
        files = {name: plan.base / name for name in known}
        same = all(p.exists() and digest_of(p) == known[name] for name, p in files.items())
    if same:
        return "same"
    # Beside a run that was moved lie other people's files of the same name.
    return "changed" if here and all(path.exists() for path in files.values()) else "gone"


def require_models(about: Mapping[str, object], plan: Plan) -> None:
    """Refuse model files that are not those that the run was measured with.

    Raises:
        ConfigError: one has another content; a missing one is told by whoever loads it.
    """
    known = about.get("models")
    if not isinstance(known, dict):
        return
    for name, path in _models(plan).items():
        if name in known and path.exists() and digest_of(path) != known[name]:
            raise ConfigError(
                f"[models.{name}]: {str(path)!r} is not the file that the run was measured with "
                f"(expected sha256 {known[name][:16]}…)"
            )


def _data(plan: Plan) -> dict[str, Path]:
    """The plan's data files, by the names it gives them."""
    named = [name for names in plan.task.files.values() for name in names] + [*plan.task.public]
    named += [v for v in plan.task.options.values() if isinstance(v, str) and _is_path(v, plan)]
    return {name: plan.base / name for name in named}


def _is_path(value: str, plan: Plan) -> bool:
    return bool(value) and os.path.exists(plan.base / value)


def _models(plan: Plan) -> dict[str, Path]:
    """The files and folders that the plan's models are read from: "small.path" → where it is."""
    roles = {"small": plan.small, "embedder": plan.embedder} | {
        name if name == ONE else f"{ONE}.{name}": config for name, config in plan.peers.items()
    }
    return {
        f"{role}.{option}": value
        for role, config in roles.items()
        if config is not None
        for option, value in config.options.items()
        if isinstance(value, Path) and option not in ("checkpoints", "state_file")
    }


def _all(plan: Plan) -> list[Path]:
    shared = [plan.replay.path] if plan.replay.path is not None else []
    around = [v for p in plan.points for d in p.defences for v in d.options.values()]
    own = [path for path in around if isinstance(path, Path)]
    return [*_data(plan).values(), *_models(plan).values(), *shared, *own]
