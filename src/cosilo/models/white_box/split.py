"""Layers of a model by themselves: from states to states, and gradients back.

Needs torch and transformers.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from cosilo.errors import RejectedError
from cosilo.models.asked import too_long
from cosilo.models.base import Array, NextTokens, StatePast
from cosilo.models.white_box.batch import device_of
from cosilo.models.white_box.held import TorchHeld, finite_array
from cosilo.models.white_box.layers import is_adapted, layers_of
from cosilo.models.white_box.threads import TorchPast, likeliest


class TorchStatePast:
    """States that went through layers, and the layers' cache of keys and values of them."""

    def __init__(self, states: Array, past: TorchPast) -> None:
        self.states = states
        self.past = past

    @property
    def size(self) -> int:
        return self.states.nbytes + self.past.size

    def fork(self, length: int) -> TorchStatePast:
        return TorchStatePast(self.states[:length], self.past.fork(length))


class TorchSplit(TorchHeld):
    """The part of a torch model that serves `SplitModel`."""

    @property
    def width(self) -> int:
        return int(self.module.config.hidden_size)

    async def forward(
        self, past: StatePast | None, states: Array, first: int, last: int
    ) -> tuple[StatePast, Array]:
        def work() -> tuple[StatePast, Array]:
            known = past if isinstance(past, TorchStatePast) else None
            whole = states if known is None else np.concatenate([known.states, states])
            if len(whole) > self.context:
                raise too_long(
                    f"the thread has {len(whole)} positions, and the model's context {self.context}"
                )
            begun = known.past if known is not None else TorchPast()
            out = between(self.module, first, last)(
                inputs_embeds=self._tensor(whole[begun.held :]), cache=begun.cache, use_cache=True
            )
            found = finite_array(out.last_hidden_state[0, -len(states) :])
            return TorchStatePast(whole, TorchPast([0] * len(whole), out.cache)), found

        return await self._apart(work)

    async def alternatives(
        self, past: StatePast | None, states: Array, first: int, last: int
    ) -> Array:
        """What each of `states`, (n, width), is after `last` layers where it alone comes next behind
        `past`, which stays as it is: n texts that differ in their last position.

        Raises:
            what `forward` does.
        """

        def work() -> Array:
            known = past if isinstance(past, TorchStatePast) else None
            cache = None
            if known is not None:
                cache = copy.deepcopy(known.past.cache)
                cache.batch_repeat_interleave(len(states))
            given = self._tensor(states)[0][:, None]
            out = between(self.module, first, last)(
                inputs_embeds=given, cache=cache, use_cache=True
            )
            return finite_array(out.last_hidden_state[:, 0])

        return await self._apart(work)

    async def predict(self, states: Array, top: int) -> NextTokens:
        def work() -> NextTokens:
            inner = _inner(self.module)
            ended = inner.get_decoder().norm(self._tensor(states))
            return likeliest(inner.get_output_embeddings()(ended)[0], top)

        return await self._apart(work)

    async def backward(self, past: StatePast, gradient: Array, first: int, last: int) -> Array:
        def work() -> Array:
            import torch

            with torch.enable_grad():
                given = self._tensor(past.states).requires_grad_()
                out = between(self.module, first, last)(inputs_embeds=given, use_cache=False)
                wanted = self._tensor(gradient)
                (found,) = torch.autograd.grad(out.last_hidden_state, given, wanted)
            return finite_array(found[0])

        return await self._apart(work)

    def _tensor(self, states: Array) -> Any:
        import torch

        found = torch.from_numpy(np.array(states, np.float32))[None]
        return found.to(device_of(self.module), next(self.module.parameters()).dtype)


def between(module: Any, first: int, last: int) -> Any:
    """The decoder of `module` with the layers behind the first `first`, up to the first `last`, alone,
    and without its final norm. Weights are shared.

    Raises:
        RejectedError: there are no such layers, or they differ in kind from one to the next.
    """
    import torch

    layers = layers_of(module)
    if not 0 <= first < last <= len(layers):
        raise RejectedError(
            f"there are no layers from {first} to {last}: the model has 0 to {len(layers)}"
        )
    kinds = set(getattr(module.config, "layer_types", None) or ("full_attention",))
    if kinds != {"full_attention"}:
        raise RejectedError("only a model whose layers all attend to all positions can be cut")
    found = _shallow(_inner(module).get_decoder())
    chosen = [_renumbered(layer, i) for i, layer in enumerate(layers[first:last])]
    found.layers = torch.nn.ModuleList(chosen)
    found.norm = torch.nn.Identity()
    return found


def _inner(module: Any) -> Any:
    return module.get_base_model() if is_adapted(module) else module


def _renumbered(layer: Any, number: int) -> Any:
    """`layer` as the one of this number: that is where the cache has its keys and values."""
    found = _shallow(layer)
    for name, part in layer.named_children():
        if hasattr(part, "layer_idx"):
            own = _shallow(part)
            own.layer_idx = number
            setattr(found, name, own)
    return found


def _shallow(module: Any) -> Any:
    """A module of the same parts, which can be given others."""
    found = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers"):
        found.__dict__[name] = dict(module.__dict__[name])
    return found
