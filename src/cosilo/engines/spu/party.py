"""One party's engine process, as we see it: started, told what to do, watched, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cosilo.engines.base import Array
from cosilo.engines.spu.environment import INSTALL, Environment
from cosilo.errors import EngineError

LARGEST = 1 << 31
"""Bytes that a frame may have, as the process's own limit."""

WORKER = Path(__file__).parent / "inside" / "worker.py"
_QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
_KEPT = ("PATH", "LANG", "OMP_NUM_THREADS", "TMPDIR")


class SpuParty:
    """The process of one rank. `SpuParty.start` makes it.

    Attributes:
        rank: which party of the run it is.
        pid: of the process.
        memory: the most bytes that it held so far.
    """

    def __init__(
        self,
        rank: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.rank, self.pid, self.memory = rank, process.pid, 0
        self._process = process
        self._reader, self._writer = reader, writer

    @classmethod
    async def start(cls, rank: int, environment: Environment, *, worker: Path = WORKER) -> SpuParty:
        """Start the process.

        Args:
            worker: the script that it runs.

        Raises:
            EngineError: it cannot be started.
        """
        ours, its = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                str(environment.python),
                *("-I", str(worker), str(its.fileno())),
                pass_fds=[its.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,  # SPU's log: sizes and addresses
                stderr=asyncio.subprocess.DEVNULL,
                env={**{k: os.environ[k] for k in _KEPT if k in os.environ}, **_QUIET},
                start_new_session=True,  # Ctrl-C is for us: we end it
            )
        except OSError as error:
            ours.close()
            raise EngineError(
                f"{str(environment.python)!r} cannot be run: {error.strerror}; `{INSTALL}` makes its "
                "environment again"
            ) from None
        except BaseException:  # cancelled: a process that did start ends when its socket closes
            ours.close()
            raise
        finally:
            its.close()
        try:
            return cls(rank, process, *await asyncio.open_connection(sock=ours))
        except BaseException:
            ours.close()
            raise

    async def ask(self, do: str, within_s: float, **fields: Any) -> dict[str, Any]:
        """Have it do one thing; what it says then.

        Raises:
            EngineError: it failed, ended, said what is no frame, or was not done `within_s`.
        """
        try:
            async with asyncio.timeout(within_s):
                if (size := _handed(fields)) > LARGEST:  # before anything is copied
                    raise EngineError(
                        f"the arrays of {do!r} have {size:,} bytes; a party may be handed "
                        f"{LARGEST:,} at once"
                    )
                body = msgspec.msgpack.encode({"do": do, **fields})
                if len(body) > LARGEST:
                    raise EngineError(
                        f"the arguments of {do!r} have {len(body):,} bytes; a party may be handed "
                        f"{LARGEST:,} at once"
                    )
                self._writer.write(len(body).to_bytes(8, "big") + body)
                await self._writer.drain()
                said = await self._frame()
        except TimeoutError:
            raise EngineError(
                f"party {self.rank} stalled: it was not done with {do!r} within {within_s:g} s"
            ) from None
        except (OSError, asyncio.IncompleteReadError):
            raise EngineError(f"the process of party {self.rank} ended during {do!r}") from None
        if said.get("said") == "failed":
            raise EngineError(f"party {self.rank} failed at {do!r}: {printable(said.get('error'))}")
        if said.get("said") != do or not isinstance(said.get("cpu_s"), float):
            raise EngineError(f"party {self.rank} answered {do!r} with something else")
        self.memory = max(self.memory, int(said.get("memory", 0)))
        return said

    async def _frame(self) -> dict[str, Any]:
        length = int.from_bytes(await self._reader.readexactly(8), "big")
        if length > LARGEST:
            raise EngineError(f"party {self.rank} said what is no frame of its process")
        try:
            return msgspec.msgpack.decode(await self._reader.readexactly(length), type=dict)
        except msgspec.DecodeError:
            raise EngineError(f"party {self.rank} said what is no frame of its process") from None

    async def end(self) -> None:
        """End the process, whatever it does; calling it twice is harmless."""
        self._writer.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                # Not by `Process.kill`: it reads the status of one that has ended, and asyncio, which
                # waits for that, then complains of an unknown child.
                os.kill(self.pid, signal.SIGKILL)
        await self._process.wait()


def _handed(fields: Any) -> int:
    """Bytes of what is handed over, in whatever it stands."""
    if isinstance(fields, bytes):
        return len(fields)
    if isinstance(fields, dict):
        fields = list(fields.values())
    return sum(map(_handed, fields)) if isinstance(fields, list | tuple) else 0


def packed(array: Array) -> tuple[str, list[int], bytes]:
    """An array as frames have it."""
    plain = np.ascontiguousarray(array, dtype=np.float32)
    return plain.dtype.str, list(plain.shape), plain.tobytes()


def unpacked(said: Any) -> Array:
    """The array that a frame says.

    Raises:
        EngineError: it says none.
    """
    try:
        dtype, shape, data = msgspec.convert(said, tuple[str, list[int], bytes])
        if dtype not in _TYPES:
            raise ValueError
        return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
    except (ValueError, TypeError, msgspec.ValidationError):
        raise EngineError("a party's outputs are no arrays") from None


_TYPES = frozenset(("<f4", "<f8", "<i4", "<i8", "<u4", "<u8", "|b1", "|i1", "|u1", "<i2", "<f2"))


def printable(said: object) -> str:
    return "".join(c for c in str(said) if c.isprintable())[:300]
