"""Keys and heads as the rest of the house has them: each in a process of its own, that goes with it.

    HomeKeys ── vector ──▶ worker ──▶ ciphertext ─ ─ ─ ─▶ HostedHead ──▶ worker ──▶ encrypted logits

Calls block, for as long as SEAL computes; make them in a thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import msgspec
import numpy as np

from cosilo import child_process
from cosilo.engines.ckks.layout import Floats, SlotLayout
from cosilo.engines.ckks.work import (
    Answered,
    Asked,
    Decrypt,
    Done,
    Encrypt,
    Logits,
    MakeKeys,
    RefusedWork,
    TakeHead,
    packed,
    receive,
    rows,
    send,
)
from cosilo.errors import ConfigError, ModelError, RejectedError

PACKAGE = "tenseal"
MEMORY = 2 << 30
"""Bytes of address space of a process; it takes about 0.3 GB of memory."""

SECONDS = 60.0
"""How long a process may work on one message; half a second is usual."""


class CkksProcess:
    """A process of the engine; it ends with this object, at the latest.

    Args:
        memory, seconds: its limits. Over them the process is ended.

    Raises:
        ConfigError: TenSEAL is not installed, or no process can be started.
    """

    def __init__(self, *, memory: int = MEMORY, seconds: float = SECONDS) -> None:
        if find_spec(PACKAGE) is None:
            raise ConfigError("encrypted heads need TenSEAL; run: pip install 'cosilo[ckks]'")
        self._turn = threading.Lock()
        self._seconds = seconds
        try:
            self._process = child_process.start("cosilo.engines.ckks.worker", str(memory))
        except OSError as error:
            what = error.strerror or type(error).__name__
            raise ConfigError(f"no process for encryption can be started: {what}") from None
        self._end: Callable[[], object] = weakref.finalize(self, child_process.end, self._process)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, asked: Asked) -> Done:
        """What the process answers.

        Raises:
            RejectedError: it refused: what came is no ciphertext, or no key, of this engine.
            ModelError: it has ended: a fault, too much memory, too long, or an answer that is none.
        """
        with self._turn:
            answer = self._answer(asked)
        if isinstance(answer, RefusedWork):
            raise RejectedError(f"the engine for encrypted heads refused: {answer.reason}")
        return answer

    def close(self) -> None:
        """End the process; calling it twice is harmless."""
        self._end()

    def _answer(self, asked: Asked) -> Answered:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(self._seconds, process.kill)
        late.daemon = True
        late.start()
        answer: Answered | None = None
        try:
            send(process.stdin, asked)
            data = receive(process.stdout)
            if data is not None:
                answer = msgspec.msgpack.decode(data, type=Answered)
        except (OSError, ValueError, msgspec.DecodeError):
            pass  # it ended in the middle, was closed before, or what it has read took it over
        finally:
            late.cancel()
            if answer is None:
                self._end()
        if answer is None:
            raise ModelError("the process that computes on encrypted vectors has ended")
        return answer


class HomeKeys:
    """The data owner's keys for a head of so many inputs and outputs. The secret one is in another
    process, which does not give it away.

    Attributes:
        public, turning: what the LM's owner is sent.
        cpu_seconds: what the process has worked so far.

    Raises:
        ConfigError: no such head fits, or what `CkksProcess` raises.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        try:
            self.layout = SlotLayout(inputs, outputs)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._process = CkksProcess()
        made = self._process.ask(MakeKeys(inputs, outputs))
        self.public, self.turning = made.parts
        self.cpu_seconds = made.cpu_seconds

    @property
    def alive(self) -> bool:
        return self._process.alive

    def encrypt(self, vectors: Floats) -> bytes:
        """At most `layout.fits` vectors, (n, inputs), as one ciphertext."""
        return self._asked(Encrypt(packed(vectors)))

    def decrypt(self, answer: bytes, vectors: int) -> Floats:
        """The logits of so many vectors, (vectors, outputs).

        Raises:
            RejectedError: it is no answer to such a question.
        """
        return rows(self._asked(Decrypt(answer, vectors)), vectors)

    def close(self) -> None:
        self._process.close()

    def _asked(self, asked: Encrypt | Decrypt) -> bytes:
        done = self._process.ask(asked)
        self.cpu_seconds += done.cpu_seconds
        return _only(done.parts)


class HostedHead:
    """The LM owner's head with one data owner's keys, in a process of its own.

    Attributes:
        cpu_seconds: what the process has worked so far.

    Raises:
        RejectedError: the keys are none, or the head has larger logits than there is room for.
        ConfigError, ModelError: what `CkksProcess` raises.
    """

    def __init__(
        self,
        weights: Floats,
        bias: Floats,
        public: bytes,
        turning: bytes,
        *,
        memory: int = MEMORY,
        seconds: float = SECONDS,
    ) -> None:
        self._process = CkksProcess(memory=memory, seconds=seconds)
        head = TakeHead(packed(weights), packed(np.atleast_1d(bias)), public, turning)
        self.cpu_seconds = self._process.ask(head).cpu_seconds

    @property
    def alive(self) -> bool:
        return self._process.alive

    def logits(self, query: bytes, vectors: int = 1) -> bytes:
        """Encrypted logits of so many encrypted vectors.

        Raises:
            RejectedError: they are none.
            ModelError: the process has ended over them.
        """
        done = self._process.ask(Logits(query, vectors))
        self.cpu_seconds += done.cpu_seconds
        return _only(done.parts)

    def close(self) -> None:
        self._process.close()


def _only(parts: Sequence[bytes]) -> bytes:
    """The one part of an answer.

    Raises:
        ModelError: it has none, or more.
    """
    if len(parts) != 1:
        raise ModelError(
            "a process that computes on encrypted vectors answered with something else"
        )
    return parts[0]
