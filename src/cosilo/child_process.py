"""A process of our own that is asked over its pipes: started with our modules, ended with who asks.

What stands in its memory is private, so it says nothing on standard error and leaves no core file.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from contextlib import suppress
from typing import IO

_PR_SET_DUMPABLE = 4
_LENGTH = 8  # bytes that say how long a message is


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run `module` in a new process with this one's modules.

    Raises:
        OSError: there can be none.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback might quote what it works on
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and close its pipes; calling it twice is harmless."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def send(pipe: IO[bytes], data: bytes) -> None:
    """Write one message."""
    pipe.write(len(data).to_bytes(_LENGTH))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes], most: int | None = None) -> bytes | None:
    """The next message; None at the end, and where it is said to be longer than `most` bytes."""
    told = pipe.read(_LENGTH)
    length = int.from_bytes(told)
    if len(told) < _LENGTH or (most is not None and length > most):
        return None
    data = pipe.read(length)
    return data if len(data) == length else None


def leave_no_core() -> None:
    """Turn core dumps off for this process. A limit on their size would not stop dumps that are piped
    to a program.
    """
    with suppress(AttributeError, OSError):  # only Linux has it
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
