"""Adapters as values: the small matrices that LoRA trains beside frozen weights, without a module.

    module ──adapter_of──▶ Adapter(rank, alpha, tensors) ──with_adapter──▶ a copy that shares the base
                                       │
                                       └── merged_with: W + alpha / rank · B A, no adapter any more

LoRA: Hu et al., arXiv 2106.09685. A layer with weights W of shape (out, in) has two matrices,
`NAME.lora_A` of shape (rank, in) and `NAME.lora_B` of shape (out, rank), float32, NAME the layer's own
in the base model. Needs torch and peft.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.errors import DataError
from cosilo.models.base import Tokens, WeightModel
from cosilo.models.low_rank import A, B, Floats, Layers, first_matrices
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import is_adapted, layers_of
from cosilo.models.white_box.training import Schedule, TrainingOutcome, TrainingProgress, train
from cosilo.models.white_box.tuning import fitted, without_adapter
from cosilo.models.white_box.upper import ReplyLossAbove, can_be_cut


@dataclass(frozen=True, eq=False)
class Adapter:
    """What is added to the weights of a base model: alpha / rank · B A for each layer.

    Attributes:
        rank: of all its matrices.
        alpha: the scale of what they give, times the rank.
        tensors: by name, float32; see above for shapes.

    Raises:
        DataError: the tensors are no pairs of matrices of this rank.
    """

    rank: int
    alpha: float
    tensors: Mapping[str, Floats]

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise DataError(f"an adapter of rank {self.rank} changes nothing; ranks begin at 1")
        if not math.isfinite(self.alpha):
            raise DataError(f"an adapter's alpha = {self.alpha!r} is no number")
        self.layers  # noqa: B018 — says what does not fit

    @property
    def scale(self) -> float:
        """What the product B A is multiplied by."""
        return self.alpha / self.rank

    @property
    def layers(self) -> Layers:
        """The layers that it changes, in the order of their names.

        Raises:
            DataError: the tensors are no pairs of matrices of this rank.
        """
        found: dict[str, tuple[int, int]] = {}
        names = {n.removesuffix(end) for n in self.tensors for end in (A, B) if n.endswith(end)}
        for name in sorted(names):
            a, b = self.tensors.get(name + A), self.tensors.get(name + B)
            if a is None or b is None or a.ndim != 2 or b.ndim != 2:
                raise DataError(f"an adapter lacks one of the two matrices of {name!r}")
            if (len(a), b.shape[1]) != (self.rank, self.rank):
                raise DataError(
                    f"{name!r} has matrices of ranks {len(a)} and {b.shape[1]} in an adapter of rank "
                    f"{self.rank}"
                )
            found[name] = (len(b), a.shape[1])
        if not found or len(self.tensors) != 2 * len(found):
            raise DataError(f"{len(self.tensors)} tensors are no adapter: it is pairs of matrices")
        return found

    def product(self, layer: str) -> Floats:
        """What is added to the weights of `layer`, shape (out, in)."""
        found: Floats = np.float32(self.scale) * (self.tensors[layer + B] @ self.tensors[layer + A])
        return found


def layers_to_adapt(module: Any, among: Iterable[int] | None = None) -> Layers:
    """All linear layers of a causal model but its head: what LoRA is usually put on.

    Args:
        among: only those within the decoder layers of these numbers.
    """
    import torch

    base = _base(module)
    head = base.get_output_embeddings()
    inside: tuple[str, ...] = ("",)
    if among is not None:
        every, numbers = layers_of(base), set(among)
        wanted = {id(layer) for i, layer in enumerate(every) if i in numbers}
        inside = tuple(f"{_plain(n)}." for n, part in base.named_modules() if id(part) in wanted)
    return {
        _plain(name): (part.out_features, part.in_features)
        for name, part in base.named_modules()
        if isinstance(part, torch.nn.Linear)
        and part is not head
        and "lora_" not in name
        and _plain(name).startswith(inside)
    }


def upper_layers(module: Any, count: int | None) -> Layers:
    """The linear layers in the last `count` decoder layers, as `layers_to_adapt`; in all when None."""
    total = len(layers_of(_base(module)))
    return layers_to_adapt(module, range(total - min(total, count or total), total))


def usual_loss(module: Any, adapter: Adapter) -> Callable[[Any, Sequence[Tokens]], Any]:
    """The loss of replies that `adapter` is trained with around `module`: where it changes upper layers
    only, one that keeps what the layers below say of a sequence, so that a step costs what the upper
    layers do. It may be used again for any adapter of the same layers."""
    outside = set(adapter.layers)
    first = None
    for number in range(len(layers_of(_base(module)))):
        inside = outside & set(layers_to_adapt(module, [number]))
        first = number if inside and first is None else first
        outside -= inside
    if not first or outside or not can_be_cut(module):
        return reply_loss
    return ReplyLossAbove(first)


def first_adapter(layers: Layers, rank: int, *, alpha: float | None = None, seed: int) -> Adapter:
    """Where training begins: A drawn as LoRA draws it, B nothing, so that the model is as it was.

    The same on every machine, without torch's random numbers; one of a smaller rank is the first rows
    of one of a larger rank and the same seed.

    Args:
        alpha: twice the rank when unset.

    Raises:
        DataError: the rank is below 1, or there are no layers.
    """
    tensors = first_matrices(layers, max(0, rank), seed)
    return Adapter(rank, 2.0 * rank if alpha is None else alpha, tensors)


def adapter_of(module: Any) -> Adapter:
    """The adapter that is around `module`.

    Raises:
        DataError: there is none, or it is not one of a single rank and scale.
    """
    if not is_adapted(module):
        raise DataError("the model has no adapter")
    tensors: dict[str, Floats] = {}
    ranks, scales = set(), set()
    for name, part in _base(module).named_modules():
        if not hasattr(part, "lora_A") or not part.lora_A:
            continue
        if len(part.lora_A) != 1:
            raise DataError(f"{_plain(name)!r} has {len(part.lora_A)} adapters; one is known here")
        (called,) = part.lora_A
        tensors[_plain(name) + A] = _array(part.lora_A[called].weight)
        tensors[_plain(name) + B] = _array(part.lora_B[called].weight)
        ranks.add(part.r[called])
        scales.add(float(part.scaling[called]))
    if len(ranks) != 1 or len(scales) != 1:
        raise DataError("the model's adapter has several ranks or scales, or is of another kind")
    (rank,), (scale,) = ranks, scales
    return Adapter(rank, scale * rank, tensors)


def with_adapter(module: Any, adapter: Adapter) -> Any:
    """The base of `module`, shared and frozen, with `adapter` around it, ready to be trained further.

    Raises:
        DataError: the adapter is for another model.
    """
    require_fit(adapter, module)
    import peft
    import torch

    base = without_adapter(module)
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # peft divides by the rank, whatever number it is
        target_modules=sorted(adapter.layers),
        task_type="CAUSAL_LM",
    )
    with torch_files.quiet():
        made = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, part in _base(made).named_modules():
            if hasattr(part, "lora_A") and part.lora_A:
                (called,) = part.lora_A
                for end, holder in ((A, part.lora_A), (B, part.lora_B)):
                    weight = holder[called].weight
                    weight.copy_(torch.from_numpy(np.array(adapter.tensors[_plain(name) + end])))
    return made.eval()


def merged_with(module: Any, adapter: Adapter, *, share: float = 1.0) -> Any:
    """A copy of the base of `module` whose weights are W + `share` · alpha / rank · B A where `adapter`
    has a layer; all other weights are shared.

    Raises:
        DataError: the adapter is for another model.
    """
    require_fit(adapter, module)
    import torch

    base = without_adapter(module)
    changed = {
        id(part.weight): part.weight
        for name, part in base.named_modules()
        if _plain(name) in adapter.layers
    }
    shared = {id(p): p for p in base.parameters() if id(p) not in changed}
    made = copy.deepcopy(base, shared)
    with torch.no_grad():
        for name, part in made.named_modules():
            if _plain(name) in adapter.layers:
                more = torch.from_numpy(share * adapter.product(_plain(name)))
                whole = part.weight.float() + more.to(part.weight.device)
                part.weight.copy_(whole.to(part.weight.dtype))
    return made.eval()


def require_fit(adapter: Adapter, module: Any) -> None:
    """Refuse an adapter of layers that the base of `module` does not have.

    Raises:
        DataError: it has others, or of other shapes; the text names the first.
    """
    there = layers_to_adapt(module)
    for name, shape in adapter.layers.items():
        if there.get(name) != shape:
            raise DataError(
                f"the adapter does not fit the model: it changes {name!r} of shape {shape}, and the "
                f"model has {there.get(name, 'no such layer')}"
            )


def base_digest(model: WeightModel) -> str:
    """A hash of the base that an adapter is for: the weights without any adapter, and the tokeniser.

    It is one of numbers and not of files: the weights count as bfloat16, which is what a machine that
    computes in it has of the same model.
    """
    import torch

    found = hashlib.sha256(model.vocabulary.encode())
    for name, parameter in _base(model.module).named_parameters():
        if "lora_" in name:
            continue
        flat = parameter.detach().to(torch.bfloat16).cpu().contiguous().reshape(-1)
        found.update(f"{_plain(name)} {tuple(parameter.shape)};".encode())
        found.update(memoryview(flat.view(torch.uint8).numpy()))
    return found.hexdigest()[:32]


def trained_adapter(
    module: Any,
    adapter: Adapter,
    sequences: Sequence[Tokens],
    *,
    steps: int,
    batch: int = 8,
    learning_rate: float = 2e-4,
    warmup: float = 0.0,
    seed: int = 0,
    folder: Path | None = None,
    run: str = "",
    loss: Callable[[Any, Sequence[Tokens]], Any] | None = None,
    report: Callable[[TrainingProgress], None] | None = None,
) -> tuple[Adapter, TrainingOutcome]:
    """`adapter` after `steps` steps of AdamW on the replies of `sequences`, and what training did.

    The optimiser begins anew. The same arguments give the same weights to the bit on one machine and
    number of threads, also where it was killed on the way and goes on from `folder`.

    Args:
        module: its base is what the adapter is around; it stays as it is.
        sequences: what is longer than its context is cut at the start of its prompt.
        folder: where checkpoints lie; of this training alone.
        run: what else decides the weights; see `training.train`.
        loss: `usual_loss` when unset.

    Raises:
        DataError: nothing to learn from, or the adapter is for another model.
        ModelError: the loss or its gradient is not finite.
        StoreError: `folder` holds another training's checkpoint, or cannot be written.
    """
    made = with_adapter(module, adapter)
    sequences = fitted(sequences, made)
    schedule = Schedule(
        steps=steps,
        batch=min(batch, max(1, len(sequences))),
        learning_rate=learning_rate,
        warmup=warmup,
        patience=0,
        seed=seed,
    )
    half = str(made.dtype) == "torch.bfloat16"
    outcome = train(
        made, sequences, loss or usual_loss(module, adapter), schedule,
        folder=folder, run=_identity(adapter, sequences) + run, report=report,
        precision="bfloat16" if half else "float32",
    )  # fmt: skip
    return adapter_of(made), outcome


class AdapterLoss:
    """The mean loss of some sequences' replies at weights of an adapter, without gradients.

    Args:
        module: its base is what the adapter is around; it stays as it is.
        adapter: of the layers, rank and scale that all weights have.

    Raises:
        DataError: the adapter is for another model.
    """

    def __init__(self, module: Any, adapter: Adapter) -> None:
        self._module = with_adapter(module, adapter)
        self._weights: dict[str, Any] = {}
        for name, part in _base(self._module).named_modules():
            if hasattr(part, "lora_A") and part.lora_A:
                (called,) = part.lora_A
                self._weights[_plain(name) + A] = part.lora_A[called].weight
                self._weights[_plain(name) + B] = part.lora_B[called].weight

    def __call__(self, tensors: Mapping[str, Floats], sequences: Sequence[Tokens]) -> float:
        """The loss at `tensors`, an adapter's matrices."""
        import torch

        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(torch.from_numpy(np.ascontiguousarray(tensors[name])))
            return float(reply_loss(self._module, sequences))


def _identity(adapter: Adapter, sequences: Sequence[Tokens]) -> str:
    found = hashlib.sha256(f"{adapter.rank} {adapter.alpha!r}".encode())
    for name, tensor in sorted(adapter.tensors.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    for sequence in sequences:
        found.update(f"{sequence.start} {len(sequence)};".encode())
        found.update(np.ascontiguousarray(sequence.ids, "<i4").tobytes())
    return found.hexdigest()[:16]


def _base(module: Any) -> Any:
    return module.get_base_model() if is_adapted(module) else module


def _plain(name: str) -> str:
    """A layer's name without what peft puts into it."""
    return name.replace(".base_layer", "")


def _array(parameter: Any) -> Floats:
    found: Floats = np.array(parameter.detach().float().cpu().numpy(), np.float32)
    return found
