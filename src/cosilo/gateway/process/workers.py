"""Several workers behind one socket, and a parent that keeps them alive.

    parent: binds, forks, waits ─┬─▶ worker 0   each accepts from the same socket, counts into its
                                 ├─▶ worker 1   own part of a shared memory map, and writes its own
                                 └─▶ …          chain of the ledger

A worker that dies is replaced at once, a little later each time when it dies young. The parent opens
no model and no store, so nothing is shared but the socket and the counters.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine

from cosilo import interrupts
from cosilo.errors import CosiloError
from cosilo.gateway.metrics import REGION

Work = Callable[[socket.socket, mmap.mmap, int], Coroutine[None, None, None]]

YOUNG = 5.0  # seconds: a worker that dies younger did not get far
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_PR_SET_PDEATHSIG = 1
_M_MMAP_THRESHOLD = -3
_LARGE = 64 << 10  # bytes


def run_one(listener: socket.socket, work: Work) -> int:
    """Serve in this process; returns its exit code."""
    _run(lambda: work(listener, mmap.mmap(-1, REGION), 0))
    return interrupts.EXIT_CODE if interrupts.heard() else 0


def run_many(count: int, listener: socket.socket, work: Work, *, drain_seconds: float) -> int:
    """Serve in `count` processes until told to stop; returns the exit code.

    When a worker cannot start for a reason that will not pass (its configuration), all stop.
    """
    memory = mmap.mmap(-1, REGION * count)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    workers: dict[int, tuple[int, float]] = {}  # process id → worker, when it began
    deaths = [0] * count
    due: dict[int, float] = dict.fromkeys(range(count), 0.0)
    stopping: float | None = None
    code = 0
    while True:
        now = time.monotonic()
        if stopping is None:
            for worker in [w for w, at in due.items() if at <= now]:
                del due[worker]
                workers[_fork(listener, memory, worker, work)] = (worker, now)
        elif not workers:
            return code
        elif now > stopping:
            _tell(workers, signal.SIGKILL)
        soonest = min([*due.values(), *([stopping] if stopping is not None else [])], default=None)
        wait = 60.0 if soonest is None else max(0.01, soonest - now)
        found = signal.sigtimedwait(_SIGNALS, wait)
        if found is not None and found.si_signo == signal.SIGINT:
            if code == interrupts.EXIT_CODE:  # the second one
                _tell(workers, signal.SIGKILL)
                return code
            code = interrupts.EXIT_CODE
            interrupts.say(interrupts.WORD)
        if found is not None and found.si_signo in (signal.SIGTERM, signal.SIGINT):
            stopping = stopping or time.monotonic() + drain_seconds + 5
            _tell(workers, signal.SIGTERM)
        elif found is not None and found.si_signo == signal.SIGHUP:
            _tell(workers, signal.SIGHUP)
        for worker, began, status in _dead(workers):
            if stopping is not None:
                continue
            if status == CosiloError.exit_code or status == 2:
                code, stopping = status, time.monotonic() + drain_seconds + 5
                _tell(workers, signal.SIGTERM)
                continue
            young = time.monotonic() - began < YOUNG
            deaths[worker] = deaths[worker] + 1 if young else 0
            due[worker] = time.monotonic() + min(5.0, 0.1 * (2.0 ** deaths[worker] - 1))
            print(
                f"cosilo: worker {worker} died (status {status}); starting it again",
                file=sys.stderr,
            )


def _fork(listener: socket.socket, memory: mmap.mmap, worker: int, work: Work) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _die_with(parent)
        # Ctrl-C at a terminal reaches every process of the group; the parent hears it and tells us.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS - {signal.SIGINT})
        _run(lambda: work(listener, memory, worker))
        code = 0
    except CosiloError as error:
        code = error.exit_code
        print(f"cosilo: {error}", file=sys.stderr)
    except BaseException as error:  # nothing may return into the parent's code
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)} line {last.lineno}"
        print(f"cosilo: worker {worker}: {type(error).__name__} in {where}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    _give_back_memory()
    try:
        import uvloop
    except ImportError:  # not on Windows, and not needed
        interrupts.run(main)
    else:
        interrupts.run(main, loop_factory=uvloop.new_event_loop)


def _give_back_memory() -> None:
    """Set the C allocator to return large blocks to the system as soon as they are freed."""
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (OSError, AttributeError):  # not glibc
        return


def _die_with(parent: int) -> None:
    """Have the kernel end this worker when the parent is killed; else it would keep the port."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):  # not Linux
        return
    if os.getppid() != parent:
        os._exit(1)


def _tell(workers: dict[int, tuple[int, float]], signum: int) -> None:
    for process in workers:
        os.kill(process, signum)


def _dead(workers: dict[int, tuple[int, float]]) -> list[tuple[int, float, int]]:
    """The workers that have ended since the last look: (worker, when it began, status)."""
    found = []
    for process in list(workers):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            worker, began = workers.pop(process)
            found.append((worker, began, os.waitstatus_to_exitcode(status)))
    return found
