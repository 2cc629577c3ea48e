"""How likely a causal model holds each of some replies, with gradients, and losses made of that.

    prompt │ r₁ r₁ r₁ │ r₂ r₂ │ r₃ …      one row: each reply sees the prompt and itself alone

All replies of a prompt are computed in one row, at the places that they would have by themselves, so
the prompt is computed once. Needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosilo.models.white_box.batch import device_of


class ChoiceLesson(NamedTuple):
    """A prompt's tokens, and how likely each choice is right."""

    prompt: Sequence[int]
    shares: NDArray[np.float32]


def choice_logprobs(
    module: Any, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> Any:
    """The log-probability of each of `replies` after each of `prompts`, shape (prompts, replies), with
    its gradient: what `decoding.score` gives without one.

    Args:
        replies: tokens, the one that ends the reply included; none is empty.
    """
    import torch

    device = device_of(module)
    width = max(map(len, prompts))
    packed = [token for reply in replies for token in reply[:-1]]
    size = width + len(packed)
    ids = np.zeros((len(prompts), size), np.int64)
    positions = np.zeros_like(ids)
    seen = np.zeros((len(prompts), size, size), bool)
    seen[:, np.arange(size), np.arange(size)] = True  # padding sees itself, so that nothing is NaN
    for row, prompt in enumerate(prompts):
        start = width - len(prompt)
        ids[row, start:width], ids[row, width:] = prompt, packed
        positions[row, start:width] = np.arange(len(prompt))
        seen[row, start:width, start:width] |= np.tri(len(prompt), dtype=bool)
        seen[row, width:, start:width] = True
    at = width
    source: list[int] = []
    wanted: list[int] = []
    which: list[int] = []
    for number, reply in enumerate(replies):
        length = len(reply) - 1
        seen[:, at : at + length, at : at + length] |= np.tri(length, dtype=bool)
        for row, prompt in enumerate(prompts):
            positions[row, at : at + length] = len(prompt) + np.arange(length)
        source += [0, *range(at - width + 1, at - width + 1 + length)]
        wanted += reply
        which += [number] * len(reply)
        at += length
    hidden = torch.finfo(module.dtype).min
    mask = torch.zeros(seen.shape, dtype=module.dtype).masked_fill(~torch.from_numpy(seen), hidden)
    logits = module(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=mask[:, None].to(device),
        position_ids=torch.from_numpy(positions).to(device),
        use_cache=False,
        logits_to_keep=len(packed) + 1,
    ).logits.float()
    places = torch.tensor(source, device=device)
    each = logits[:, places, torch.tensor(wanted, device=device)]
    each = each - logits.logsumexp(-1)[:, places]
    total = each.new_zeros(len(prompts), len(replies))
    return total.index_add(1, torch.tensor(which, device=device), each)


def choice_loss(logprobs: Any, shares: Any, confidence: float = 0.0) -> Any:
    """How far the model's choices are from `shares`, in nats on average: a scalar with its gradient.

    With `confidence` = α the target is (1 − α) · shares + α · the model's own choices, `hardened`
    (Burns et al., arXiv 2312.09390, appendix A.4, where there are two).

    Args:
        logprobs, shares: (lessons, choices); the first need not sum to 1.
    """
    import torch

    logs = logprobs.log_softmax(1)
    target = shares
    if confidence:
        own = hardened(logs.detach().double().cpu().numpy(), shares.double().cpu().numpy().sum(0))
        one_hot = torch.zeros_like(shares)
        one_hot[torch.arange(len(own)), torch.from_numpy(own).to(shares.device)] = 1.0
        target = (1 - confidence) * shares + confidence * one_hot
    return -(target * logs).sum(1).mean()


def hardened(logprobs: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """The model's own choice for each row. Of two, the threshold is set so that each is made as often
    as `wanted` has it, rounded, so that it cannot come to choose one of them always; of more, it is the
    likeliest (forcing their counts in a batch of a few of each would leave it no opinion of its own).

    Args:
        logprobs: (rows, choices).
        wanted: (choices,), in any proportion.
    """
    if len(wanted) != 2:
        likeliest: NDArray[np.int64] = logprobs.argmax(axis=1)
        return likeliest
    first = round(float(wanted[0] / wanted.sum() * len(logprobs)))
    order = np.argsort(logprobs[:, 1] - logprobs[:, 0], kind="stable")
    found = np.ones(len(logprobs), np.int64)
    found[order[:first]] = 0
    return found


def confidence_at(step: int, steps: int, confidence: float, warmup: float) -> float:
    """The share that the model's own opinion has at `step`, counted from 0: it rises in a straight line
    over the first `warmup` of the steps and stays at `confidence` then."""
    rising = warmup * steps
    return confidence * min(1.0, step / rising) if rising else confidence
