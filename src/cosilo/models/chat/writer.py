"""A reply while it is written, token by token: pieces of text, stop strings, log-probabilities."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cosilo.models.asked import generator
from cosilo.models.chat.fields import values
from cosilo.types import Delta, FinishReason, Sampling, TokenLogprob


class Spells(Protocol):
    """What tokens stand for."""

    def piece(self, token: int) -> bytes:
        """What a token adds to a reply; nothing where it is special."""

    def first(self, piece: bytes) -> bytes:
        """`piece` as the first of a reply."""


class Writer:
    """One reply while it is written: takes the model's tokens and passes on pieces of text.

    Text is held back while it could be the start of a stop string, or half a character.

    Args:
        most: tokens that it may have.
        tell: given the pieces.
        left: whether nobody waits for the reply any more.
        done: called once, when the reply has ended or nobody waits for it.

    Attributes:
        seconds: since the batch began.
        cpu_seconds: its share of the batch's, of one thread.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        tokens: Spells,
        *,
        most: int,
        tell: Callable[[Delta], None],
        left: Callable[[], bool] = lambda: False,
        done: Callable[[Writer], object] = lambda writer: None,
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.count = 0
        self._tokens = tokens
        self._most = most
        self._tell = tell
        self.left = left
        self.done = done
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._random = generator(sampling)
        given: dict[str, Any] = values(sampling.fields)
        self.top_k = int(given.get("top_k", 0))
        self.min_p = float(given.get("min_p", 0.0))
        self._held = ""
        self._waiting: list[TokenLogprob] = []  # tokens whose text is still held

    def chance(self) -> float:
        """The next number in [0, 1) of this reply's own generator; it decides a token."""
        return float(self._random.random())

    def take(
        self, token: int, ends: bool, logprob: float, top: Sequence[tuple[int, float]]
    ) -> bool:
        """The next token of the reply; whether the reply goes on after it.

        Args:
            top: the likeliest tokens and their log-probabilities, at least as many as are wanted.
        """
        self.count += 1
        if ends:
            return self.finish("stop", self._decoder.decode(b"", final=True))
        piece = self._tokens.piece(token)
        if self.count == 1:
            piece = self._tokens.first(piece)
        self._waiting.append(
            TokenLogprob(piece.decode("utf-8", "replace"), _finite(logprob), self._top(top))
        )
        last = self.count >= self._most
        self._held += self._decoder.decode(piece, final=last)
        stop = min(
            (at for s in self.sampling.stop if s and (at := self._held.find(s)) >= 0), default=-1
        )
        if stop >= 0:
            self._held = self._held[:stop]
            return self.finish("stop")
        if last:
            return self.finish("length")
        free = len(self._held) - _overlap(self._held, self.sampling.stop)
        if free and free == len(self._held):
            self._tell(Delta(text=self._held, tokens=tuple(self._waiting)))
            self._held, self._waiting = "", []
        return True

    def finish(self, reason: FinishReason, rest: str = "") -> bool:
        """The reply ends here, with `rest` behind what is held back of it; False."""
        text = self._held + rest
        shown: list[TokenLogprob] = []
        room = len(text)
        for token in self._waiting:  # those that begin behind a stop string are no part of it
            if room <= 0 and token.token:
                break
            shown.append(token)
            room -= len(token.token)
        self._tell(
            Delta(
                text=text,
                tokens=tuple(shown),
                finish_reason=reason,
                prompt_tokens=len(self.prompt),
                completion_tokens=self.count,
            )
        )
        return False

    def _top(self, top: Sequence[tuple[int, float]]) -> tuple[tuple[str, float], ...]:
        return tuple(
            (self._tokens.piece(i).decode("utf-8", "replace"), min(0.0, value))
            for i, value in top[: self.sampling.top_logprobs]
        )


def _finite(value: float) -> float:
    return min(0.0, value) if math.isfinite(value) else -1e4


def _overlap(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the start of a stop string."""
    return max(
        (n for s in stops for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])),
        default=0,
    )
