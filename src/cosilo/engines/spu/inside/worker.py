"""One party's SPU process, in the engine's own environment: it does what typed frames tell it.

    hello ▶ versions      compile ▶ compiled      link ▶ linked
    share ▶ shared        run ▶ ran (outputs, where this party is told)      end ▶ ended

Frames are eight bytes of length, then msgpack; arrays are (dtype, shape, bytes), and nothing is
pickled. The shares that the parties send each other travel over SPU's link. The process ends when
the socket closes.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.metadata
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

LARGEST = 1 << 31
"""Bytes that a frame may have."""

_PACKAGES = ("spu", "jax", "jaxlib", "numpy")
_CHUNK = 1 << 24
_PIECES = 1 << 12  # of one share
_PARTIAL_S = 3600.0


class Frames:
    """Frames over a socket; reading happens in a thread of its own, so that a closed socket is noticed
    while SPU computes."""

    def __init__(self, socket_: socket.socket) -> None:
        self._socket = socket_
        self._came: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        return self._came.get()

    def say(self, frame: dict[str, Any]) -> None:
        body = msgspec.msgpack.encode(frame)
        self._socket.sendall(len(body).to_bytes(8, "big") + body)

    def _read(self) -> None:
        try:
            while True:
                length = int.from_bytes(self._exactly(8), "big")
                if length > LARGEST:
                    break
                self._came.put(msgspec.msgpack.decode(self._exactly(length), type=dict))
        except (OSError, EOFError, msgspec.DecodeError):
            pass
        os._exit(1)  # whoever started us is gone: no share outlives it

    def _exactly(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            n = self._socket.recv_into(view, min(len(view), _CHUNK))
            if not n:
                raise EOFError
            view = view[n:]
        return data


class Party:
    """What this process is in a joint run: its rank, its link and its slice of SPU's machine."""

    def hello(self, frame: dict[str, Any]) -> dict[str, Any]:
        """What is installed here, and what the programs are."""
        sources = hashlib.sha256()
        here = Path(__file__).parent
        for path in sorted([*here.glob("programs/*.py"), Path(__file__)]):
            sources.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        said = {"versions": versions, "sources": sources.hexdigest()}
        try:
            sizes = self._arguments(program(frame["program"]), frame["shape"])
        except ModuleNotFoundError:
            return {**said, "refused": "there is none of that name"}
        except (KeyError, TypeError, ValueError) as error:
            return {**said, "refused": f"its shape lacks or misstates {error}"}
        return {**said, "sizes": sizes}

    def compile(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Compile the program for these sizes; what was compiled before lies in `cache`."""
        from spu import libspu

        name, shape = frame["program"], frame["shape"]
        self._program = program(name)
        self._sizes = self._arguments(self._program, shape)
        self._config = libspu.RuntimeConfig(
            protocol=getattr(libspu, frame["protocol"]),
            field=getattr(libspu, f"FM{frame['field']}"),
            fxp_fraction_bits=frame["bits"],
        )
        self._names = [f"i{k}" for k in range(sum(map(len, self._sizes)))]
        kept = Path(frame["cache"]) / frame["agreed"] if frame["cache"] else None
        self._executable = libspu.Executable()
        if kept is None or not kept.exists() or not self._parsed(kept):
            self._executable = self._compiled(shape)
            if kept is not None:
                for old in kept.parent.glob("*.partial"):  # of a process that was ended meanwhile
                    with suppress(OSError):  # another process may be faster
                        if time.time() - old.stat().st_mtime > _PARTIAL_S:
                            old.unlink()
                part = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
                part.write_bytes(self._executable.SerializeToString())
                part.rename(kept)
        digest = hashlib.sha256(self._executable.code).hexdigest()
        return {"digest": digest, "sees": self._program.SEES}

    def link(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Connect to the other parties, at the addresses by which this one reaches each."""
        from spu import api, libspu

        description = libspu.link.Desc()
        description.id = frame["id"]
        description.recv_timeout_ms = frame["silent_ms"]
        description.http_timeout_ms = frame["silent_ms"]
        description.connect_retry_times = max(1, frame["connect_ms"] // 100)
        description.connect_retry_interval_ms = 100
        for rank, address in enumerate(frame["addresses"]):
            description.add_party(f"party{rank}", address)
        self._rank, self._size = frame["rank"], len(frame["addresses"])
        self._link = libspu.link.create_brpc(description, self._rank)
        said = self._link.all_gather(frame["agreed"])
        if len(set(said)) != 1:
            raise ValueError("the parties agreed on different runs")
        self._io = api.Io(self._size, self._config)
        self._runtime = api.Runtime(self._link, self._config)
        return {}

    def share(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Share arrays among all parties: a part says which of the program's, and whose they are."""
        for part in frame["parts"]:
            self._shared(part["which"], part["owner"], part["arrays"])
        return {}

    def _shared(self, which: int, owner: int, arrays: list[Any]) -> None:
        import numpy as np
        from spu import libspu

        first = sum(map(len, self._sizes[:which]))
        for k, size in enumerate(self._sizes[which]):
            name = self._names[first + k]
            if owner == self._rank:
                dtype, shape, data = arrays[k]
                array = np.frombuffer(data, np.dtype(dtype)).reshape(shape)
                if tuple(shape) != tuple(size):
                    raise ValueError(f"argument {first + k} is {shape}, not {size}")
                shares = self._io.make_shares(array, libspu.VIS_SECRET)
                for rank, share in enumerate(shares):
                    if rank != self._rank:
                        self._send(rank, share)
                self._runtime.set_var(name, shares[self._rank])
                arrays[k] = None
            else:
                self._runtime.set_var(name, self._receive(owner))

    def run(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Share what the owners bring to this computation, do it, and put outputs together where they
        are told."""
        self.share(frame)
        self._runtime.run(self._executable)
        told = frame["told"]
        arrays = []
        for name in self._executable.output_names:
            share = self._runtime.get_var(name)
            for rank in told:
                if rank != self._rank:
                    self._send(rank, share)
            if self._rank in told:
                shares = [
                    share if rank == self._rank else self._receive(rank)
                    for rank in range(self._size)
                ]
                array = self._io.reconstruct(shares)
                arrays.append((array.dtype.str, list(array.shape), array.tobytes()))
            self._runtime.del_var(name)
        return {"arrays": arrays}

    def end(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Part from the others; SPU's machine may crash at its end without. The process stays until
        it is ended: others may still be parting."""
        self._link.stop_link()
        return {}

    def _parsed(self, kept: Path) -> bool:
        try:
            return bool(self._executable.ParseFromString(kept.read_bytes()))
        except (OSError, RuntimeError):
            return False

    def _compiled(self, shape: dict[str, Any]) -> Any:
        import jax
        from spu import libspu
        from spu.utils import frontend

        arguments = tuple(
            [jax.ShapeDtypeStruct(tuple(size), "float32") for size in sizes]
            for sizes in self._sizes
        )
        executable, _ = frontend.compile(
            frontend.Kind.JAX,
            self._program.build(shape),
            arguments,
            {},
            self._names,
            [libspu.VIS_SECRET] * len(self._names),
            lambda outputs: [f"o{k}" for k in range(len(outputs))],
        )
        return executable

    @staticmethod
    def _arguments(module: Any, shape: dict[str, Any]) -> tuple[list[tuple[int, ...]], ...]:
        """The sizes of what is shared once, of what the data owner gives each time, and, where the
        program has such, of what the LM's owner brings each time."""
        brought = getattr(module, "brought", None)
        return (*module.arrays(shape), *([brought(shape)] if brought else []))

    def _send(self, rank: int, share: Any) -> None:
        """A share: its description with its first piece, then each other piece."""
        first, *others = share.share_chunks
        head = (share.meta, len(others), first)
        self._link.send(rank, msgspec.msgpack.encode(head))
        for chunk in others:
            self._link.send(rank, chunk)

    def _receive(self, rank: int) -> Any:
        from spu import libspu

        meta, others, first = msgspec.msgpack.decode(
            self._link.recv(rank), type=tuple[bytes, int, bytes]
        )
        if not 0 <= others < _PIECES:
            raise ValueError("a share in too many pieces")
        share = libspu.Share()
        share.meta = meta
        share.share_chunks = [first, *(self._link.recv(rank) for _ in range(others))]
        return share


def program(name: str) -> Any:
    """The module of that name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    if not name.isidentifier():
        raise ModuleNotFoundError(name)
    return importlib.import_module(f"programs.{name}")


def why(error: Exception) -> str:
    """What went wrong, in one line; of SPU's many, those before its stack."""
    text = " ".join(re.split("stacktrace", str(error), maxsplit=1, flags=re.I)[0].split())
    if "timeout" in text.lower():
        return f"a party that it waited for said nothing ({text[:120]})"
    return f"{type(error).__name__}: {text[:300]}"


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def most_memory() -> int:
    """The most bytes that this process held. What `getrusage` says begins with what its parent held."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main(descriptor: int) -> None:
    """Do what comes over the socket `descriptor`, until it is told to end or the socket closes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold shares
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    sys.path.insert(0, str(Path(__file__).parent))  # where the programs are
    frames = Frames(socket.socket(fileno=descriptor))
    party = Party()
    while True:
        frame = frames.next()
        before = cpu_seconds()
        try:
            said = getattr(party, frame["do"])(frame)
        except Exception as error:
            frames.say({"said": "failed", "error": why(error)})
            os._exit(1)
        memory = most_memory()
        frames.say({"said": frame["do"], "cpu_s": cpu_seconds() - before, "memory": memory, **said})


if __name__ == "__main__":
    main(int(sys.argv[1]))
