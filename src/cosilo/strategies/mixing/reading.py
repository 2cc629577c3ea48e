"""A model at home that is asked what comes next behind any beginning of its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from cosilo.errors import CapabilityError
from cosilo.models.base import Access, Past, TextModel, ThreadModel, goes_on
from cosilo.strategies.mixing.numbers import Row
from cosilo.types import Chat

T = TypeVar("T")

LIKELIEST = 1024
"""Tokens that a model is asked for which does not show logits; the others share what is left evenly."""

_KEPT = 32  # rows of a reader that may be wanted again: those of a draft

_pieces: WeakKeyDictionary[ThreadModel, tuple[bytes, ...]] = WeakKeyDictionary()


def require_threads(model: TextModel, *, by: str) -> ThreadModel:
    """`model` as one that goes on from what it has read.

    Raises:
        CapabilityError: it does not.
    """
    if not goes_on(model):
        raise CapabilityError(
            f"{by} needs a small model that goes on token by token from what it has read; "
            f"{model.name!r} does not (the torch and llamacpp back ends do)"
        )
    return model


def pieces_of(model: ThreadModel) -> tuple[bytes, ...]:
    """What each token of the vocabulary stands for within a reply; nothing where it is special."""
    found = _pieces.get(model)
    if found is None:
        found = _pieces[model] = tuple(map(model.piece, range(model.vocabulary_size)))
    return found


class HomeReader:
    """`model` in front of a reply to `chat`."""

    def __init__(self, model: ThreadModel, chat: Chat) -> None:
        self.model = model
        self._chat = chat
        self._prompt: Sequence[int] = ()
        self._past: Past | None = None
        self._rows: dict[tuple[int, ...], Row] = {}

    async def prompt_tokens(self) -> int:
        """How many tokens stand in front of the reply."""
        if not self._prompt:
            self._prompt = await asyncio.to_thread(self.model.prompt, self._chat)
        return len(self._prompt)

    async def at(self, ids: Sequence[int]) -> Row:
        """What the model says comes behind the reply's tokens `ids`, over its whole vocabulary.

        Raises:
            RejectedError: they do not fit the model's context.
            ModelError: the model failed.
        """
        key = tuple(ids)
        if key not in self._rows:
            if len(self._rows) >= _KEPT:
                del self._rows[next(iter(self._rows))]
            self._rows[key] = await self._read(key)
        return self._rows[key]

    async def _read(self, ids: tuple[int, ...]) -> Row:
        await self.prompt_tokens()
        whole = [*self._prompt, *ids]
        past, self._past = self._past, None
        known = 0
        if past is not None:
            read = past.ids
            most = min(len(read), len(whole) - 1)
            known = next((i for i in range(most) if read[i] != whole[i]), most)
            past.crop(known)
        size = self.model.vocabulary_size
        top = size if self.model.access >= Access.LOGITS else min(size, LIKELIEST)
        self._past, found = await self.model.read(past, whole[known:], places=1, top=top)
        return _over(found.ids[-1].tolist(), found.logprobs[-1].astype(np.float64), size)


def _over(ids: Sequence[int], logprobs: Row, size: int) -> Row:
    """A row over `size` tokens; those that were not told share what is left evenly."""
    if len(ids) >= size:
        row = np.full(size, -np.inf)
    else:
        left = max(1e-12, 1.0 - float(np.exp(logprobs).sum()))
        row = np.full(size, np.log(left / (size - len(ids))))
    row[ids] = logprobs
    return row
