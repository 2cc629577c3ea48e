"""Several sequences as one batch, and what a causal model predicts for their replies.

    · · p p p r r │        padded on the left, so that all replies end together and the model's head
    p p p p r r r │        need only look at the last columns

Needs torch; its tensors and modules are typed `Any` here, as everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.models.base import Tokens


@dataclass(frozen=True, eq=False)
class Batch:
    """Tensors of B sequences, padded to N tokens, their replies to R.

    Attributes:
        ids, mask, positions: what the model is given, (B, N).
        targets: the tokens of the replies, at the right end, (B, R).
        counted: which of `targets` are reply tokens and no padding, (B, R).
    """

    ids: Any
    mask: Any
    positions: Any
    targets: Any
    counted: Any


def pad(sequences: Sequence[Tokens], device: Any = "cpu") -> Batch:
    """`sequences` as one batch on `device`."""
    import torch

    width = max(len(s) for s in sequences)
    reply = max(len(s) - s.start for s in sequences)
    ids = np.zeros((len(sequences), width), np.int64)
    mask = np.zeros_like(ids)
    counted = np.zeros((len(sequences), reply), bool)
    for i, s in enumerate(sequences):
        ids[i, width - len(s) :] = s.ids
        mask[i, width - len(s) :] = 1
        counted[i, reply - (len(s) - s.start) :] = True
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Batch(
        tensor(ids),
        tensor(mask),
        tensor(positions),
        tensor(ids[:, width - reply :]),
        tensor(counted),
    )


def predict(module: Any, batch: Batch) -> Any:
    """The logits that predicted `batch.targets`, shape (B, R, vocabulary), with their gradient."""
    reply = batch.targets.shape[1]
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        "position_ids": batch.positions,
        "use_cache": False,
    }
    if "logits_to_keep" in inspect.signature(_forward(module)).parameters:
        inputs["logits_to_keep"] = reply + 1
    return module(**inputs).logits[:, -reply - 1 : -1]


def reply_loss(module: Any, sequences: Sequence[Tokens]) -> Any:
    """The mean negative log-likelihood of a reply token, in nats: a scalar with its gradient."""
    from torch.nn.functional import cross_entropy

    batch = pad(sequences, device_of(module))
    logits = predict(module, batch)
    return cross_entropy(logits[batch.counted].float(), batch.targets[batch.counted])


def weighed_loss(module: Any, lessons: Sequence[tuple[Tokens, float]]) -> Any:
    """As `reply_loss`, each reply's tokens counting by its weight; weights are about 1 on average.

    They are not made to add up within a batch: in a batch of light replies the loss is small.
    """
    import torch
    from torch.nn.functional import cross_entropy

    batch = pad([tokens for tokens, _ in lessons], device_of(module))
    logits = predict(module, batch)
    each = cross_entropy(
        logits[batch.counted].float(), batch.targets[batch.counted], reduction="none"
    )
    weights = torch.tensor([weight for _, weight in lessons], device=each.device)
    return (each * weights[:, None].expand_as(batch.counted)[batch.counted]).mean()


def device_of(module: Any) -> Any:
    """Where the module's parameters lie."""
    return next(module.parameters()).device


def has_bfloat16() -> bool:
    """Whether this machine computes in bfloat16: its GPU, or its processor's own instructions."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def together(sequences: Sequence[Tokens], most: int) -> Iterator[list[int]]:
    """Indices of `sequences` in groups of similar length, each of at most `most` padded tokens.

    A sequence longer than `most` stands alone.
    """
    group: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: -len(sequences[i])):
        if group and len(sequences[group[0]]) * (len(group) + 1) > most:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _forward(module: Any) -> Any:
    inner = getattr(module, "get_base_model", None)  # an adapter hides its model's signature
    return (inner() if inner is not None else module).forward
