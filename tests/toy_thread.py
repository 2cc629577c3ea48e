"""A model to go on from what it has read, small enough to know all about: bytes and a few words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cosilo.models.base import Access, NextTokens, Past
from cosilo.types import Chat, Generation, Sampling

END = 256
WORDS = (b" the", b"ref", b" refund", b" about", b"und")
PIECES = (*(bytes([b]) for b in range(256)), b"", *WORDS)


class ToyPast:
    """Its tokens; `read` are those that were read one by one, over all its life."""

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self.ids = list(ids)
        self.size = 1000

    def crop(self, length: int) -> None:
        del self.ids[length:]

    def fork(self, length: int) -> ToyPast:
        return ToyPast(self.ids[:length])


class ToyThreads:
    """Longest words first. What comes next is a hash of all tokens before it.

    Attributes:
        read_ids: what was read, call by call.
    """

    access = Access.LOGPROBS
    vocabulary = "toy"
    vocabulary_size = len(PIECES)
    ends = frozenset({END})

    def __init__(self, name: str = "toy", *, vocabulary: str = "toy") -> None:
        self.name = name
        self.vocabulary = vocabulary
        self.read_ids: list[list[int]] = []
        self.forks = 0

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        return Generation("ok", prompt_tokens=1, completion_tokens=1)

    async def close(self) -> None: ...

    def prompt(self, chat: Chat) -> list[int]:
        return [*"".join(t.content for t in chat).encode(), END]

    def cut(self, reply: str) -> tuple[list[int], list[bytes]]:
        left, ids = reply.encode(), []
        while left:
            word = max((w for w in WORDS if left.startswith(w)), key=len, default=left[:1])
            ids.append(PIECES.index(word))
            left = left[len(word) :]
        return ids, self.spelt(ids)

    def piece(self, token: int) -> bytes:
        return PIECES[token] if token < len(PIECES) else b""

    def spelt(self, ids: Sequence[int]) -> list[bytes]:
        return [self.piece(i) for i in ids]

    async def read(
        self, past: Past | None, ids: Sequence[int], *, places: int, top: int, each: bool = True
    ) -> tuple[Past, NextTokens]:
        assert 1 <= places <= len(ids)
        self.read_ids.append(list(ids))
        whole = [*(past.ids if past is not None else ()), *ids]
        rows = [self.logprobs(whole[: len(whole) - places + i + 1]) for i in range(places)]
        order = np.argsort(-np.stack(rows), axis=1)[:, :top]
        values = np.take_along_axis(np.stack(rows), order, axis=1)
        return ToyPast(whole), NextTokens(order.astype(np.int32), values.astype(np.float32))

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        """Of the token behind `ids`, over the vocabulary."""
        seed = hashlib.sha256(np.array(ids, np.int32).tobytes()).digest()[:8]
        logits = np.random.default_rng(int.from_bytes(seed, "big")).normal(size=len(PIECES)) * 3
        return logits - np.logaddexp.reduce(logits)

    def next(self, chat: Chat, reply: str) -> int:
        """The likeliest token behind a reply."""
        return int(np.argmax(self.logprobs([*self.prompt(chat), *self.cut(reply)[0]])))
