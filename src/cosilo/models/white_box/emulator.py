"""An emulator of a model: its first and last layers as they are, a poorer middle to tune them through.

    model      [first n] [ ─────────────── middle ─────────────── ] [last n]
                   │        some layers dropped, the others refitted     │
                   │        and healed, noise on their weights           │
    emulator   [first n] [ ─── middle, lossy ─── ]                  [last n]
                tuned                frozen                          tuned

Xiao, Lin and Han, "Offsite-Tuning: Transfer Learning without Full Model" (arXiv 2302.04870). What is
dropped is chosen by what public text costs without it, what stays is refitted and learns back from the
whole model, and the first and last layers never change, so that what is tuned there fits the model.
`aligned` is the other level of Wu et al., "FedBiOT" (arXiv 2406.17706): with tuned layers that came
back, the middle learns again to be what the model's middle is to them.

What the emulator can do alone is what its owner gives away: `gap` says how far it is from the model.
Needs torch and transformers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ConfigError, DataError, UnexpectedReplyError
from cosilo.models.base import Tokens
from cosilo.models.low_rank import Layers
from cosilo.models.white_box.adapters import Adapter, layers_to_adapt, merged_with
from cosilo.models.white_box.compensation import compensate
from cosilo.models.white_box.depth import importance, without
from cosilo.models.white_box.healing import teacher_loss
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.training import Schedule, train
from cosilo.models.white_box.tuning import mean_loss, without_adapter

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]
Coded = Callable[[Tensors], Tensors]
"""What tensors are once they were packed and unpacked again."""

KINDS = ("gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Kinds of models that an emulator can be of: a chain of layers that end in an `mlp.down_proj`."""

_MEASURED_ON = 2  # sequences that the layers are measured on
_REFITTED_ON = 40
_HELD_OUT = 16  # sequences that the gap is measured on
_CHECKED_ON = 8  # sequences that decide which weights of the healing are kept
_ROUNDS = 5  # measurements of all layers, at most
_WIDEST = 1 << 24  # any number of a model's configuration, and
_DEEPEST = 256  # its layers
_LAYER = re.compile(r"(?<=\.layers\.)(\d+)(?=\.)")


