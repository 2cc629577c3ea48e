"""The process in which a model's SQL runs, so that nothing it does can hang or exhaust this one.

    this process ── path, clock, limits, SQL ──▶ python -m cosilo.tasks.query_process
                 ◀────────── rows, or why not ──┘       under the kernel's limits on CPU time and memory

SQLite asks its progress handler only between operations: nested WITH clauses that double at each
level take exponential time and memory while they are compiled, and TRIM of a long text by a long text
minutes in one operation. The kernel stops those; the next query gets a new process.
"""

from __future__ import annotations

import math
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from cosilo import child_process
from cosilo.errors import DataError
from cosilo.tasks.query import QueryError, QueryLimits, Rows, query

_SPARE_MEMORY = 64 << 20  # so that the limit which can say its reason is met first


class _Question(msgspec.Struct, array_like=True):
    path: str
    sql: str
    clock: str
    limits: QueryLimits


class _Answer(msgspec.Struct, array_like=True):
    """What the process answers to one query.

    Attributes:
    failure: why there are no rows, empty where there are; `broken`: the database is to blame.
    """

    rows: Sequence[Sequence[Any]] = ()
    failure: str = ""
    broken: bool = False


class QueryProcess:
    """Runs queries one at a time; the process starts with the first and goes with this object."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None  # stops the process, once

    def query(self, path: Path, sql: str, *, clock: str, limits: QueryLimits) -> Rows:
        """As `query.query`.

        Raises:
            QueryError: not a single SELECT, not valid, or over a limit.
            DataError: the file cannot be opened, or no process can be started.
        """
        try:
            question = msgspec.msgpack.encode(_Question(str(path), sql, clock, limits))
        except UnicodeEncodeError:
            raise QueryError("UnicodeEncodeError") from None
        with self._turn:
            answer = self._asked(question, limits)
            if answer.failure == "MemoryError" or answer.failure.startswith("stopped"):
                self._end()  # what it has left behind would count against the next query
        if answer.broken:
            raise DataError(answer.failure)
        if answer.failure:
            raise QueryError(answer.failure)
        return [tuple(row) for row in answer.rows]

    def _asked(self, question: bytes, limits: QueryLimits) -> _Answer:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        data = None
        try:
            child_process.send(process.stdin, question)
            data = child_process.receive(process.stdout)
        except OSError:  # it ended in the middle
            pass
        finally:
            if data is None:
                self._end()
        if data is not None:
            return msgspec.msgpack.decode(data, type=_Answer)
        if process.returncode == -signal.SIGXCPU:
            return _Answer(failure=f"stopped after {limits.seconds:g} s")
        return _Answer(failure="stopped with its process")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            try:
                self._process = child_process.start(__name__)
            except OSError as error:
                what = error.strerror or type(error).__name__
                raise DataError(f"no process for queries can be started: {what}") from None
            self._end = weakref.finalize(self, child_process.end, self._process)
        return self._process


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer queries from `questions` until that pipe is closed."""
    while (data := child_process.receive(questions)) is not None:
        asked = msgspec.msgpack.decode(data, type=_Question)
        _limit(asked.limits)
        try:
            rows = query(Path(asked.path), asked.sql, clock=asked.clock, limits=asked.limits)
            answer = _Answer(rows)
        except QueryError as error:
            answer = _Answer(failure=str(error))
        except DataError as error:
            answer = _Answer(failure=str(error), broken=True)
        child_process.send(answers, msgspec.msgpack.encode(answer))


def _limit(limits: QueryLimits) -> None:
    """Set the kernel's limits on this process for one query. CPU time gets one second more: the
    kernel counts whole seconds.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + limits.seconds) + 1
    sizes = [(resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)]
    with suppress(OSError, ValueError, IndexError):  # only Linux says how large it is
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        space = pages * resource.getpagesize() + limits.memory_bytes + _SPARE_MEMORY
        sizes.append((resource.RLIMIT_AS, space))
    for kind, most in sizes:
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(
            kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    child_process.leave_no_core()
    _serve(sys.stdin.buffer, sys.stdout.buffer)
