"""A process is known by when it began, so that no other is taken for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from cosilo.lineage.processes import ServingProcess, this_process


def test_a_place_names_a_process_and_no_other() -> None:
    place = this_process(os.getpid())
    found = ServingProcess.at(place)
    assert found is not None
    assert (found.pid, found.main) == (os.getpid(), os.getpid())
    assert found.here
    assert found.runs
    assert not replace(found, begun=found.begun + 1).runs  # its number was given to another
    assert not replace(found, host="elsewhere").runs
    assert ServingProcess.at("run.sqlite#items") is None


def test_a_process_that_has_ended_does_not_run_though_nobody_has_looked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    place = this_process(1).replace(str(os.getpid()), str(child.pid), 1)
    begun = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    found = ServingProcess.at(f"{place.rpartition(' ')[0]} {begun}")
    assert found is not None
    assert found.runs
    child.communicate(b"\n")
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    begun = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert not replace(found, pid=child.pid, begun=int(begun)).runs
    child.wait()


def test_a_process_that_has_ended_runs_runs_no_more_and_is_told_nothing() -> None:
    code = "from cosilo.lineage.processes import this_process; print(this_process(1 << 22))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = ServingProcess.at(done.stdout.strip())
    assert found is not None
    assert not found.runs
    found.tell(signal.SIGTERM)  # of a number that no process has
