"""A model of four words, whose probabilities one can write down, for exact distributions of replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosilo.models.base import Access, NextTokens, Past
from cosilo.types import Chat, Generation, Sampling
from toy_thread import ToyPast

PIECES = (b"a", b"b", b"c", b"d", b"")
END = 4


class FewWords:
    """What comes next goes by the token before, and by nothing else.

    Args:
        rows: the probabilities behind each of the words and behind the prompt, shape (5, 5); the last
            column is the reply's end.
    """

    access = Access.LOGPROBS
    vocabulary = "few"
    vocabulary_size = len(PIECES)
    ends = frozenset({END})

    def __init__(self, rows: np.ndarray, *, name: str = "few", vocabulary: str = "few") -> None:
        self.rows = rows / rows.sum(axis=1, keepdims=True)
        self.name = name
        self.vocabulary = vocabulary
        self.reads = 0

    @classmethod
    def drawn(cls, seed: int, sharp: float = 1.5) -> FewWords:
        logits = np.random.default_rng(seed).normal(size=(5, 5)) * sharp
        return cls(np.exp(logits), name=f"few-{seed}")

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        token, said = END, b""
        numbers = np.random.default_rng(sampling.seed).random(sampling.max_tokens)
        for number in numbers:
            row = self.rows[token] ** (1 / (sampling.temperature or 1.0))
            total = np.cumsum(row)
            token = int(np.searchsorted(total, number * total[-1], side="right"))
            if sampling.temperature <= 0:
                token = int(np.argmax(row))
            if token == END:
                break
            said += PIECES[token]
        ended = token == END
        count = len(said) + ended
        return Generation(
            said.decode(), finish_reason="stop" if ended else "length", prompt_tokens=1,
            completion_tokens=count, seconds=0.01 * count,
        )  # fmt: skip

    async def close(self) -> None: ...

    def prompt(self, chat: Chat) -> list[int]:
        return [END]

    def cut(self, reply: str) -> tuple[list[int], list[bytes]]:
        ids = [PIECES.index(letter.encode()) for letter in reply if letter.encode() in PIECES[:END]]
        return ids, self.spelt(ids)

    def piece(self, token: int) -> bytes:
        return PIECES[token]

    def spelt(self, ids: Sequence[int]) -> list[bytes]:
        return [PIECES[i] for i in ids]

    async def read(
        self, past: Past | None, ids: Sequence[int], *, places: int, top: int, each: bool = True
    ) -> tuple[Past, NextTokens]:
        self.reads += 1
        whole = [*(past.ids if past is not None else ()), *ids]
        logprobs = np.log(self.rows[whole[-places:]])
        order = np.argsort(-logprobs, axis=1)[:, :top]
        found = np.take_along_axis(logprobs, order, axis=1)
        return ToyPast(whole), NextTokens(order.astype(np.int32), found.astype(np.float32))

    def replies(self, most: int, temperature: float = 1.0) -> Mapping[str, float]:
        """Every reply of at most `most` tokens, with its probability."""
        rows = self.rows ** (1 / temperature)
        rows = rows / rows.sum(axis=1, keepdims=True)
        found: dict[str, float] = {}

        def go_on(said: str, token: int, p: float) -> None:
            for following, q in enumerate(rows[token]):
                longer = said + PIECES[following].decode()
                if following == END or len(longer) == most:
                    found[longer] = found.get(longer, 0.0) + p * q
                else:
                    go_on(longer, following, p * q)

        go_on("", END, 1.0)
        return found
