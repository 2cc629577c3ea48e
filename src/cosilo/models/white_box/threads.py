"""Going on from what a model has read: its cache of keys and values, kept between calls.

    ids ──▶ [cache of what was read before] ──▶ the likeliest tokens at the last places
                     │ grows in place
                     └ crop: forget the end    fork: a copy that goes its own way

Needs torch and transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from cosilo.errors import ModelError
from cosilo.models.asked import too_long
from cosilo.models.base import Cut, NextTokens, Past, unfinished
from cosilo.models.white_box.batch import device_of
from cosilo.models.white_box.held import TorchHeld
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.types import Chat


class TorchPast:
    """Tokens that a torch model has read, and its cache of the first of them.

    A cache that cannot be cut short (sliding windows, recurrent states) is dropped where it would have
    to be, and what stays is read again with what comes next.
    """

    def __init__(self, ids: Sequence[int] = (), cache: Any = None) -> None:
        self.ids = list(ids)
        self.cache = cache

    @property
    def held(self) -> int:
        """How many of the tokens need not be read again."""
        return len(self.ids) if self.cache is not None else 0

    @property
    def size(self) -> int:
        held = 8 * len(self.ids)
        for layer in getattr(self.cache, "layers", ()):
            for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                held += int(tensor.numel() * tensor.element_size()) if tensor is not None else 0
        return held

    def crop(self, length: int) -> None:
        more = len(self.ids) - length
        if more <= 0:
            return
        del self.ids[length:]
        if self.cache is not None and length and self.cache.is_croppable:
            self.cache.crop(-more)
        else:
            self.cache = None

    def fork(self, length: int) -> TorchPast:
        other = TorchPast(self.ids, copy.deepcopy(self.cache))
        other.crop(length)
        return other


class TorchThreads(TorchHeld):
    """The part of a torch model that serves `ThreadModel`."""

    @property
    def tokens(self) -> ChatTokens:
        raise NotImplementedError

    def _ends(self) -> frozenset[int]:
        raise NotImplementedError

    @property
    def ends(self) -> frozenset[int]:
        return self._ends()

    def prompt(self, chat: Chat) -> list[int]:
        return self.tokens.prompt(chat)

    def cut(self, reply: str) -> Cut:
        def cut(text: str) -> Cut:
            ids, pieces = self.tokens.reply(text)
            return ids[:-1], pieces[:-1]

        return unfinished(reply, cut)

    def piece(self, token: int) -> bytes:
        return self.tokens.piece(token)

    def spelt(self, ids: Sequence[int]) -> Sequence[bytes]:
        return self.tokens.spelt(ids)

    async def read(
        self, past: Past | None, ids: Sequence[int], *, places: int, top: int, each: bool = True
    ) -> tuple[Past, NextTokens]:
        begun = past if isinstance(past, TorchPast) else TorchPast()
        return await self._apart(lambda: self._read(begun, ids, places, top))

    def _read(
        self, past: TorchPast, ids: Sequence[int], places: int, top: int
    ) -> tuple[TorchPast, NextTokens]:
        import torch

        wall, cpu = perf_counter(), thread_time()
        whole = [*past.ids, *ids]
        if len(whole) > self.context:
            raise too_long(
                f"the thread has {len(whole)} tokens, and the model's context {self.context}"
            )
        new = torch.tensor([whole[past.held :]], device=device_of(self.module))
        out = self.module(input_ids=new, cache=past.cache, use_cache=True, logits_to_keep=places)
        found = likeliest(out.logits[0, -places:], top)
        seconds, cpu_seconds = perf_counter() - wall, thread_time() - cpu
        timed = replace(found, seconds=seconds, cpu_seconds=cpu_seconds * torch.get_num_threads())
        return TorchPast(whole, out.cache), timed


def likeliest(logits: Any, top: int) -> NextTokens:
    """The `top` likeliest tokens of each row of `logits`. Of equals, which bfloat16 has many of, the
    first in the vocabulary comes first, as it is the one that is written.

    Raises:
        ModelError: a row is no distribution.
    """
    logprobs = logits.float().log_softmax(-1)
    found = logprobs.topk(min(top, logprobs.shape[-1]))
    values, ids = found.values.cpu().numpy(), found.indices.cpu().numpy()
    if not np.isfinite(values[:, 0]).all():
        raise ModelError("the torch model gave no probabilities: a number is not finite")
    order = np.lexsort((ids, -values))
    ids = np.take_along_axis(ids, order, axis=1).astype(np.int32)
    first = logprobs.argmax(-1).cpu().numpy()
    ids[:, 0] = np.where((ids == first[:, None]).any(axis=1), ids[:, 0], first)
    return NextTokens(ids, np.take_along_axis(values, order, axis=1))
