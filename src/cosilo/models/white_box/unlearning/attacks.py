"""What somebody can try who has unlearned weights, so that the records come back.

    unlearned weights ─┬─▶ trained again on a few of the records ─▶ what is said of the others
                       ├─▶ rounded to a few bits, as small files hold them
                       └─▶ held against the weights of before: z_before + w (z_before − z_after)

Relearning: Hu et al., "Unlearning or Obfuscating?" (arXiv 2406.13356); rounding: Zhang et al.
(arXiv 2410.16454); two checkpoints: the difference tells what was taken away, and adding it again
shows the records more clearly than the model of before did.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import (
    adapter_of,
    first_adapter,
    trained_adapter,
    upper_layers,
    with_adapter,
)
from cosilo.models.white_box.layers import is_adapted, layers_of
from cosilo.models.white_box.tuning import without_adapter
from cosilo.models.white_box.unlearning.reading import ReplyReader, Said

GROUP = 32  # numbers that share a scale, in q8_0 and q4_0


def relearned(
    module: Any,
    known: Sequence[Tokens],
    *,
    epochs: float = 3.0,
    batch: int = 5,
    learning_rate: float = 1e-3,
    layers: int = 8,
    rank: int = 16,
    seed: int = 0,
    loss: Any = None,
) -> Any:
    """`module` trained again on the records `known`: its adapter, or a new one on its last `layers`."""
    base = without_adapter(module)
    start = (
        adapter_of(module)
        if is_adapted(module)
        else first_adapter(upper_layers(base, layers), rank, seed=seed)
    )
    found = trained_adapter(
        base, start, known, steps=max(1, math.ceil(epochs * math.ceil(len(known) / batch))),
        batch=batch, learning_rate=learning_rate, seed=seed, loss=loss,
    )[0]  # fmt: skip
    return with_adapter(base, found)


def rounded_to(module: Any, bits: int) -> Any:
    """A copy of a module without an adapter whose layers' matrices are rounded in groups of 32: to 8
    bits by the largest size over 127 (as q8_0), to 4 by the number of largest size over -8 (q4_0)."""
    import torch

    made = copy.deepcopy(module)
    with torch.no_grad():
        for layer in layers_of(made):
            for part in layer.modules():
                if isinstance(part, torch.nn.Linear):
                    part.weight.copy_(rounded(part.weight.float(), bits).to(part.weight.dtype))
    return made


def rounded(weight: Any, bits: int) -> Any:
    """A matrix (out, in) rounded to 8 or 4 bits. Where `in` is no multiple of 32, rows are taken as
    they follow each other; a last group may be shorter."""
    from torch.nn.functional import pad

    if bits not in (4, 8):
        raise ValueError(f"weights are rounded to 4 or 8 bits, not {bits}")
    flat = weight.reshape(-1)
    groups = pad(flat, (0, -len(flat) % GROUP)).reshape(-1, GROUP)
    if bits == 8:
        scale = groups.abs().amax(1, keepdim=True) / 127
        low, high = -127, 127
    else:
        where = groups.abs().argmax(1, keepdim=True)
        scale = groups.gather(1, where) / -8
        low, high = -8, 7
    scale = scale.half().float()
    safe = scale.where(scale != 0, scale.new_ones(()))
    made = (groups / safe).round().clamp(low, high) * scale
    return made.reshape(-1)[: len(flat)].reshape(weight.shape)


class TwoCheckpoints:
    """Reads a module as what it tells beside the one of before: z_before + w (z_before − z_after), of
    the tokens that both know: a table may be longer than its vocabulary, and another one's not.

    Args:
        reader: of both.
        before: the module before it unlearned.
        weight: w.
    """

    def __init__(self, reader: ReplyReader, before: Any, weight: float = 1.0) -> None:
        self._reader, self._before, self._weight = reader, before, weight

    def said(self, module: Any, sequences: Sequence[Tokens]) -> Said:
        before = self._reader.said(self._before, sequences)
        after = self._reader.said(module, sequences)
        both = min(before.logits.shape[1], after.logits.shape[1])
        was, now = before.logits[:, :both].float(), after.logits[:, :both].float()
        moved = was * (1 + self._weight) - now * self._weight
        return Said(moved, before.targets, before.tokens)

    def states(self, module: Any, sequences: Sequence[Tokens], layer: int) -> Any:
        raise ConfigError("two checkpoints held against each other have no states")
