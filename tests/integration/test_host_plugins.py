"""A host serves the exchanges that an installed package brings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.integration.gateway import MAIN, Process
from tests.integration.hosts import write_host

PLUGIN = """\
print("the plug-in is loaded")


def make():
    return None
"""


def test_a_host_loads_what_plug_ins_bring_before_it_serves(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "ranker-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ranker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cosilo.strategy]\nranker = a_ranker:make\n")
    (site / "a_ranker.py").write_text(PLUGIN)
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    host = Process(
        [sys.executable, "-c", MAIN, "host", str(write_host(tmp_path))], PYTHONPATH=paths
    )
    try:
        host.wait_for("the plug-in is loaded")
        host.wait_for("serves clinic")
    finally:
        host.stop()
