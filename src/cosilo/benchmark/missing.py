"""What is said where there is no run."""

from __future__ import annotations

from pathlib import Path

from cosilo.errors import ConfigError

_RUNS_SHOWN = 5


def no_run(path: Path) -> ConfigError:
    """The error that says there is no run at `path`, and which ones lie in it or beside it."""
    if path.is_dir():
        places, why = [path, path / "runs"], "it has no run.sqlite"
    else:
        places, why = [path.parent], "there is no such folder"
    found = sorted(str(run.parent) for place in places for run in place.glob("*/run.sqlite"))
    runs = ", ".join(map(repr, found[:_RUNS_SHOWN])) + (", …" if len(found) > _RUNS_SHOWN else "")
    advice = (
        f"runs are there: {runs}"
        if found
        else "`cosilo bench PLAN` makes one, runs/NAME beside the plan"
    )
    return ConfigError(f"{str(path)!r} is not a run: {why}; {advice}")
