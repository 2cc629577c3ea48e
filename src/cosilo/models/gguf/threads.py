"""Going on from what a GGUF model has read.

The engine keeps what it has computed of a prompt in its own slots, and finds it by the tokens. It shows
probabilities behind the end of a prompt only, so several places are as many calls, of a token each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np

from cosilo.errors import CapabilityError, ModelError
from cosilo.models.asked import too_long
from cosilo.models.base import Cut, NextTokens, Past, unfinished
from cosilo.models.gguf.vocabulary import Vocabulary, read_vocabulary
from cosilo.types import Chat

T = TypeVar("T")


class Engine(Protocol):
    """llama.cpp with a model loaded, as far as threads need it."""

    def prompt_tokens(self, chat: Chat) -> list[int]:
        """The prompt for a reply to `chat`."""

    def reply_tokens(self, text: str) -> list[int]:
        """`text` as a reply, in which nothing is special."""

    def likeliest(self, ids: Sequence[int], top: int) -> list[tuple[int, float]]:
        """The tokens that are likeliest behind `ids`, with their log-probabilities, best first."""


class LlamaCppPast:
    """Tokens that were read; what was computed of them lies in the engine, as long as it likes."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    @property
    def size(self) -> int:
        return 8 * len(self.ids)

    def crop(self, length: int) -> None:
        del self.ids[length:]

    def fork(self, length: int) -> LlamaCppPast:
        return LlamaCppPast(self.ids[:length])


class LlamaCppThreads:
    """The part of a GGUF model that serves `ThreadModel`."""

    path: Path
    n_ctx: int

    async def _run(self, work: Callable[[threading.Event], T]) -> T:
        raise NotImplementedError

    def _opened(self) -> Engine:
        raise NotImplementedError

    @cached_property
    def words(self) -> Vocabulary:
        """The file's vocabulary."""
        return read_vocabulary(self.path)

    @property
    def vocabulary(self) -> str:
        return self.words.digest

    @property
    def vocabulary_size(self) -> int:
        return len(self.words.pieces)

    @property
    def ends(self) -> frozenset[int]:
        return self.words.ends

    def piece(self, token: int) -> bytes:
        return self.words.pieces[token] if 0 <= token < len(self.words.pieces) else b""

    def spelt(self, ids: Sequence[int]) -> Sequence[bytes]:
        return self.words.spelt(ids)

    def prompt(self, chat: Chat) -> Sequence[int]:
        return self._opened().prompt_tokens(chat)

    def cut(self, reply: str) -> Cut:
        return unfinished(reply, self._cut)

    def _cut(self, text: str) -> Cut:
        ids = self._opened().reply_tokens(text) if text else ()
        pieces = self.spelt(ids)
        if b"".join(pieces) != text.encode():
            raise CapabilityError(
                "the model's tokeniser changes a text before it cuts it, so no thread can hold it"
            )
        return ids, pieces

    async def read(
        self, past: Past | None, ids: Sequence[int], *, places: int, top: int, each: bool = True
    ) -> tuple[Past, NextTokens]:
        whole = [*(past.ids if past is not None else ()), *ids]
        if len(whole) >= self.n_ctx:
            raise too_long(
                f"the thread has {len(whole)} tokens, and the model's context {self.n_ctx}; a larger "
                "n_ctx may help"
            )

        def work(stop: threading.Event) -> tuple[Past, NextTokens]:
            started = perf_counter()
            engine, rows = self._opened(), []
            end = len(whole) - places + 1
            while True:
                rows.append(engine.likeliest(whole[:end], min(top, self.vocabulary_size)))
                if end == len(whole) or (not each and rows[-1][0][0] != whole[end]):
                    break
                if stop.is_set():
                    raise ModelError("nobody waits for this step any more")
                end += 1
            spent = perf_counter() - started
            found = NextTokens(
                np.array([[i for i, _ in row] for row in rows], np.int32),
                np.array([[p for _, p in row] for row in rows], np.float32),
                spent,
                spent,
            )
            return LlamaCppPast(whole[:end]), found

        return await self._run(work)
