"""The layers of a causal model, and the states between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from cosilo.errors import ConfigError
from cosilo.models.base import Array, Tokens
from cosilo.models.white_box.batch import device_of, pad, predict

_TOKENS_AT_ONCE = 8192


def is_adapted(module: Any) -> bool:
    """Whether it is a peft adapter around a model."""
    return hasattr(module, "peft_config") and hasattr(module, "merge_and_unload")


def layers_of(module: Any) -> Any:
    """The decoder layers, a list of modules.

    Raises:
        ConfigError: the model is built in another way.
    """
    inner = module.get_base_model() if is_adapted(module) else module
    layers = getattr(inner.get_decoder(), "layers", None)
    if layers is None:
        raise ConfigError(f"the layers of a {type(inner).__name__} are not known here")
    return layers


def states(module: Any, sequences: Sequence[Tokens], layer: int) -> list[Array]:
    """The hidden states after `layer` layers, (n_i, hidden); layers behind it are not computed.

    Raises:
        ConfigError: there is no such layer.
    """
    layers = layers_of(module)
    if not 0 <= layer <= len(layers):
        raise ConfigError(f"there is no layer {layer}: the model has 0 to {len(layers)}")
    batch = pad(sequences, device_of(module))
    seen: list[Any] = []

    def before(_: Any, given: Any, named: Any) -> None:
        seen.append(given[0] if given else named["hidden_states"])
        raise _SeenEnoughError

    def after(_: Any, __: Any, made: Any) -> None:
        seen.append(output_of(made))
        raise _SeenEnoughError

    hook = (
        layers[layer - 1].register_forward_hook(after)
        if layer
        else layers[0].register_forward_pre_hook(before, with_kwargs=True)
    )
    try:
        predict(module, batch)
    except _SeenEnoughError:
        pass
    finally:
        hook.remove()
    return [
        np.ascontiguousarray(row[-len(s) :].float().cpu().numpy())
        for row, s in zip(seen[0], sequences, strict=True)
    ]


def first_inputs(module: Any) -> Array:
    """What the first layer's attention is given for each token of the vocabulary, (vocabulary, width):
    it depends on nothing else, since positions come in within attention.

    Raises:
        ConfigError: the model is built in another way.
    """
    import torch

    attention = getattr(layers_of(module)[0], "self_attn", None)
    if attention is None:
        raise ConfigError("the first layer of this model has no attention that is known here")
    inner = module.get_base_model() if is_adapted(module) else module
    size = int(inner.get_input_embeddings().weight.shape[0])
    seen: list[Any] = []

    def before(_: Any, given: Any, named: Any) -> None:
        seen.append(given[0] if given else named["hidden_states"])
        raise _SeenEnoughError

    hook = attention.register_forward_pre_hook(before, with_kwargs=True)
    try:
        for start in range(0, size, _TOKENS_AT_ONCE):
            ids = torch.arange(start, min(size, start + _TOKENS_AT_ONCE), device=device_of(module))
            with torch.no_grad(), suppress(_SeenEnoughError):
                module(input_ids=ids[:, None], use_cache=False)
    finally:
        hook.remove()
    return np.ascontiguousarray(torch.cat(seen)[:, 0].float().cpu().numpy())


def output_of(made: Any) -> Any:
    """The state in what a layer returned; some return more beside it."""
    return made[0] if isinstance(made, tuple) else made


class _SeenEnoughError(Exception):
    """Ends a forward pass at the layer that was asked for."""


def entry(module: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
    """What the first layer is given: the state, and what all layers are given beside it."""
    caught: list[tuple[Any, dict[str, Any]]] = []

    def catch(_: Any, given: Any, named: dict[str, Any]) -> None:
        rest = dict(named)
        state = given[0] if given else rest.pop("hidden_states")
        caught.append((state, rest))
        raise _CaughtError

    with _hooked(layers_of(module)[0], catch):
        module(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        )
    return caught[0]


@contextmanager
def _hooked(layer: Any, catch: Any) -> Iterator[None]:
    hook = layer.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        yield
    except _CaughtError:
        pass
    finally:
        hook.remove()


class _CaughtError(Exception):
    """Ends a forward pass where its first layer begins."""
