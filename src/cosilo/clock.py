"""What each item cost the local machine, although many items share one process.

Wall and CPU time of the whole process say nothing about one of eight items under way at once, so
the time is counted where it is spent: every step of the item's own coroutines (and of tasks they
start) is timed on its own, and so is every job they hand to a thread. Waiting is never counted.
Within `aside` the time goes to another clock: the LM runs in there, because its work is not the
data owner's, also when both models share this machine.

What a back end does in threads of its own is seen by neither; a model states that in its
`Generation` (`seconds`, `cpu_seconds`), and the caller adds it. What a process apart does for an item
is charged by whoever keeps the process (`charge`).
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Clock:
    """Seconds of work, on the wall and of CPU."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, seconds: float, cpu_seconds: float) -> None:
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds


@dataclass(frozen=True)
class Effort:
    """What a piece of work took of the process that did it, with all of its threads.

    Attributes:
        seconds: on the wall, waiting included.
        cpu_seconds: of the whole process.
        memory: peak resident bytes of the whole process meanwhile, and of what it held before.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0

    def __add__(self, later: Effort) -> Effort:
        return Effort(
            self.seconds + later.seconds,
            self.cpu_seconds + later.cpu_seconds,
            max(self.memory, later.memory),
        )


class Stopwatch:
    """Measures the effort of this process from its making on."""

    def __init__(self) -> None:
        reset_peak_memory()
        self._began = perf_counter(), process_time()

    def read(self) -> Effort:
        """The effort so far."""
        wall, cpu = self._began
        return Effort(perf_counter() - wall, process_time() - cpu, peak_memory())


def reset_peak_memory() -> None:
    """Let the kernel count this process's peak memory anew, where it can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Peak resident bytes since `reset_peak_memory`, or of the process where that cannot be."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_now: ContextVar[Clock | None] = ContextVar("cosilo_clock", default=None)


@contextmanager
def on(clock: Clock | None) -> Iterator[None]:
    """Tasks and jobs started in here are timed on `clock`."""
    token = _now.set(clock)
    try:
        yield
    finally:
        _now.reset(token)


async def timed(work: Coroutine[Any, Any, T], clock: Clock) -> T:
    """The result of `work`, its time added to `clock`."""
    with on(clock):
        return await asyncio.get_running_loop().create_task(work)


async def aside(work: Coroutine[Any, Any, T], clock: Clock | None = None) -> T:
    """The result of `work`, its time added to `clock` and to no clock outside."""
    outer, inner, own = _now.get(), clock or Clock(), Clock()
    try:
        with on(inner):
            return await _Steps(work, own)
    finally:
        inner.add(own.seconds, own.cpu_seconds)
        if outer is not None:  # these steps were part of the caller's own
            outer.add(-own.seconds, -own.cpu_seconds)


def charge(cpu_seconds: float) -> None:
    """Count CPU time that another process spent for whoever is timed now."""
    clock = _now.get()
    if clock is not None:
        clock.add(0.0, cpu_seconds)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Time the tasks and the threads of `loop`, wherever a clock is on."""
    loop.set_task_factory(_task)
    loop.set_default_executor(_Threads(max_workers=4, thread_name_prefix="cosilo"))


def _task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: Context | None = None,
) -> asyncio.Task[T]:
    clock = context.get(_now) if context is not None else _now.get()
    if clock is None or not asyncio.iscoroutine(work):
        return asyncio.Task(work, loop=loop, context=context)
    return asyncio.Task(_Steps(work, clock), loop=loop, context=context)


class _Steps(Coroutine[Any, Any, T]):
    """A coroutine, each step of which is timed.

    A task that is cancelled before its first step ends it like the coroutine itself, which would
    otherwise never be awaited.
    """

    def __init__(self, work: Coroutine[Any, Any, T], clock: Clock) -> None:
        self._work = work
        self._clock = clock

    def send(self, value: Any) -> Any:
        wall, cpu = perf_counter(), thread_time()
        try:
            return self._work.send(value)
        finally:
            self._clock.add(perf_counter() - wall, thread_time() - cpu)

    def throw(self, *failure: Any) -> Any:
        wall, cpu = perf_counter(), thread_time()
        try:
            return self._work.throw(*failure)
        finally:
            self._clock.add(perf_counter() - wall, thread_time() - cpu)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        failure: BaseException | None = None
        while True:
            try:
                waiting_for = self.send(None) if failure is None else self.throw(failure)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                yield waiting_for
                failure = None
            except GeneratorExit:
                self.close()
                raise
            except BaseException as error:
                failure = error


class _Threads(ThreadPoolExecutor):
    """The default executor, timing each job on the clock of whoever handed it over."""

    def submit(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        clock = _now.get()
        if clock is None:
            return super().submit(job, *args, **kwargs)

        def run() -> T:
            wall, cpu = perf_counter(), thread_time()
            try:
                return job(*args, **kwargs)
            finally:
                clock.add(perf_counter() - wall, thread_time() - cpu)

        return super().submit(run)
