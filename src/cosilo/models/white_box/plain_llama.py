"""A torch Llama's weights as plain arrays: what a program that computes jointly is given.

The gain of a norm and attention's 1/√d are multiplied into the matrices that follow, and an adapter
into the weights that it is around; the module stays as it is. Needs torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cosilo.errors import CapabilityError
from cosilo.models.base import Array
from cosilo.models.plain_llama import PlainLlama
from cosilo.models.white_box.adapters import adapter_of
from cosilo.models.white_box.layers import is_adapted, layers_of

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


def plain_llama(module: Any, first: int = 0) -> PlainLlama:
    """The layers of `module` behind the first `first`.

    Raises:
        CapabilityError: it is no Llama, or one of a kind that no program computes.
    """
    require_plain(module)
    weights = _Linears(module)
    inner = weights.base.get_decoder()
    config = weights.base.config
    layers = list(layers_of(module))[first:]
    root = (config.hidden_size // config.num_attention_heads) ** -0.5
    mixed, out, gated, down = [], [], [], []
    for layer in layers:
        queries, keys, values, read = weights.of(layer.self_attn, _ATTENTION)
        gain = _array(layer.input_layernorm.weight)
        mixed.append((np.concatenate([queries * np.float32(root), keys, values]) * gain).T)
        out.append(read.T)
        gate, up, back = weights.of(layer.mlp, _MLP)
        gain = _array(layer.post_attention_layernorm.weight)
        gated.append((np.concatenate([gate, up]) * gain).T)
        down.append(back.T)
    table = _array(weights.base.get_input_embeddings().weight)
    tied = weights.base.get_output_embeddings().weight is weights.base.get_input_embeddings().weight
    return PlainLlama(
        mixed=np.stack(mixed),
        out=np.stack(out),
        gated=np.stack(gated),
        down=np.stack(down),
        table=table,
        head=table if tied else _array(weights.base.get_output_embeddings().weight),
        gain=_array(inner.norm.weight),
        heads=config.num_attention_heads,
        groups=config.num_key_value_heads,
        theta=float(config.rope_parameters["rope_theta"]),
        eps=float(config.rms_norm_eps),
    )


def require_plain(module: Any) -> None:
    """Refuse what the program would compute otherwise than torch does.

    Raises:
        CapabilityError: the architecture is another, or has something more.
    """
    base = module.get_base_model() if is_adapted(module) else module
    config = base.config
    heads = getattr(config, "num_attention_heads", 0)
    rotary = getattr(config, "rope_parameters", None) or {}
    lacks = [
        what
        for what, fine in (
            ("another architecture", config.model_type == "llama"),
            ("biases", not any(n.endswith("_proj.bias") for n, _ in base.named_parameters())),
            ("scaled positions", rotary.get("rope_type") == "default"),
            ("another activation", getattr(config, "hidden_act", "") == "silu"),
            (
                "heads that are not as wide as the states together",
                heads and getattr(config, "head_dim", None) in (None, config.hidden_size // heads),
            ),
        )
        if not fine
    ]
    if lacks:
        raise CapabilityError(
            f"layers of a plain Llama can be computed jointly, and this model has {', '.join(lacks)}"
        )


def below_digest(module: Any, layers: int, vocabulary: str) -> str:
    """A hash of the embedding and the first `layers` layers as they compute, and of the tokeniser.

    Whose are equal, their states after these layers are. It is one of numbers and not of files, which
    count as bfloat16 (see `adapters.base_digest`).
    """
    import torch

    weights = _Linears(module)
    found = hashlib.sha256(f"{vocabulary} {layers};".encode())

    def take(array: Array) -> None:
        half = torch.from_numpy(np.ascontiguousarray(array)).to(torch.bfloat16)
        found.update(f"{array.shape};".encode())
        found.update(memoryview(half.reshape(-1).view(torch.uint8).numpy()))

    take(_array(weights.base.get_input_embeddings().weight))
    for layer in list(layers_of(module))[:layers]:
        for array in (
            *weights.of(layer.self_attn, _ATTENTION),
            *weights.of(layer.mlp, _MLP),
            _array(layer.input_layernorm.weight),
            _array(layer.post_attention_layernorm.weight),
        ):
            take(array)
    config = weights.base.config
    about = (
        config.num_attention_heads,
        config.rms_norm_eps,
        sorted(config.rope_parameters.items()),
    )
    found.update(repr(about).encode())
    return found.hexdigest()


class _Linears:
    """Of the linear layers of a module, (out, in), with its adapter in them."""

    def __init__(self, module: Any) -> None:
        self.base = module.get_base_model() if is_adapted(module) else module
        self._adapter = adapter_of(module) if is_adapted(module) else None
        self._adapted = self._adapter.layers if self._adapter else {}
        self._names = {id(part): name for name, part in self.base.named_modules()}

    def of(self, part: Any, names: Sequence[str]) -> list[Array]:
        return [self._one(getattr(part, name)) for name in names]

    def _one(self, linear: Any) -> Array:
        name = self._names[id(linear)]
        plain = _array(getattr(linear, "base_layer", linear).weight)
        if self._adapter is None or name not in self._adapted:
            return plain
        merged: Array = plain + self._adapter.product(name)
        return merged


def _array(parameter: Any) -> Array:
    found: Array = np.ascontiguousarray(parameter.detach().float().cpu().numpy())
    return found