@dataclass(frozen=True, kw_only=True)
class EmulatorRecipe:
    """How lossy an emulator is.

    Attributes:
        ends: how many first layers, and how many last ones, are to be tuned.
        depth: how many layers of the middle stay; half of them when unset.
        noise: on each weight of the middle, as a multiple of its matrix's root mean square. It is drawn
            once for each matrix, so that emulators of several rounds do not average it out.
        steps, batch, length, learning_rate: of the healing; steps = 0 leaves it at the refit.
        seed: of the healing's order and of the noise; who knows it can take the noise off.
    """

    ends: int = 2
    depth: int | None = None
    noise: float = 0.0
    steps: int = 60
    batch: int = 2
    length: int = 64
    learning_rate: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("ends", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)!r}")
        if self.depth is not None and self.depth < 1:
            raise ConfigError(f"depth must be 1 or more, not {self.depth!r}")
        if self.steps < 0 or self.length < 2:
            raise ConfigError(
                f"steps = {self.steps!r} must be 0 or more, and length = {self.length!r} 2 or more"
            )
        if not 0 <= self.noise < 1e3:
            raise ConfigError(f"noise = {self.noise!r} is not from 0 to below a thousand")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, not {self.learning_rate!r}")

    def middle(self, layers: int) -> tuple[int, int]:
        """How many layers of a model of so many the middle has, and how many of them stay.

        Raises:
            ConfigError: there are too few.
        """
        middle = layers - 2 * self.ends
        depth = max(1, middle // 2) if self.depth is None else self.depth
        if not 1 <= depth <= middle:
            raise ConfigError(
                f"a model of {layers} layers has {max(0, middle)} between its first {self.ends} and "
                f"its last {self.ends}, so an emulator cannot keep {depth} of them"
            )
        return middle, depth


@dataclass(frozen=True, eq=False)
class Emulator:
    """What is sent of a model.

    Attributes:
        module: as whoever it is sent to has it.
        clean: the same without noise, and before it was packed.
        kept: which of the model's layers are in it.
        ends: how many first, and how many last layers are the model's own.
        whole, alone: nats per token of public text, of the model and of `module` by itself.
    """

    module: Any
    clean: Any
    kept: tuple[int, ...]
    ends: int
    whole: float
    alone: float

    @property
    def gap(self) -> float:
        """What the emulator lacks: nats per token of public text that it is worse by."""
        return self.alone - self.whole

    @property
    def middle(self) -> tuple[str, ...]:
        """The names of the parameters that are not the model's own."""
        inner = range(self.ends, len(self.kept) - self.ends)
        names = (name for name, _ in self.module.named_parameters())
        return tuple(n for n in names if (at := layer_in(n)) is not None and at in inner)


def least_text(recipe: EmulatorRecipe) -> int:
    """How many sequences of public text an emulator is made from, at least."""
    return _MEASURED_ON + _HELD_OUT + _CHECKED_ON + max(recipe.batch, 2)


def emulator_of(
    model: Any,
    recipe: EmulatorRecipe,
    text: Sequence[Tokens],
    *,
    coded: Coded = dict,
    coded_ends: Coded = dict,
    folder: Path | None = None,
) -> Emulator:
    """An emulator of the causal model `model`, in float32. The same arguments give the same weights to
    the bit on one machine and number of threads.

    Args:
        text: public sequences, mixed (see `depth.plain`).
        coded, coded_ends: what becomes of the middle's tensors, and of the others, on their way: the
            gap is that of what arrives.
        folder: where the healing keeps its checkpoints.

    Raises:
        ConfigError: the model is of a kind that has no emulator, or has too few layers.
        DataError: there is too little text.
    """
    require_kind(model)
    count = len(layers_of(model))
    middle, depth = recipe.middle(count)
    if len(text) < least_text(recipe):
        raise DataError(
            f"an emulator is made from {least_text(recipe)} sequences of public text at least, and "
            f"there are {len(text)}: give more text, or a smaller length"
        )
    model = _whole(model)
    measured_on, held_out, healing_on = _parts(text)
    drop = middle - depth
    among = range(recipe.ends, count - recipe.ends)
    found = importance(
        model, measured_on, drop=drop, at_once=max(1, math.ceil(drop / _ROUNDS)), among=among
    )
    dropped = sorted(found.order)
    student = without(model, dropped)
    if dropped:
        compensate(student, model, dropped, healing_on[:_REFITTED_ON])
        _put_ends(model, student, recipe.ends)
        if recipe.steps:
            run = f"emulator {dropped} {text_digest(text)}"
            _heal(student, model, recipe, healing_on, folder, run)
    kept = tuple(i for i in range(count) if i not in set(dropped))
    made = Emulator(student, student, kept, recipe.ends, mean_loss(model, held_out), 0.0)
    return as_sent(made, recipe, held_out, coded, coded_ends)


def aligned(
    emulator: Emulator,
    model: Any,
    adapter: Adapter,
    recipe: EmulatorRecipe,
    text: Sequence[Tokens],
    *,
    coded: Coded = dict,
    coded_ends: Coded = dict,
) -> Emulator:
    """`emulator` with a middle that is to `adapter`, tuned and plugged in, what the model's own is.

    `alone` is then the lower of two losses: that of the emulator, and that of the emulator with the
    adapter, which whoever tuned it has.

    Args:
        adapter: in the model's numbering of layers; of its first and last ones.

    Raises:
        DataError: the adapter is for another model.
    """
    model = _whole(model)
    _, held_out, healing_on = _parts(text)
    inside = renumbered(adapter, {i: k for k, i in enumerate(emulator.kept)})
    student = copy.deepcopy(merged_with(emulator.clean, inside))
    if recipe.steps:
        _heal(student, merged_with(model, adapter), recipe, healing_on, None, "")
    clean = copy.deepcopy(emulator.clean)
    there = dict(student.named_parameters())
    _put(clean, {name: there[name] for name in emulator.middle})
    made = as_sent(replace(emulator, clean=clean), recipe, held_out, coded, coded_ends)
    tuned = mean_loss(merged_with(made.module, inside), held_out)
    return replace(made, alone=min(made.alone, tuned))


def as_sent(
    made: Emulator,
    recipe: EmulatorRecipe,
    held_out: Sequence[Tokens],
    coded: Coded = dict,
    coded_ends: Coded = dict,
) -> Emulator:
    """`made` with the module that `clean` becomes by noise and on its way; where there are `held_out`
    sequences, `alone` is what that loses on them.
    """
    module = copy.deepcopy(made.clean)
    tensors, middle = tensors_of(module), set(made.middle)
    inner = {n: _noisy(n, t, recipe) for n, t in tensors.items() if n in middle}
    outer = {n: t for n, t in tensors.items() if n not in middle}
    with_tensors(module, {**coded(inner), **coded_ends(outer)})
    alone = mean_loss(module, held_out) if held_out else made.alone
    return replace(made, module=module, alone=alone)


def ends_of(module: Any, ends: int) -> Layers:
    """The linear layers of a model's first and last so many layers: what an adapter may change."""
    count = len(layers_of(module))
    outer = {*range(ends), *range(count - ends, count)}
    return layers_to_adapt(module, outer)


def renumbered(adapter: Adapter, number: Mapping[int, int]) -> Adapter:
    """`adapter` for a model in which layer i is layer `number[i]`.

    Raises:
        DataError: it changes a layer that is not among them.
    """

    def other(found: re.Match[str]) -> str:
        if int(found[1]) not in number:
            raise DataError(f"the adapter changes layer {found[1]}, which is none to be tuned")
        return str(number[int(found[1])])

    tensors = {_LAYER.sub(other, name, count=1): t for name, t in adapter.tensors.items()}
    return Adapter(adapter.rank, adapter.alpha, tensors)


def layer_in(name: str) -> int | None:
    """The number of the layer that a parameter of this name is in; None where it is in none."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def tensors_of(module: Any) -> dict[str, Floats]:
    """The parameters of a module without an adapter, by name, float32."""
    return {
        name: np.array(p.detach().float().cpu().numpy(), np.float32)
        for name, p in module.named_parameters()
    }


def config_of(module: Any) -> str:
    """What a module is built by, as JSON, for `built`."""
    said = module.config.to_dict()
    left_out = ("architectures", "transformers_version", "dtype", "torch_dtype")
    kept = {k: v for k, v in said.items() if not k.startswith("_") and k not in left_out}
    return json.dumps(kept, sort_keys=True)


def built(config: str, tensors: Tensors) -> Any:
    """The causal model that `config_of` and `tensors_of` describe, in float32; no code comes with it.

    Raises:
        UnexpectedReplyError: they describe none, or one of other numbers than `tensors` has, which is
            found out before memory is taken for it.
    """
    import torch
    import transformers

    from cosilo.models.white_box import files as torch_files
    from cosilo.models.white_box.training import seeded

    said = _checked(config)
    try:
        with torch_files.quiet():
            made_by = transformers.AutoConfig.for_model(said.pop("model_type"), **said)
            with torch.device("meta"):
                bare = transformers.AutoModelForCausalLM.from_config(made_by)
    except Exception as error:  # whatever its checks raise on numbers that make no model
        raise UnexpectedReplyError(
            f"the configuration of an emulator makes no model ({type(error).__name__})"
        ) from None
    _require_shapes(bare, tensors)
    with torch_files.quiet(), seeded(0):
        module = transformers.AutoModelForCausalLM.from_config(made_by)
    with_tensors(module, tensors)
    return module.float().requires_grad_(False).eval()


def with_tensors(module: Any, tensors: Tensors) -> None:
    """Put `tensors` in the places of the parameters of these names.

    Raises:
        UnexpectedReplyError: there are none of these names and shapes.
    """
    import torch

    there = dict(module.named_parameters())
    for name, tensor in tensors.items():
        if name not in there or tuple(there[name].shape) != tensor.shape:
            raise UnexpectedReplyError("tensors came that are none of the emulator's")
    _put(module, {n: torch.from_numpy(np.array(t, np.float32)) for n, t in tensors.items()})


def require_kind(module: Any) -> None:
    """Refuse a model that no emulator can be made of.

    Raises:
        ConfigError: it is built in another way.
    """
    kind = str(module.config.model_type)
    if kind not in KINDS:
        raise ConfigError(f"a {kind!r} model has no emulator (known: {', '.join(KINDS)})")


def text_digest(text: Sequence[Tokens]) -> str:
    found = hashlib.sha256()
    for sequence in text:
        found.update(sequence.ids.tobytes())
    return found.hexdigest()[:16]


def _whole(module: Any) -> Any:
    """The model without an adapter, in float32 and with nothing to train."""
    bare = without_adapter(module)
    if str(bare.dtype) != "torch.float32":
        bare = copy.deepcopy(bare).float()
    return bare.requires_grad_(False).eval()


def _parts(text: Sequence[Tokens]) -> tuple[Sequence[Tokens], Sequence[Tokens], Sequence[Tokens]]:
    """What layers are measured on, what losses are, and what is learned from."""
    first = _MEASURED_ON + _HELD_OUT
    return text[:_MEASURED_ON], text[_MEASURED_ON:first], text[first:]


def _heal(
    student: Any,
    teacher: Any,
    recipe: EmulatorRecipe,
    text: Sequence[Tokens],
    folder: Path | None,
    run: str,
) -> None:
    """Train the middle of `student` towards what `teacher` says next, in place."""
    student.requires_grad_(False)
    inner = list(layers_of(student))[recipe.ends : -recipe.ends]
    for layer in inner:
        layer.requires_grad_(True)
    loss, checks = teacher_loss(teacher), text[:_CHECKED_ON]
    schedule = Schedule(
        steps=recipe.steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        validate_every=max(1, recipe.steps // 3),
        patience=0,
        seed=recipe.seed,
    )
    train(
        student, text[_CHECKED_ON:], loss, schedule,
        validate=lambda module: float(loss(module, checks)),
        folder=folder, run=run,
    )  # fmt: skip
    student.requires_grad_(False)
    student.eval()


def _put_ends(source: Any, target: Any, ends: int) -> None:
    theirs, mine = list(layers_of(source)), list(layers_of(target))
    for a, b in zip(theirs[:ends] + theirs[-ends:], mine[:ends] + mine[-ends:], strict=True):
        b.load_state_dict(a.state_dict())


def _noisy(name: str, weights: Floats, recipe: EmulatorRecipe) -> Floats:
    if not recipe.noise or weights.ndim < 2:
        return weights
    drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    rng = np.random.default_rng([recipe.seed, drawn])
    scale = recipe.noise * float(np.sqrt(np.mean(np.square(weights, dtype=np.float64))))
    noise = scale * rng.standard_normal(weights.shape, np.float32)
    return np.asarray(weights + noise, np.float32)


def _put(module: Any, values: Mapping[str, Any]) -> None:
    import torch

    there = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            there[name].copy_(value)


def _checked(config: str) -> dict[str, Any]:
    """The configuration, of a kind that is known and of no more than a model may have.

    Raises:
        UnexpectedReplyError: it is another.
    """
    try:
        said = json.loads(config)
        if not isinstance(said, dict) or said.get("model_type") not in KINDS:
            raise ValueError
        if any(key.startswith("_") or key in _NEVER for key in said):
            raise ValueError
        if not 1 <= said["num_hidden_layers"] <= _DEEPEST:
            raise ValueError
        if any(abs(number) > _WIDEST for number in _integers(said)):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnexpectedReplyError("the configuration of an emulator is none of a model") from None
    return said


_NEVER = (
    "attn_implementation",  # may name a repository whose code is fetched and run, as the next
    "auto_map",
    "experts_implementation",
    "per_layer_config",
    "quantization_config",
    "trust_remote_code",
)


def _integers(value: object) -> list[int]:
    if isinstance(value, dict):
        return [n for inner in value.values() for n in _integers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in _integers(inner)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def _require_shapes(bare: Any, tensors: Tensors) -> None:
    wanted = {name: tuple(p.shape) for name, p in bare.named_parameters()}
    if wanted != {name: t.shape for name, t in tensors.items()}:
        raise UnexpectedReplyError("the weights of an emulator are not those of its configuration")
