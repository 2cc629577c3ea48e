"""Split learning between two processes over TLS, each killed in turn: the same weights to the bit."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest
from tests.integration.gateway import Process
from tests.integration.hosts import HostProcess, write_host

pytest.importorskip("torch")
pytest.importorskip("peft")

import tiny_lm

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

MODEL = """\
kind = "torch"
path = "model"
precision = "float32"
exposes = "weights"
body = { rank = 2, learning_rate = 1e-2, folder = "adapters" }"""
SIDE = Path(__file__).with_name("split_side.py")


def home(folder: Path, port: int) -> Process:
    return Process([sys.executable, str(SIDE), str(folder), str(port)], cwd=folder)


def ended(process: Process) -> str:
    found = process.wait_for(r"ended (\w+) restarts (\d+)", seconds=120)
    assert process.child.wait(60) == 0
    process.stop()
    assert found[2] == "0", "nobody had to begin anew"
    return str(found[1])


def test_whoever_is_killed_both_come_to_the_weights_of_an_undisturbed_run(tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
    tiny_lm.folder(calm / "model", seed=0, layers=4)
    shutil.copytree(calm / "model", rough / "model")
    host = HostProcess(write_host(calm, model=MODEL))
    try:
        wanted = ended(home(calm, host.port))
    finally:
        host.kill()

    host = HostProcess(write_host(rough, model=MODEL))
    try:
        side = home(rough, host.port)
        side.wait_for("step 3", seconds=120)
        side.stop(signal.SIGKILL)
        side = home(rough, host.port)
        side.wait_for("step 6", seconds=120)
        port = host.port
        host.kill()
        host = HostProcess(write_host(rough, model=MODEL, port=port))
        side.wait_for("step 8", seconds=120)
        side.stop(signal.SIGKILL)
        host.kill()
        host = HostProcess(write_host(rough, model=MODEL, port=port))
        assert ended(home(rough, port)) == wanted
    finally:
        host.kill()
    kept = sorted(path.name[:10] for path in (rough / "adapters").rglob("*.safetensors"))
    assert kept == ["0000000011", "0000000012"]
