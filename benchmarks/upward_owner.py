"""Training at home and gradients at a cut, as `upward_attacks.py` needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosilo.attacks.updates import first_rows
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import Adapter
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.split import between

Array = NDArray[np.float32]


def trained(
    module: Any, sequences: Sequence[Tokens], optimiser: str, steps: int, *,
    rate: float | None = None, batch: int = 4,
) -> Iterator[int]:  # fmt: skip
    """Trains the adapter of `module`, and says after each step how many were made."""
    own = [p for n, p in module.named_parameters() if "lora_" in n]
    made: Any = (
        torch.optim.AdamW(own, lr=rate or 2e-4, weight_decay=0.0)
        if optimiser == "adamw"
        else torch.optim.SGD(own, lr=rate or 0.1)
    )
    for parameter in own:
        parameter.requires_grad_(True)
    for step in range(steps):
        made.zero_grad()
        with torch.enable_grad():
            reply_loss(module, sequences[step * batch : (step + 1) * batch]).backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        made.step()
        yield step + 1


def difference(after: Adapter, before: Adapter) -> dict[str, Array]:
    return {n: np.asarray(after.tensors[n] - before.tensors[n]) for n in after.tensors}


def first(name: str) -> bool:
    return first_rows({name: np.zeros((1, 1), np.float32)}) is not None


def rows_of(change: dict[str, Array]) -> Array:
    rows = first_rows(change)
    assert rows is not None
    return np.asarray(rows, np.float32)


def at_cut(
    module: Any, ids: Sequence[int], layer: int, *, behind_cut_only: bool
) -> tuple[Array, Array]:
    """(the gradient at the states after `layer` layers, the states), but for the last place. With
    `behind_cut_only` an adapter of the layers below is switched off: the body is the LM owner's."""
    given = torch.tensor([list(ids)])
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    with torch.no_grad():
        embedded = inner.get_input_embeddings()(given)
        if behind_cut_only:
            with module.disable_adapter():
                states = between(module, 0, layer)(inputs_embeds=embedded, use_cache=False)
        else:
            states = between(module, 0, layer)(inputs_embeds=embedded, use_cache=False)
    held = states.last_hidden_state.detach().requires_grad_(True)
    out, layers = held, inner.config.num_hidden_layers
    if layer < layers:
        out = between(module, layer, layers)(inputs_embeds=held, use_cache=False).last_hidden_state
    logits = inner.get_output_embeddings()(inner.get_decoder().norm(out))[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, given[0, 1:])
    (gradient,) = torch.autograd.grad(loss, held)
    return gradient[0, :-1].numpy(), held.detach()[0, :-1].numpy()


def nats(module: Any, sequence: Tokens) -> NDArray[np.float64]:
    """The log-probability of each token of a text but the first."""
    ids = torch.tensor([sequence.ids.tolist()])
    with torch.no_grad():
        logits = torch.log_softmax(module.eval()(input_ids=ids, use_cache=False).logits[0, :-1], -1)
    return np.asarray(logits[torch.arange(len(logits)), ids[0, 1:]].double().numpy())
