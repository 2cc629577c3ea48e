"""Writing replies with a causal model: several at once, each sampled by its own seed.

    prompts, padded on the left ──▶ model ──▶ a token for each row ──▶ model ──▶ …
    (one that several share, once)             │ a row that has ended leaves the batch
                                               ▼
                                        Writer: pieces of text, stop strings, log-probabilities

The log-probabilities shown are the free model's at temperature 1, whatever the token was drawn by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from cosilo.models.base import Tokens
from cosilo.models.chat.writer import Writer
from cosilo.models.white_box.batch import device_of, pad

_TOGETHER = 4096  # tokens of a prompt's cache, copied for the choices that are scored at once


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
    prompts: dict[tuple[int, ...], int] = {}
    whose = [prompts.setdefault(tuple(w.prompt), len(prompts)) for w in writers]
    batch = pad([Tokens(np.array(p, np.int32), len(p), ()) for p in prompts], device)
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
        logits = out.logits[:, -1].float()
        if cache is None and len(prompts) < len(rows):
            shared = torch.tensor(whose, dtype=torch.long, device=device)
            logits, mask, positions = logits[shared], mask[shared], positions[shared]
            out.cache.batch_select_indices(shared)
        cache = out.cache
        tokens = _next(logits, rows)
        shown = _shown(logits, tokens, rows)
        said: list[int] = []
        stay: list[int] = []
        for i, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if not row.left() and row.take(token, token in ends, *shown[i]):
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


def _next(logits: Any, rows: Sequence[Writer]) -> Any:
    """The next token of each row by its sampling, shape (rows,), found where the logits lie."""
    import torch

    tokens = logits.argmax(-1)
    drawn = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
    if drawn:
        sampling = [rows[i].sampling for i in drawn]
        chosen = torch.tensor(drawn, device=logits.device)
        tokens[chosen] = draw(
            logits if len(drawn) == len(rows) else logits[chosen],
            [s.temperature for s in sampling],
            [s.top_p for s in sampling],
            [rows[i].chance() for i in drawn],
            [rows[i].top_k for i in drawn],
            [rows[i].min_p for i in drawn],
        )
    return tokens


def draw(
    logits: Any,
    temperatures: Sequence[float],
    top_p: Sequence[float],
    chances: Sequence[float],
    top_k: Sequence[int] = (0,),
    min_p: Sequence[float] = (0.0,),
) -> Any:
    """A token for each row of `logits`, shape (rows,): the first at which the probability, summed up in
    the order of the vocabulary, exceeds the row's chance.

    Args:
        logits: (rows, vocabulary); all other arguments have an entry for each row.
        top_p: the least summed probability of the likeliest tokens that stay; 1 keeps all.
        top_k: how many of the likeliest tokens stay, before that; 0 keeps all.
        min_p: the share of the likeliest token's probability that a token must have to stay, before
            that; 0 keeps all.
    """
    import torch

    def column(values: Sequence[float]) -> Any:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    p = (logits.double() / column(temperatures)).softmax(-1)
    if max(min_p) > 0:
        p = p.masked_fill(p < column(min_p) * p.amax(-1, keepdim=True), 0.0)
        p = p / p.sum(-1, keepdim=True)
    if max(top_k) > 0:
        places = p.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        p = p.masked_fill(places >= column([k if k > 0 else p.shape[-1] for k in top_k]), 0.0)
        p = p / p.sum(-1, keepdim=True)
    if min(top_p) < 1:
        ranked, ids = p.sort(dim=-1, descending=True, stable=True)
        gone = ranked.cumsum(-1) - ranked >= column([t if t < 1 else 2.0 for t in top_p])
        gone[:, 0] = False
        p = p.scatter(-1, ids, ranked.masked_fill(gone, 0.0))
    total = p.cumsum(-1)
    found = torch.searchsorted(total, column(chances) * total[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def _shown(
    logits: Any, tokens: Any, rows: Sequence[Writer]
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Of each row: its token's log-probability, and the likeliest tokens with theirs."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    wanted = min(max(row.sampling.top_logprobs for row in rows), logits.shape[-1])
    values, ids = logprobs.topk(wanted)
    tops = zip(ids.tolist(), values.tolist(), strict=True)
    return [(at, list(zip(*top, strict=True))) for at, top in zip(own, tops, strict=True)]


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
