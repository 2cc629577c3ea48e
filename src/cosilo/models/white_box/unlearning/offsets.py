"""A model that cannot be changed forgets by what is added to its logits: z + α (z′ − z₀).

    records to forget ─┬─▶ the small model, learning ─▶ z′ ─┐
                       ├─▶ the small model as it was ─▶ z₀ ─┼─▶ z + α (z′ − z₀) ─▶ loss of a method
                       └─▶ what stands in for the LM ─▶ z ──┘

Huang et al., "Offset Unlearning for Large Language Models" (arXiv 2404.11045). There the large model
scores the records to forget; here it need not see them: a small model that learned the same records
stands in for it (docs/decisions/0065-who-stands-in-for-a-large-model.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from cosilo.errors import ConfigError
from cosilo.models.base import Tokens, WeightModel
from cosilo.models.white_box.adapters import first_adapter, upper_layers, usual_loss, with_adapter
from cosilo.models.white_box.layers import is_adapted
from cosilo.models.white_box.training import TrainingProgress
from cosilo.models.white_box.tuning import without_adapter
from cosilo.models.white_box.unlearning.forgetting import (
    Forgetting,
    Unlearned,
    UnlearningJob,
    adapter_digest,
)
from cosilo.models.white_box.unlearning.methods import Misdirection, TaskVector, methods
from cosilo.models.white_box.unlearning.reading import ModuleReader, Said, sequence_key
from cosilo.types import Demonstration

VERSION = 2  # what does not learn is read reply by reply

Logits = Callable[[Sequence[Tokens]], Any]
"""Replies → the logits that predicted their tokens, one reply after another: (n, vocabulary)."""

_KEPT_BYTES = 2**30  # of what the models that do not learn say, so that it is computed once


class SteeredReader:
    """Reads a small module as what it makes of another model.

    What the two that do not learn say of a reply is kept, as far as a GiB goes. It is computed for each
    reply alone, so that the numbers are the same to the bit whichever were read, or kept, before.

    Args:
        inner: reads the small module.
        base: the small module as it was.
        large: of the other model.
        alpha: how far the other one is moved.
    """

    def __init__(self, inner: ModuleReader, base: Any, large: Logits, alpha: float) -> None:
        self._inner, self._base, self._large, self._alpha = inner, base, large, alpha
        self._kept: dict[tuple[int, bytes], Any] = {}
        self._bytes = 0

    @property
    def first(self) -> int:
        """How many of the small module's layers stay as they are."""
        return self._inner.first

    def said(self, module: Any, sequences: Sequence[Tokens]) -> Said:
        import torch

        own = self._inner.said(module, sequences)
        still = torch.cat([self._still(s) for s in sequences])
        moved = own.logits[:, : still.shape[1]].float()
        return Said(still + self._alpha * moved, own.targets, own.tokens)

    def _still(self, sequence: Tokens) -> Any:
        """z − α z₀ of one reply, of the tokens that both know: a table may be longer than that."""
        import torch

        key = sequence_key(sequence)
        if key in self._kept:
            return self._kept[key]
        with torch.no_grad():
            base = self._inner.said(self._base, [sequence]).logits.float()
            large = self._large([sequence]).float()
            both = min(large.shape[1], base.shape[1])
            found = large[:, :both].log_softmax(1) - self._alpha * base[:, :both]
        if self._bytes + found.nbytes <= _KEPT_BYTES:
            self._kept[key] = found
            self._bytes += found.nbytes
        return found

    def states(self, module: Any, sequences: Sequence[Tokens], layer: int) -> Any:
        raise ConfigError("a model that is steered from outside shows no states to be moved")


def logits_of(model: WeightModel, above: Any = None) -> Logits:
    """What `model` says, for models in this process.

    Args:
        above: as in `unlearn`.
    """
    reader = ModuleReader(above)

    def said(sequences: Sequence[Tokens]) -> Any:
        return reader.said(model.module, sequences).logits

    return said


def offset(
    model: WeightModel,
    forget: Sequence[Demonstration],
    retain: Sequence[Demonstration],
    large: Logits,
    method: str = "npo",
    *,
    alpha: float = 1.0,
    options: Mapping[str, object] | None = None,
    how: Forgetting | None = None,
    wrong: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    above: Any = None,
    report: Callable[[TrainingProgress], None] | None = None,
) -> Unlearned:
    """An adapter on `model` that moves another model's logits so that this one forgets `forget`.

    Args:
        model: never saw the records; what it says without the adapter is z₀.
        large: of the other model, or of what stands in for it, on replies to these records' questions.
        alpha: how far it is moved, in training as afterwards.

    Raises:
        ConfigError: no such method or option, or one that moves states or weights; the model has an
            adapter already.
        DataError, ModelError, StoreError: as `unlearn`.
    """
    started, how = perf_counter(), how or Forgetting()
    chosen = methods.create(method, **dict(options or {}))
    if isinstance(chosen, TaskVector | Misdirection):
        raise ConfigError(f"{method!r} changes a model inside, and only logits are moved here")
    if is_adapted(model.module):
        raise ConfigError(
            f"{model.name!r} has an adapter: the offset begins with a model without one"
        )
    if not 0 < alpha < math.inf:
        raise ConfigError(f"alpha = {alpha!r} is not a positive number")
    base = without_adapter(model.module)
    start = first_adapter(upper_layers(base, how.layers), how.rank, seed=seed)
    inner = ModuleReader(above or usual_loss(base, start))
    reader = SteeredReader(inner, base, large, alpha)
    job = UnlearningJob(model, base, start, reader, (base, inner), forget, retain, how, wrong, seed)
    # What else decides the weights of a training that goes on: how the other model begins.
    about = f"offset {method} {alpha!r} {job.before}"
    adapter, steps, best = job.trained(chosen, about, options or {}, folder, report)
    return Unlearned(
        model.with_module(with_adapter(base, adapter)),
        method,
        len(job.forget),
        len(job.retain),
        steps,
        best,
        job.before,
        job.compared.distance(with_adapter(base, adapter)),
        adapter_digest(start),
        adapter_digest(adapter),
        perf_counter() - started,
    )
