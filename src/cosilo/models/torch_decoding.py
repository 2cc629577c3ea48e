"""Writing replies with a causal model: several at once, each sampled by its own seed.

    prompts, padded on the left ──▶ model ──▶ a token for each row ──▶ model ──▶ …
                                               │ a row that has ended leaves the batch
                                               ▼
                                        Writer: pieces of text, stop strings, log-probabilities

The log-probabilities shown are the free model's at temperature 1, whatever the token was drawn by.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from cosilo.models.base import Tokens
from cosilo.models.torch_batch import device_of, pad
from cosilo.models.torch_tokens import ChatTokens
from cosilo.types import Delta, FinishReason, Sampling, TokenLogprob

_TOGETHER = 4096  # tokens of a prompt's cache, copied for the choices that are scored at once


class Writer:
    """One reply on its way: takes tokens, tells pieces.

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
        tokens: ChatTokens,
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
        self._random = np.random.default_rng(sampling.seed)
        self._held = ""
        self._waiting: list[TokenLogprob] = []  # tokens whose text is still held

    def pick(self, logits: Any) -> int:
        """The next token by `sampling`, from one row of logits at a temperature above 0."""
        scaled = logits.double().numpy() / self.sampling.temperature
        p = np.exp(scaled - scaled.max())
        p /= p.sum()
        if self.sampling.top_p < 1:
            ranked = np.argsort(-p)
            before = np.cumsum(p[ranked]) - p[ranked]
            p[ranked[before >= self.sampling.top_p]] = 0  # the first one always stays
        total = np.cumsum(p)
        return int(np.searchsorted(total, self._random.random() * total[-1], side="right"))

    def take(self, token: int, ends: bool, logprobs: Any) -> bool:
        """The next token of the reply; whether the reply goes on after it."""
        self.count += 1
        if ends:
            return self._finish("stop", self._decoder.decode(b"", final=True))
        piece = self._tokens.piece(token)
        if self.count == 1:
            piece = self._tokens.first(piece)
        self._waiting.append(
            TokenLogprob(
                piece.decode("utf-8", "replace"), _at(logprobs, token), self._top(logprobs)
            )
        )
        last = self.count >= self._most
        self._held += self._decoder.decode(piece, final=last)
        stop = min(
            (at for s in self.sampling.stop if s and (at := self._held.find(s)) >= 0), default=-1
        )
        if stop >= 0:
            self._held = self._held[:stop]
            return self._finish("stop")
        if last:
            return self._finish("length")
        free = len(self._held) - _overlap(self._held, self.sampling.stop)
        if free and free == len(self._held):
            self._tell(Delta(text=self._held, tokens=tuple(self._waiting)))
            self._held, self._waiting = "", []
        return True

    def _finish(self, reason: FinishReason, rest: str = "") -> bool:
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

    def _top(self, logprobs: Any) -> tuple[tuple[str, float], ...]:
        wanted = min(self.sampling.top_logprobs, len(logprobs))
        if not wanted:
            return ()
        values, ids = logprobs.topk(wanted)
        return tuple(
            (self._tokens.piece(i).decode("utf-8", "replace"), min(0.0, v))
            for i, v in zip(ids.tolist(), values.tolist(), strict=True)
        )


def write(module: Any, writers: Sequence[Writer], ends: frozenset[int]) -> None:
    """Write the replies of all `writers` together, until each has ended or nobody waits for it.

    Args:
        ends: the tokens that end a reply.
    """
    import torch

    if not writers:
        return
    started, cpu = perf_counter(), thread_time()
    device = device_of(module)
    batch = pad([Tokens(np.array(w.prompt, np.int32), len(w.prompt), ()) for w in writers], device)
    ids, mask, positions = batch.ids, batch.mask, batch.positions
    rows, cache = list(writers), None
    while rows:
        out = module(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.cache
        logits = out.logits[:, -1].float().cpu()
        logprobs = logits.log_softmax(-1)
        likely = logits.argmax(-1).tolist()
        said: list[int] = []
        stay: list[int] = []
        for i, row in enumerate(rows):
            token = row.pick(logits[i]) if row.sampling.temperature > 0 else likely[i]
            if not row.left() and row.take(token, token in ends, logprobs[i]):
                stay.append(i)
                said.append(token)
        used, cpu = thread_time() - cpu, thread_time()
        for i, row in enumerate(rows):
            row.cpu_seconds += used / len(rows)
            if i not in stay:
                row.seconds = perf_counter() - started
                row.done(row)
        if len(stay) < len(rows):
            rows = [rows[i] for i in stay]
            chosen = torch.tensor(stay, dtype=torch.long, device=device)
            mask, positions = mask[chosen], positions[chosen]
            if rows:
                cache.batch_select_indices(chosen)
        ids = torch.tensor(said, dtype=torch.long, device=device)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1


def score(module: Any, prompt: Sequence[int], replies: Sequence[Sequence[int]]) -> list[float]:
    """The log-probability of each of `replies` after `prompt`; the prompt is computed once.

    Args:
        replies: tokens, the one that ends the reply included.
    """
    import torch

    device = device_of(module)
    first = module(
        input_ids=torch.tensor([list(prompt)], device=device), use_cache=True, logits_to_keep=1
    )
    start = first.logits[0, -1].float().log_softmax(-1)
    found: list[float] = []
    for group in _groups(replies, max(1, _TOGETHER // len(prompt))):
        found += _continued(module, first.cache, len(prompt), start, group)
    return found


def _continued(
    module: Any, cache: Any, prompt: int, start: Any, replies: Sequence[Sequence[int]]
) -> list[float]:
    """The log-probabilities of `replies` after the prompt in `cache`, which stays as it is."""
    import copy

    import torch

    width = max(len(r) for r in replies) - 1
    total = torch.stack([start[r[0]] for r in replies])
    if width:
        # What is padded stands behind all that counts, where a causal model does not see it.
        ids = torch.zeros(len(replies), width + 1, dtype=torch.long, device=start.device)
        for i, reply in enumerate(replies):
            ids[i, : len(reply)] = torch.tensor(list(reply))
        copied = copy.deepcopy(cache)
        copied.batch_repeat_interleave(len(replies))
        logits = module(
            input_ids=ids[:, :-1],
            attention_mask=ids.new_ones(len(replies), prompt + width),
            position_ids=torch.arange(prompt, prompt + width, device=ids.device)[None],
            cache=copied,
            use_cache=True,
        ).logits
        each = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        lengths = torch.tensor([len(r) - 1 for r in replies], device=ids.device)
        counted = torch.arange(width, device=ids.device)[None] < lengths[:, None]
        total = total + (each * counted).sum(-1)
    return [float(t) for t in total]


def _groups(replies: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[Sequence[int]]]:
    for i in range(0, len(replies), size):
        yield replies[i : i + size]


def _at(logprobs: Any, token: int) -> float:
    value = float(logprobs[token])
    return min(0.0, value) if math.isfinite(value) else -1e4


def _overlap(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the start of a stop string."""
    return max(
        (n for s in stops for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])),
        default=0,
    )
