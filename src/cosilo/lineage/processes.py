"""Which process serves something, told so that no other is taken for it later."""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PLACE = re.compile(r"process (\d+) of (\d+) on ([^\s]+), begun at (\d+)")


def this_process(main: int) -> str:
    """The place of what this process serves.

    Args:
        main: the process that began it, and that ends it when it is told to.
    """
    pid = os.getpid()
    return f"process {pid} of {main} on {socket.gethostname()}, begun at {_begun(pid)}"


@dataclass(frozen=True)
class ServingProcess:
    """A process as a place names it."""

    pid: int
    main: int
    host: str
    begun: int

    @classmethod
    def at(cls, place: str) -> ServingProcess | None:
        """None where `place` names none."""
        found = _PLACE.fullmatch(place)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), found[3], int(found[4]))

    @property
    def here(self) -> bool:
        """It ran on this machine, so that it can be seen whether it still does."""
        return self.host == socket.gethostname()

    @property
    def runs(self) -> bool:
        """Whether it still runs: the same one, and not another that was given its number."""
        return self.here and _begun(self.pid) == self.begun

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to it; to the process that began it, where it is to end.

        Raises:
            OSError: it is somebody else's.
        """
        with suppress(ProcessLookupError):
            os.kill(self.main if number == signal.SIGTERM else self.pid, number)


def _begun(pid: int) -> int:
    """When the process began, in ticks since the machine did; 0 where nobody says."""
    try:
        told = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    state, *rest = told.rpartition(b")")[2].split()
    return (
        0 if state in (b"Z", b"X") else int(rest[18])
    )  # it has ended; its parent has not looked yet
