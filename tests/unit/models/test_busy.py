"""The CPU time of an engine's threads is shared among those it worked for."""

from __future__ import annotations

import threading
from time import thread_time

from cosilo.models.busy import Busy


def _burn(seconds: float) -> float:
    start = thread_time()
    while thread_time() - start < seconds:
        pass
    return thread_time() - start


class Engine:
    """A thread of its own that burns CPU when told to."""

    def __init__(self) -> None:
        self.work: float | None = 0.0
        self.turn = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.used = 0.0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while self.turn.acquire() and self.work is not None:
            self.used += _burn(self.work)
            self.done.release()

    def burn(self, seconds: float | None) -> None:
        self.work = seconds
        self.turn.release()
        if seconds is not None:
            self.done.acquire()


def test_alone_it_is_all_and_together_it_is_shared_out() -> None:
    with Busy.noticing(1) as busy:
        engine = Engine()
    with busy.share() as first:
        engine.burn(0.05)
        with busy.share() as second:
            engine.burn(0.10)
            _burn(0.02)  # this thread is not the engine's
        engine.burn(0.05)
    engine.burn(0.05)  # nobody's
    with busy.share() as idle:
        pass
    engine.burn(None)
    engine.thread.join()
    assert abs(first.seconds - 0.15) < 0.03
    assert abs(second.seconds - 0.05) < 0.02
    assert idle.seconds < 0.01


def test_where_threads_cannot_be_seen_wall_time_stands_in() -> None:
    busy = Busy(2, frozenset())
    with busy.share() as share:
        wall = _burn(0.02)
    assert share.seconds >= 2 * wall
