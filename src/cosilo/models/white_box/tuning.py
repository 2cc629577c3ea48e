"""Training a causal language model to give the replies it is shown.

sequences ─┬─ most ──▶ steps on an adapter or on all weights ─▶ weights that are best on the others
           └─ a share is held out and decides when to stop
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.batch import reply_loss, together, weighed_loss
from cosilo.models.white_box.layers import is_adapted
from cosilo.models.white_box.training import Schedule, TrainingProgress, seeded, train

_BATCH_TOKENS = 4096  # padded tokens of the sequences whose loss is computed together


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How `fit` trains.

    Attributes:
        method: "lora" trains small matrices beside the frozen weights; "full" trains all weights.
        rank: of the matrices.
        learning_rate: 2e-4 for LoRA and 2e-5 for full training when unset.
        validation: the share of the examples that decides when to stop; none below ten examples.
        checkpoints: a folder from which an interrupted `fit` goes on.
    """

    method: Literal["lora", "full"] = "lora"
    rank: int = 8
    epochs: float = 3.0
    batch: int = 8
    learning_rate: float | None = None
    validation: float = 0.1
    patience: int = 3
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.epochs > 0 or not 0 <= self.validation < 1:
            raise ConfigError(
                f"rank = {self.rank!r} must be 1 or more, epochs = {self.epochs!r} above 0, and "
                f"validation = {self.validation!r} a share below 1"
            )


def tuned(
    module: Any,
    sequences: Sequence[Tokens],
    weights: Sequence[float],
    tuning: Tuning,
    *,
    context: int,
    seed: int = 0,
    run: str = "",
    report: Callable[[TrainingProgress], None] | None = None,
) -> Any:
    """A copy of `module`, trained on the replies of `sequences`, each by its weight.

    A frozen base is shared with `module`, not copied. Sequences longer than `context` are cut at the
    start of their prompt.

    Args:
        run: what a checkpoint must be of, besides these sequences, for training to go on from it.

    Raises:
        ModelError: the loss is not finite.
        StoreError: the checkpoints cannot be written, or are another training's.
    """
    sequences = [cut_to(s, context) for s in sequences]
    held = _held_out(len(sequences), tuning.validation, seed)
    mean = sum(weights) / len(weights)
    weights = [w / mean for w in weights]
    kept = [
        (s, w) for i, (s, w) in enumerate(zip(sequences, weights, strict=True)) if i not in held
    ]
    out = [sequences[i] for i in sorted(held)]
    trained = prepared(module, method=tuning.method, rank=tuning.rank, seed=seed)
    steps = max(1, math.ceil(tuning.epochs * len(kept) / tuning.batch))
    schedule = Schedule(
        steps=steps,
        batch=tuning.batch,
        learning_rate=tuning.learning_rate or (2e-4 if tuning.method == "lora" else 2e-5),
        validate_every=max(1, round(steps / max(1.0, tuning.epochs))),
        patience=tuning.patience,
        seed=seed,
    )
    train(
        trained,
        kept,
        weighed_loss,
        schedule,
        validate=(lambda m: mean_loss(m, out)) if out else None,
        folder=tuning.checkpoints,
        run=_data_digest(sequences, weights) + run,
        report=report,
        precision="bfloat16" if _is_half(module) else "float32",
    )
    return trained.to(module.dtype) if tuning.method == "full" else trained


def prepared(module: Any, *, method: str, rank: int = 8, seed: int = 0) -> Any:
    """A copy of `module` to train: an adapter around shared, frozen weights, or all weights in float32.

    A module that has an adapter keeps training that one, in a copy.
    """

    if method == "full":
        return merged(module).float().requires_grad_(True)
    if is_adapted(module):
        own = {n for n, _ in module.named_parameters() if "lora_" in n}
        shared = {id(p): p for n, p in module.named_parameters() if n not in own}
        copied = copy.deepcopy(module, shared)
        for name, parameter in copied.named_parameters():
            parameter.requires_grad_(name in own)
        return copied
    import peft

    copied = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with seeded(seed), torch_files.quiet():
        return peft.get_peft_model(copied, config)


def mean_loss(module: Any, sequences: Sequence[Tokens]) -> float:
    """The negative log-likelihood of a reply token, in nats, over all of `sequences`."""
    import torch

    total = count = 0.0
    with torch.no_grad():
        for group in together(sequences, _BATCH_TOKENS):
            chosen = [sequences[i] for i in group]
            tokens = sum(len(s) - s.start for s in chosen)
            total += float(reply_loss(module, chosen)) * tokens
            count += tokens
    return total / max(1.0, count)


def merged(module: Any) -> Any:
    """A copy of `module` in which an adapter has become part of the weights."""
    copied = copy.deepcopy(module)
    return copied.merge_and_unload() if is_adapted(module) else copied


def without_adapter(module: Any) -> Any:
    """The model that `module` was before it was trained with method = "lora"; weights are shared."""
    copied = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    return copied.unload() if is_adapted(module) else copied


def _is_half(module: Any) -> bool:
    return str(module.dtype) == "torch.bfloat16"


def fitted(sequences: Iterable[Tokens], module: Any) -> list[Tokens]:
    """Each of `sequences` as `cut_to` cuts it to what `module` reads."""
    context = int(getattr(module.config, "max_position_embeddings", 1 << 20))
    return [cut_to(tokens, context) for tokens in sequences]


def cut_to(tokens: Tokens, context: int) -> Tokens:
    """`tokens` without the start of its prompt, and if need be the end of its reply, to fit."""
    over = len(tokens) - context
    if over <= 0:
        return tokens
    front = min(over, tokens.start - 1)
    end = len(tokens) - (over - front)
    start = tokens.start - front
    return Tokens(tokens.ids[front:end], start, tokens.pieces[: end - front - start])


def _held_out(count: int, share: float, seed: int) -> set[int]:
    if count < 10:
        return set()
    chosen = np.random.default_rng(seed).permutation(count)[: round(share * count)]
    return {int(i) for i in chosen}


def _data_digest(sequences: Sequence[Tokens], weights: Sequence[float]) -> str:
    text = json.dumps([[s.start, s.ids.tolist()] for s in sequences] + [list(weights)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
