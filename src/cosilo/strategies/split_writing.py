"""A reply chosen at home, token by token, by what states after the last layer say comes next."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.models.asked import generator
from cosilo.models.base import Array, NextTokens, SplitModel, ThreadModel
from cosilo.types import Delta, FinishReason, Sampling, TokenLogprob


class StateReader(ThreadModel, SplitModel, Protocol):
    """A model that says what a state predicts, and what its tokens stand for."""


class HomeWriter:
    """One reply.

    With `Sampling.choices` only tokens that go on with one of them are chosen from, and the reply
    ends as soon as only one is left; it has one token then, the choice, with the probability of the
    tokens that decided it.

    Args:
        model: with the final norm and the head, and the tokeniser.

    Attributes:
        finish: why the reply has ended; None while it goes on.
    """

    def __init__(self, model: StateReader, sampling: Sampling) -> None:
        self.finish: FinishReason | None = None
        self._model = model
        self._sampling = sampling
        self._random = generator(sampling)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._text = ""
        self._told = 0
        self._held = max(map(len, sampling.stop), default=1) - 1
        self._logprob = 0.0
        self._tokens: list[TokenLogprob] = []
        choices = dict.fromkeys(sampling.choices)
        self._left = {choice: list(model.cut(choice)[0]) for choice in choices}
        if len(self._left) == 1:
            self.finish = "stop"
        elif not self._left and sampling.max_tokens < 1:
            self.finish = "length"

    async def choose(self, state: Array) -> int | None:
        """The token behind `state`, shape (1, width), a part of the reply from now on; None where
        the reply ends there."""
        if self._left:
            return await self._choose_among(state)
        sampling = self._sampling
        top = self._model.vocabulary_size if sampling.temperature else 1 + sampling.top_logprobs
        said = await self._model.predict(state, top)
        at = self._drawn(said.logprobs[0])
        token = int(said.ids[0, at])
        if token in self._model.ends:
            self.finish = "stop"
            return None
        self._add(token, float(said.logprobs[0, at]), said)
        return token

    def _drawn(self, logprobs: Array) -> int:
        """Which of the likeliest tokens, which come in order."""
        if not self._sampling.temperature:
            return 0
        scaled = logprobs.astype(np.float64) / self._sampling.temperature
        chances: NDArray[np.float64] = np.exp(scaled - scaled.max())
        chances /= chances.sum()
        before = np.cumsum(chances) - chances
        chances[1:][before[1:] >= self._sampling.top_p] = 0
        return int(self._random.choice(len(chances), p=chances / chances.sum()))

    def _add(self, token: int, logprob: float, said: NextTokens) -> None:
        self._ids.append(token)
        piece = self._model.spelt(self._ids)[-1]
        self._text += self._decoder.decode(piece)
        count = self._sampling.top_logprobs
        likeliest = zip(said.ids[0, :count], said.logprobs[0, :count], strict=True)
        top = tuple((self._spelt(int(i)), float(p)) for i, p in likeliest) if count else ()
        self._tokens.append(TokenLogprob(piece.decode(errors="replace"), logprob, top))
        ends = [at for stop in self._sampling.stop if (at := self._text.find(stop)) >= 0]
        if ends:
            self._text, self.finish = self._text[: min(ends)], "stop"
        elif len(self._ids) >= self._sampling.max_tokens:
            self.finish = "length"

    def _spelt(self, token: int) -> str:
        return self._model.piece(token).decode(errors="replace")

    async def _choose_among(self, state: Array) -> int | None:
        said = await self._model.predict(state, self._model.vocabulary_size)
        logprobs = dict(zip(said.ids[0].tolist(), said.logprobs[0].tolist(), strict=True))
        place = len(self._ids)
        # A choice that is over is told by the likeliest end of a reply.
        end = max(self._model.ends, key=lambda token: logprobs.get(token, -math.inf))
        nexts = {c: ids[place] if place < len(ids) else end for c, ids in self._left.items()}
        allowed = sorted(set(nexts.values()), key=lambda token: -logprobs.get(token, -math.inf))
        scores = np.array([logprobs.get(token, -1e9) for token in allowed])
        scores -= np.logaddexp.reduce(scores)
        at = self._drawn(scores)
        token = allowed[at]
        self._logprob += float(scores[at])
        self._ids.append(token)
        self._left = {c: ids for c, ids in self._left.items() if nexts[c] == token}
        if len(self._left) == 1 or token == end:
            self.finish = "stop"
            return None
        return token

    def piece(self) -> Delta | None:
        """What can be shown of the reply that was not yet: a stop may still begin at its end."""
        new = self._text[self._told : max(self._told, len(self._text) - self._held)]
        tokens, self._tokens = tuple(self._tokens), []
        self._told += len(new)
        return Delta(text=new, tokens=tokens) if new or tokens else None

    def last(self, read: int) -> Delta:
        """The end of the reply.

        Args:
            read: tokens of the prompt.
        """
        tokens: Sequence[TokenLogprob] = self._tokens
        if self._left:
            (rest, *_) = self._left
            tokens = [TokenLogprob(rest, min(self._logprob, 0.0))]
        else:
            stopped = self.finish == "stop" and self._sampling.stop
            more = "" if stopped else self._decoder.decode(b"", final=True)
            rest = self._text[self._told :] + more
        return Delta(
            text=rest,
            tokens=tuple(tokens),
            finish_reason=self.finish or "stop",
            prompt_tokens=read,
            completion_tokens=len(self._ids),
        )
