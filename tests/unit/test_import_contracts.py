"""The import contracts of `pyproject.toml` hold, and each of them notices what it forbids."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = "Layers point downwards"
STRATEGY = "A strategy never touches the large model"

# (contract, who imports, what)
BREACHES = [
    (LAYERS, "boundary.wire.states", "parties.data_owner"),
    (LAYERS, "privacy.accountant", "boundary.meter"),
    (LAYERS, "defences.links", "strategies.base"),
    ("An attack sees only what crossed", "attacks.secrets", "tasks.base"),
    ("Nothing that talks can name a secret", "parties.data_owner", "tasks.base"),
    ("The gateway serves and does not experiment", "gateway.metrics", "benchmark.plan"),
    ("The host serves an LM owner, and knows nothing", "host.limits", "defences.base"),
    (STRATEGY, "strategies.calibration", "parties.lm_owner"),
    (STRATEGY, "strategies.cards", "parties.serving.score"),
    ("The three directions are independent", "strategies.upward.supericl", "strategies.downward"),
    ("The core imports without torch", "objectives.mean", "torch"),
    ("The gateway never names torch", "gateway.metrics", "torch"),
    ("No two siblings import each other", "tasks.base", "tasks.text"),
    ("Lineage knows nothing of what it", "lineage.requests", "tasks.base"),
    ("Inside models", "models.chat.words", "models.remote.sse"),
    ("Inside the boundary", "boundary.wire.states", "boundary.messages.ask"),
    ("Inside the federation", "federation.updates", "federation.rules"),
    ("Inside the parties", "parties.serving.base", "parties.around.recorded"),
    ("Inside the gateway", "gateway.accounts.keys", "gateway.web.api"),
    ("Inside the host", "host.limits", "host.server"),
    ("Inside the benchmark", "benchmark.trial", "benchmark.executors.base"),
]


def named(module: str) -> str:
    return module if module == "torch" else f"cosilo.{module}"


def last(module: str) -> str:
    return module.rpartition(".")[2]


def linted(source: Path) -> tuple[int, str]:
    """What import-linter says of the package in `source`."""
    lint = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    done = subprocess.run(
        [lint, "--no-cache", "--no-logo", ROOT / "pyproject.toml"],
        cwd=source, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("copied")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "cosilo", source / "cosilo", ignore=ignored)
    return source


def test_the_tree_keeps_them(copy: Path) -> None:
    code, said = linted(copy)
    assert code == 0, said


@pytest.mark.parametrize(("contract", "importer", "imported"), BREACHES)
def test_a_planted_breach_is_found(contract: str, importer: str, imported: str, copy: Path) -> None:
    path = copy / "cosilo" / f"{importer.replace('.', '/')}.py"
    before = path.read_text("utf-8")
    path.write_text(f"{before}\nimport {named(imported)}\n", "utf-8")
    try:
        code, said = linted(copy)
    finally:
        path.write_text(before, "utf-8")
    assert code == 1, said
    assert re.search(rf"^{re.escape(contract)}.* BROKEN$", said, re.M), said
    # Of a cycle the two are named without what they have in common.
    arrow = f"{last(importer)} -> {last(imported)} ("
    assert arrow in re.sub(r"[\w.]*\.(?=\w)", "", said), said


def test_every_contract_is_tried() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    names = [contract["name"] for contract in contracts["contracts"]]
    assert [n for n in names if not any(n.startswith(b[0]) for b in BREACHES)] == []
