"""How much each layer of a model matters, measured on text; and the model without some of them.

Two measures, and only the second decides:

    change   1 − cosine of a token's hidden state before and after the layer
             (block influence: Men et al., "ShortGPT", arXiv 2403.03853)
    loss     what the text costs once the layer is gone, with the layers already dropped gone too
             (greedy, as Song et al., "SLEB", arXiv 2402.09025)

A layer that changes little may still be needed, and what can be spared depends on what is left.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import device_of, pad
from cosilo.models.white_box.layers import entry, layers_of, output_of
from cosilo.models.white_box.tokens import ChatTokens


@dataclass(frozen=True)
class Importance:
    """What was measured of a model's layers.

    Attributes:
        change: of each layer, in the whole model.
        order: layers in the order they are dropped in, the least missed first.
        losses: nats per token without the first k of `order`, k = 0, 1, …
    """

    change: tuple[float, ...]
    order: tuple[int, ...]
    losses: tuple[float, ...]


def importance(
    module: Any,
    sequences: Sequence[Tokens],
    *,
    drop: int,
    at_once: int = 1,
    among: Collection[int] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Importance:
    """Find the `drop` layers that are missed the least.

    Args:
        sequences: text to measure on; its replies count.
        at_once: layers dropped before the others are measured again; more is faster and coarser.
        among: the layers that may be dropped; all when unset.
        report: told how many of how many are found.

    Raises:
        ConfigError: so many layers are not there to be dropped.
    """
    import torch

    count = len(layers_of(module))
    if not 0 <= drop < count:
        raise ConfigError(f"{drop} layers cannot be dropped from a model that has {count}")
    droppable = set(range(count)) if among is None else set(among)
    if drop > len(droppable):
        raise ConfigError(f"{drop} layers cannot be dropped where {len(droppable)} may be")
    with torch.no_grad():
        text = _Text(module, sequences)
        whole, change = text.walk(list(range(count)))
        order: list[int] = []
        losses = [whole]
        while len(order) < drop:
            kept = [i for i in range(count) if i not in order]
            without_each = text.without_each(kept, droppable)
            ranked = sorted(without_each, key=without_each.__getitem__)
            step = min(at_once, drop - len(order))
            for k, layer in enumerate(ranked[:step]):
                order.append(layer)
                if k == 0:
                    losses.append(without_each[layer])
                else:
                    losses.append(text.walk([i for i in kept if i not in order])[0])
            if report:
                report(len(order), drop)
    return Importance(tuple(change), tuple(order), tuple(losses))


def without(module: Any, dropped: Sequence[int]) -> Any:
    """A copy of `module` without the layers `dropped`.

    Raises:
        ConfigError: none would be left, or there is no such layer.
    """
    layers = layers_of(module)
    gone = set(dropped)
    if not gone < set(range(len(layers))):
        raise ConfigError(f"a model of {len(layers)} layers cannot do without {sorted(gone)}")
    held = [layers[i] for i in sorted(gone)]
    # What is dropped is not copied: deepcopy takes None for it.
    made = copy.deepcopy(module, {id(layer): None for layer in held})
    decoder = made.get_decoder()
    kept = [layer for layer in decoder.layers if layer is not None]
    decoder.layers = type(layers)(kept)
    for i, layer in enumerate(kept):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = i
    made.config.num_hidden_layers = len(kept)
    kinds = getattr(made.config, "layer_types", None)
    if kinds:
        made.config.layer_types = [k for i, k in enumerate(kinds) if i not in gone]
    return made


def plain(tokens: ChatTokens, texts: Sequence[str], *, length: int) -> list[Tokens]:
    """`texts` in sequences of exactly `length` tokens, of which all but the first count as reply.

    A text's end that fills no sequence is left out.
    """
    found: list[Tokens] = []
    for text in texts:
        ids = np.array(tokens.reply(text)[0][:-1], np.int32)
        for at in range(0, len(ids) - length + 1, length):
            piece = ids[at : at + length]
            found.append(Tokens(piece, 1, tuple(tokens.piece(int(i)) for i in piece[1:])))
    return found


class _Text:
    """Sequences on their way through the layers; a state that several walks share is computed once."""

    def __init__(self, module: Any, sequences: Sequence[Tokens]) -> None:
        self.module = module
        self.layers = layers_of(module)
        self.batch = pad(sequences, device_of(module))
        self.start, self.given = entry(module, self.batch)

    def walk(self, kept: Sequence[int], state: Any = None) -> tuple[float, list[float]]:
        """The loss after `kept` layers (in order) from `state` on, and each one's change."""
        change: list[float] = []
        state = self.start if state is None else state
        for i in kept:
            after = self.step(i, state)
            change.append(self.changed(state, after))
            state = after
        return self.loss(state), change

    def without_each(self, kept: Sequence[int], tried: Collection[int]) -> dict[int, float]:
        """The loss without each of those in `tried`, the others of `kept` staying."""
        found: dict[int, float] = {}
        state = self.start
        for k, layer in enumerate(kept):
            if layer in tried:
                after = state
                for i in kept[k + 1 :]:
                    after = self.step(i, after)
                found[layer] = self.loss(after)
            state = self.step(layer, state)
        return found

    def step(self, layer: int, state: Any) -> Any:
        return output_of(self.layers[layer](state, **self.given))

    def loss(self, state: Any) -> float:
        """Nats per reply token, from the last layer's state."""
        from torch.nn.functional import cross_entropy

        reply = self.batch.targets.shape[1]
        last = self.module.get_decoder().norm(state[:, -reply - 1 : -1])
        logits = self.module.get_output_embeddings()(last[self.batch.counted])
        return float(cross_entropy(logits.float(), self.batch.targets[self.batch.counted]))

    def changed(self, before: Any, after: Any) -> float:
        from torch.nn.functional import cosine_similarity

        near = cosine_similarity(before.float(), after.float(), dim=-1)
        real = self.batch.mask.bool()
        return 1 - float(near[real].mean())
