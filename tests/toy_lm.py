"""A logit model small enough to know everything about: bytes in, a linear output layer, no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cosilo.models.base import Access, Array, Tokens
from cosilo.types import Chat, Generation, Sampling

END = 256


class ToyLM:
    """Its logits are `output @ state`, where the state is drawn from the text so far.

    Args:
        hidden: the width of the state, which its logits give away.
        size: of the vocabulary: the bytes, the end of a turn, and tokens that no text has.
    """

    access = Access.LOGITS

    def __init__(self, hidden: int = 12, size: int = 300, *, name: str = "toy") -> None:
        rng = np.random.default_rng(hidden)
        self.output = rng.normal(size=(size, hidden)).astype(np.float32)
        self.name = name
        self.vocabulary = "bytes"
        self.vocabulary_size = size
        self.hidden = hidden
        self.scored: list[Tokens] = []

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        return Generation("ok", prompt_tokens=1, completion_tokens=1)

    async def close(self) -> None: ...

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        prompt = "\n".join(f"{t.role}: {t.content}" for t in chat).encode() + b"\n"
        said = reply.encode()
        ids = np.array([*prompt, *said, END], np.int32)
        return Tokens(ids, len(prompt), (*(bytes([b]) for b in said), b""))

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""

    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        self.scored += sequences
        return [
            np.stack([self.output @ self._state(s.ids[:at]) for at in range(s.start, len(s))])
            for s in sequences
        ]

    def _state(self, ids: np.ndarray) -> Array:
        seed = hashlib.sha256(ids.astype(np.int32).tobytes()).digest()[:8]
        rng = np.random.default_rng(int.from_bytes(seed, "big"))
        return rng.normal(size=self.hidden).astype(np.float32)
