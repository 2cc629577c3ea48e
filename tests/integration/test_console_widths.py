"""Every command's output at 60, 80 and 120 columns, in a pipe, and where only ASCII can be written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cosilo.cli import main

NAMES = ("small", "large", "cascade-of-the-two-with-a-name-of-its-own")
PLAN = """
name = "desk"
[attacks]
names = ["relink", "verbatim"]
tamper_share = 0.0
[task]
kind = "classification"
file = "data.jsonl"
columns = { secrets = "who" }
[models.small]
kind = "scripted"
confidence = 0.5
replies = { cat = "cat", dog = "cow", cow = "cow" }
[models.large]
kind = "scripted"
replies = { cat = "cat", dog = "dog", cow = "cow" }
usd_per_m_in = 1.0
[[points]]
strategy = "small"
[[points]]
strategy = "large"
[[points]]
strategy = "cascade"
threshold = 0.7
name = "cascade-of-the-two-with-a-name-of-its-own"
[limits]
privacy = 0.9
[at_least]
utility = "0.5x-large"
"""
WAYS = [
    {"columns": "60"},
    {"columns": "80"},
    {"columns": "120"},
    {},
    {"encoding": "ascii"},
    {"encoding": "latin-1", "columns": "60"},
]


class Stream(io.TextIOWrapper):
    """Standard output: a pipe, or a terminal as wide as COLUMNS says."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


def cosilo(folder: Path, way: dict[str, str], *words: object) -> str:
    """What the command says on a stream that writes no more than its encoding can."""
    encoding = way.get("encoding", "utf-8")
    out, err = (Stream(io.BytesIO(), encoding=encoding) for _ in range(2))
    out.terminal = "columns" in way
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", way.get("columns", "80"))
        patch.setenv("NO_COLOR", "1")
        assert main(list(map(str, words))) in (0, 5)  # 5: no point is certified on so few items
        out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return out.buffer.getvalue().decode(encoding)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    rows = [
        {
            "text": f"Ada{i} saw a {('cat', 'dog', 'cow')[i % 3]} on day {i}",
            "label": ("cat", "dog", "cow")[i % 3],
            "who": [f"Ada{i}"],
        }
        for i in range(90)
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "plan.toml").write_text(PLAN)
    cosilo(folder, {}, "bench", "plan.toml", "--yes", "--run", "run")
    cosilo(folder, {}, "keys", "create", "ward-7", "--usd", 5, "--per", "day", "--store", "gate")
    return folder


def test_a_terminal_that_writes_ascii_only(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosilo", "bench", "plan.toml", "--run", "run", "--yes"],
        cwd=run,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"% ^" in done.stdout


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()) or "pipe")
def test_nothing_is_lost_and_nothing_fails(run: Path, way: dict[str, str]) -> None:
    said = {
        "select": cosilo(run, way, "select", "run"),
        "bench": cosilo(run, way, "bench", "plan.toml", "--run", "run", "--yes"),
        "list": cosilo(run, way, "list", "strategies"),
        "models": cosilo(run, way, "models", "list"),
        "keys": cosilo(run, way, "keys", "list", "--store", "gate"),
        "audit": cosilo(run, way, "audit", "verify", "run"),
        "show": cosilo(run, way, "audit", "show", "run", "--day", f"{datetime.now(UTC):%Y-%m-%d}"),
        "help": cosilo(run, way, "--help") + cosilo(run, way, "fit", "--help"),
    }
    cosilo(run, way, "report", "run")
    for name in NAMES:
        assert name in said["select"]
        assert name in said["bench"]
    for word in ("leak", "(privacy)", "relink", "utility", "100.0"):
        assert word in said["select"]
    assert "no faults" in said["audit"]
    assert ": of a run" in said["show"]
    assert "not a finished request" not in said["show"]
    assert "ward-7" in said["keys"]
    assert "$0.000000," in said["keys"]
    assert "minilm-int8" in said["models"]
    words = " ".join(said["list"].split())
    assert "the share of requests that may go to the LM, 0 to 1" in words
    if width := int(way.get("columns", 0)):
        for command in ("select", "bench", "list", "models", "keys", "audit"):
            for line in said[command].splitlines():
                assert len(line) <= width or " " not in line.strip(), (command, line)
