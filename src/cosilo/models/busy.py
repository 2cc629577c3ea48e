"""What each of several requests under way at once took of an engine's CPU time.

The engine computes in threads of its own, for all requests together. The time these threads used
between two events (a request comes or goes) is shared out evenly among the requests of that while.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

_TASKS = Path("/proc/self/task")


@dataclass
class Share:
    """One request's share of the engine's CPU seconds; known when the request has ended."""

    seconds: float = 0.0


class Busy:
    """Shares out the CPU time of one engine among the requests under way.

    Where the system does not tell what a thread used (only Linux does), a busy engine is taken to keep
    `threads` cores busy.
    """

    def __init__(self, threads: int, tasks: frozenset[str]) -> None:
        self._threads = threads
        self._tasks = tasks
        self._lock = threading.Lock()
        self._last = 0.0
        self._now = 0
        self._each = 0.0  # CPU seconds of a request that would have run all the time

    @classmethod
    @contextmanager
    def noticing(cls, threads: int) -> Iterator[Busy]:
        """A `Busy` for the engine whose threads start in here."""
        before = _tasks()
        busy = cls(threads, frozenset())
        yield busy
        busy._tasks = _tasks() - before

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A context for one request; its `Share` is filled in when the request ends."""
        share = Share()
        start = self._event(+1)
        try:
            yield share
        finally:
            share.seconds = self._event(-1) - start

    def _event(self, change: int) -> float:
        with self._lock:
            used = self._used()
            if self._now:
                self._each += max(0.0, used - self._last) / self._now
            self._last = used
            self._now += change
            return self._each

    def _used(self) -> float:
        if not self._tasks:
            return perf_counter() * self._threads
        return sum(map(_cpu_seconds, self._tasks))


def _tasks() -> frozenset[str]:
    try:
        return frozenset(os.listdir(_TASKS))
    except OSError:
        return frozenset()


def _cpu_seconds(task: str) -> float:
    try:
        return int((_TASKS / task / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
