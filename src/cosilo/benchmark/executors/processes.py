"""Workers that are processes of this machine.

    runner ── stdin: pickled jobs ──▶ python -m cosilo.benchmark.executors.processes
           ◀── stdout: how they ended ──┘

A worker is in a session of its own, so that Ctrl-C reaches the runner only, which ends it. When the
runner dies its end of the pipe closes, and the worker stops.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import queue
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from cosilo.benchmark.executors.base import Ended, Job, Worker, WorkerLostError, WorkerState

_GRACE = 5.0
"""Seconds in which a worker that is told to stop ends by itself."""

_SIZE = struct.Struct("!Q")


class Processes:
    """Starts workers on this machine."""

    async def worker(self) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return _Process(process)

    async def close(self) -> None: ...


class _Process:
    here = True

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, job: Job) -> Ended:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        text = pickle.dumps(job)
        try:
            stdin.write(_SIZE.pack(len(text)) + text)
            await stdin.drain()
            (size,) = _SIZE.unpack(await stdout.readexactly(_SIZE.size))
            ended = pickle.loads(await stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self._process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise WorkerLostError(how) from None
        assert isinstance(ended, Ended)
        return ended

    async def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        ending = asyncio.ensure_future(self._process.communicate())
        try:
            await asyncio.wait([ending], timeout=_GRACE)
        finally:  # also when whoever waits is told to stop: no process stays behind
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await ending


def main() -> None:
    """Be a worker, until nobody writes to stdin any more."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints something does not get in between
    jobs: queue.Queue[Job | None] = queue.Queue()
    state = WorkerState()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, jobs, state.stop), daemon=True).start()
    try:
        while (job := jobs.get()) is not None:
            text = pickle.dumps(state.work(job))
            out.write(_SIZE.pack(len(text)) + text)
            out.flush()
    except BrokenPipeError:
        pass
    # What a back end still does in threads of its own is of no use to anybody.
    os._exit(0)


def _listen(source: BinaryIO, jobs: queue.Queue[Job | None], stop: Callable[[], object]) -> None:
    """Pass on the jobs that come; when no more can come, stop what is under way."""
    while len(head := source.read(_SIZE.size)) == _SIZE.size:
        jobs.put(pickle.loads(source.read(*_SIZE.unpack(head))))
    jobs.put(None)
    stop()
    threading.Timer(_GRACE, os._exit, args=(1,)).start()


if __name__ == "__main__":
    main()
