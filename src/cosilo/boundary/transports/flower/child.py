"""One of Flower's processes, started again whenever it ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

from cosilo.errors import ConfigError

AGAIN_S = 1.0
"""Seconds until a process that ended is started again."""

_STOP_S = 10.0
_START = (
    "import sys, json; sys.path.insert(0, {here!r}); from couriers import {which}; "
    "{which}.main(json.loads(sys.stdin.readline()))"
)
_HERE = Path(__file__).parent
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TRACING_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_THIS_MACHINE = "127.0.0.1,localhost,::1"


def quieted(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with what keeps Flower from asking the internet for anything, and a proxy for this
    machine."""
    spared = environ.get("NO_PROXY") or environ.get("no_proxy")
    direct = f"{spared},{_THIS_MACHINE}" if spared else _THIS_MACHINE
    return {**environ, **_QUIET, "NO_PROXY": direct, "no_proxy": direct}


class FlowerProcess:
    """A SuperLink or a SuperNode, with our courier in it.

    Args:
        given: what it is told as it starts.
        folder: its home, this owner's alone, where it also logs.
        python: of the environment that Flower is installed in; this one's, when empty.

    Attributes:
        ends: how often it ended by itself.
        pid: of the process that runs, or ran last.
        last: the last line that it said before it ended, for an error to quote.

    Raises:
        ConfigError: there is no such Python.
    """

    def __init__(
        self,
        which: Literal["superlink", "supernode"],
        given: Callable[[], Mapping[str, Any]],
        *,
        folder: Path,
        python: str = "",
    ) -> None:
        self.ends = self.pid = 0
        self.last = ""
        self._which = which
        self._given = given
        self._home = folder
        self._python = python or sys.executable
        self._stopping = Event()
        self._child = self._started()
        self._watching = Thread(target=self._watch, name=f"flower-{which}", daemon=True)
        self._watching.start()

    def again(self) -> None:
        """Start it anew, as things are now."""
        self._child.terminate()

    def stop(self) -> None:
        """End it; calling it twice is harmless."""
        self._stopping.set()
        self._child.terminate()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._watching.join()

    def _watch(self) -> None:
        while True:
            self._child.wait()
            self.last = self._last_line() or self.last
            self.ends += 1
            if self._stopping.wait(AGAIN_S):
                return
            self._child = self._started()
            if self._stopping.is_set():
                self._child.terminate()

    def _last_line(self) -> str:
        try:
            lines = (self._home / f"{self._which}.log").read_bytes()[-8192:].split(b"\n")
        except OSError:
            return ""
        said = [line.decode(errors="replace").strip() for line in lines]
        return "".join(c for c in next(filter(None, reversed(said)), "") if c.isprintable())[:300]

    def _started(self) -> subprocess.Popen[bytes]:
        start = _START.format(here=str(_HERE), which=self._which)
        home = {"HOME": str(self._home), "FLWR_HOME": str(self._home / "flwr")}
        try:
            with (self._home / f"{self._which}.log").open("wb") as log:
                child = subprocess.Popen(
                    [self._python, "-I", "-c", start],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={**quieted(os.environ), **home},
                    start_new_session=True,  # Ctrl-C is for us: we end it
                )
        except OSError as error:
            raise ConfigError(f"{self._python!r} cannot be run: {error.strerror}") from None
        assert child.stdin is not None
        try:
            with child.stdin as given:
                given.write(json.dumps(self._given()).encode() + b"\n")
        except OSError:
            pass  # it has ended already, and said why
        self.pid = child.pid
        return child


def free_port() -> int:
    """A port of this machine's that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
