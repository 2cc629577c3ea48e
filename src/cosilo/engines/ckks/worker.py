"""A process of the engine, asked over its standard input: `python -m … MEMORY`.

It holds either the keys of a data owner or a head of an LM's owner with one data owner's keys, never
both. SEAL is C++, and reads what another party sent: a fault in it ends this process, and no other.
"""

from __future__ import annotations

import resource
import signal
import sys
from time import process_time
from typing import IO

import msgspec

from cosilo import child_process
from cosilo.engines.ckks.head import EncryptedHead
from cosilo.engines.ckks.keys import SecretKeys
from cosilo.engines.ckks.layout import SlotLayout
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


class CkksWorker:
    """Answers one message after another."""

    def __init__(self) -> None:
        self._layout: SlotLayout | None = None
        self._keys: SecretKeys | None = None
        self._head: EncryptedHead | None = None

    def answer(self, asked: Asked) -> Answered:
        before = process_time()
        try:
            parts = self._parts(asked)
        except (RuntimeError, ValueError, MemoryError, IndexError, TypeError) as error:
            # SEAL's own words say what is wrong with a ciphertext, and quote none.
            return RefusedWork(str(error)[:200] or type(error).__name__)
        return Done(parts, process_time() - before)

    def _parts(self, asked: Asked) -> tuple[bytes, ...]:
        match asked:
            case MakeKeys(inputs, outputs) if self._head is None:
                self._layout = SlotLayout(inputs, outputs)
                self._keys = SecretKeys(self._layout)
                return self._keys.public()
            case Encrypt(vectors) if self._keys is not None and self._layout is not None:
                count = len(vectors) // (8 * self._layout.inputs)
                return (self._keys.encrypt(rows(vectors, count)),)
            case Decrypt(answer, count) if self._keys is not None:
                return (packed(self._keys.decrypt(answer, count)),)
            case TakeHead(weights, bias, public, turning) if self._keys is None:
                outputs = len(bias) // 8
                self._head = EncryptedHead(
                    rows(weights, outputs), rows(bias, 1)[0], public, turning
                )
                return ()
            case Logits(query, count) if self._head is not None:
                if not 1 <= count <= self._head.layout.fits:
                    raise ValueError(f"not 1 to {self._head.layout.fits} vectors")
                return (self._head.logits(query, count),)
        raise ValueError("out of turn")


def serve(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the pipe is closed."""
    worker = CkksWorker()
    while (data := receive(asked)) is not None:
        send(answers, worker.answer(msgspec.msgpack.decode(data, type=Asked)))


def _limit(memory: int) -> None:
    """At most so many bytes of address space, and no core file, which would hold a secret key: limits
    that whoever takes this process over cannot lift again."""
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    child_process.leave_no_core()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    _limit(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)
