"""What a process of the engine is asked, and answers: msgpack, each message after its length."""

from __future__ import annotations

from typing import IO

import msgspec
import numpy as np

from cosilo import child_process
from cosilo.engines.ckks.layout import Floats

LONGEST = 1 << 28
"""Bytes that a message may have: keys of the largest head there is room for are fewer."""


class MakeKeys(msgspec.Struct, tag=True):
    """Answered with `Done(public, turning)`; from then on the process encrypts and decrypts."""

    inputs: int
    outputs: int


class Encrypt(msgspec.Struct, tag=True):
    """`vectors`: rows of float64. Answered with `Done(ciphertext)`."""

    vectors: bytes


class Decrypt(msgspec.Struct, tag=True):
    """Answered with `Done(logits)`, rows of float64."""

    answer: bytes
    vectors: int


class TakeHead(msgspec.Struct, tag=True):
    """`weights`, `bias`: rows of float64. From then on the process computes logits."""

    weights: bytes
    bias: bytes
    public: bytes
    turning: bytes


class Logits(msgspec.Struct, tag=True):
    """Answered with `Done(ciphertext)`."""

    query: bytes
    vectors: int


class Done(msgspec.Struct, tag=True):
    """`cpu_seconds`: what it took."""

    parts: tuple[bytes, ...] = ()
    cpu_seconds: float = 0.0


class RefusedWork(msgspec.Struct, tag=True):
    """Why not. No number of anybody's stands in it."""

    reason: str


Asked = MakeKeys | Encrypt | Decrypt | TakeHead | Logits
Answered = Done | RefusedWork


def packed(rows: Floats) -> bytes:
    return np.ascontiguousarray(rows, "<f8").tobytes()


def rows(data: bytes, count: int) -> Floats:
    """`data` as so many rows.

    Raises:
        ValueError: it is not so many.
    """
    found: Floats = np.frombuffer(data, "<f8").reshape(count, -1)
    return found


def send(pipe: IO[bytes], message: Asked | Answered) -> None:
    child_process.send(pipe, msgspec.msgpack.encode(message))


def receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None at the end, and where it is said to be longer than any is."""
    return child_process.receive(pipe, LONGEST)
