"""What a benchmark found, kept as a file that pages are made from.

    found = Kept("certificate", seed=0)
    found.put("a share, exactly at the limit", "false", 0.037, n=1000, low=0.026, high=0.051)
    found.write()                                        # benchmarks/results/certificate.json

Each file holds its values, each with its n and 95 % interval where it has one, and what made them: the
command, the commit (and whether the tree had uncommitted changes), the date, the seed, the processor
and its cores, and the versions of what computes. No host name. `benchmarks/page.py` makes
docs/results.md from these files.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COMPUTES = (
    "cosilo", "numpy", "scipy", "scikit-learn", "onnxruntime", "tokenizers", "torch", "transformers",
    "xllamacpp", "spacy", "presidio-analyzer",
)  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A value with its number of observations and 95 % interval, where it has them."""

    value: float
    n: int | None = None
    low: float | None = None
    high: float | None = None


class Kept:
    """The numbers of one benchmark, as rows of named columns.

    Args:
        name: of the file.
        seed: of everything that is drawn, where one seed does it.
        settings: what else decides the numbers (precision, threads, sizes).
        fresh: False to add to what an earlier call of the benchmark has found.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int | None = None,
        settings: Mapping[str, Any] | None = None,
        fresh: bool = True,
    ) -> None:
        self.path = RESULTS / f"{name}.json"
        self._seed, self._settings = seed, dict(settings or {})
        self._rows: dict[str, dict[str, Any]] = {}
        if not fresh and self.path.exists():
            self._rows = json.loads(self.path.read_text("utf-8"))["rows"]

    def put(
        self,
        row: str,
        column: str,
        value: float,
        *,
        n: int | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        given = {"value": value, "n": n, "low": low, "high": high}
        number = {k: _plain(v) for k, v in given.items() if v is not None}
        self._rows.setdefault(row, {})[column] = number

    def put_mean(
        self,
        row: str,
        column: str,
        values: Sequence[float],
        *,
        within: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        """The mean of one number a seed (or run), with its interval by Student's t, as far as that
        lies `within` what the number can be."""
        from scipy import stats

        mean = sum(values) / len(values)
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        low, high = max(within[0], mean - half), min(within[1], mean + half)
        self.put(row, column, mean, n=len(values), low=low, high=high)

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → column → value, n, low, high."""
        return self._rows

    def write(self) -> Path:
        """The file, with what made it."""
        RESULTS.mkdir(exist_ok=True)
        about = {
            "command": command(),
            **commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "seed": self._seed,
            "settings": self._settings,
            "machine": machine(),
            "versions": versions(),
            "rows": self._rows,
        }
        self.path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"kept in {self.path.relative_to(ROOT)}", file=sys.stderr)
        return self.path


def _plain(value: Any) -> float | int:
    """A number as JSON has it, to six significant digits."""
    return value if isinstance(value, int) else float(f"{float(value):.6g}")


def command() -> str:
    """The command that is running, as somebody else would type it."""
    script = Path(sys.argv[0]).resolve()
    place = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    given = [f'"{a}"' if " " in a else a for a in sys.argv[1:]]
    return " ".join(["python", str(place), *given])


def commit() -> dict[str, Any]:
    def git(*what: str) -> str:
        done = subprocess.run(["git", *what], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    # A page or another benchmark's results that are not committed yet change no number.
    others = ("--", ".", ":!benchmarks/results*", ":!docs", ":!*.md")
    changed = bool(git("status", "--porcelain", *others))
    return {"commit": git("rev-parse", "--short=10", "HEAD"), "uncommitted_changes": changed}


def machine() -> dict[str, Any]:
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M)
        model = found.group(1) if found else model
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "system": platform.system()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in COMPUTES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def load(name: str) -> dict[str, Any]:
    """The kept file `name`.

    Raises:
        FileNotFoundError: no benchmark has written it.
    """
    return dict(json.loads((RESULTS / f"{name}.json").read_text("utf-8")))


class Cells:
    """What a benchmark has done so far, by name, in `path`: one that was stopped goes on there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def put(self, name: str, value: Any) -> None:
        self.done[name] = value
        beside = self.path.with_suffix(".new")  # so that a kill leaves the old file or the new one
        beside.write_text(json.dumps(self.done), "utf-8")
        beside.replace(self.path)


def json_lines(file: Path) -> list[Any]:
    """The lines of `file`, each of which is JSON."""
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]


def noted(file: Path) -> list[Any]:
    """What `note` has written into `file` so far."""
    return json_lines(file) if file.exists() else []


def note(file: Path, row: Any) -> None:
    """Writes `row` behind the others of `file`, so that a benchmark that was stopped goes on there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
