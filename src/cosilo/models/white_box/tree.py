"""Sequences that begin alike, computed as one tree: what several begin with once, and no padding.

    s s q a a                 ┌ q ┬ a a
    s s q b b b    ──▶    s s ┤   └ b b b        7 of 14 places are computed here
    s s r c                   └ r ─ c

Whatever looks at one place alone (projections, norms) is computed once for each place of the tree;
attention looks at each sequence by itself. Needs torch and transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosilo.errors import RejectedError
from cosilo.models.base import Tokens
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.split import between

_ATTENTION = "cosilo_tree"


@dataclass(frozen=True, eq=False)
class Tree:
    """N places of B sequences of at most L tokens.

    Attributes:
        places: of each token of each sequence, (B, L); behind a sequence's end 0, which no token before
            it sees.
        positions: of each place in its sequences, (1, N).
        first: for each place, a token that is there, counted over (B, L) row by row, (N,).
    """

    places: Any
    positions: Any
    first: Any

    @classmethod
    def of(cls, sequences: Sequence[Tokens], device: Any = "cpu") -> Tree:
        import torch

        width = max(len(s) for s in sequences)
        known: dict[tuple[int, int], int] = {}
        positions: list[int] = []
        first: list[int] = []
        places = torch.zeros(len(sequences), width, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            at = -1
            path = []
            for position, token in enumerate(sequence.ids.tolist()):
                before = at
                at = known.setdefault((before, token), len(positions))
                if at == len(positions):
                    positions.append(position)
                    first.append(row * width + position)
                path.append(at)
            places[row, : len(path)] = torch.tensor(path)
        return cls(
            places.to(device),
            torch.tensor([positions], device=device),
            torch.tensor(first, device=device),
        )


def along(module: Any, first: int, last: int, states: Any, tree: Tree) -> Any:
    """What the layers behind the first `first`, up to the first `last`, make of `states`, one for each
    place of `tree`, (N, width): without the final norm.

    Raises:
        RejectedError: the layers cannot be run by themselves.
    """
    _register()
    decoder = between(module, first, last)
    for layer in decoder.layers:
        _attend_otherwise(layer.self_attn)
    decoder.config = _config(decoder.config)
    asked: list[int] = []
    made = decoder(
        inputs_embeds=states[None],
        position_ids=tree.positions,
        use_cache=False,
        tree=tree,
        asked=asked,
    )
    if len(asked) != last - first:
        raise RejectedError("the model's attention is computed in a way that is not known here")
    return made.last_hidden_state[0]


def can_be_a_tree(module: Any) -> bool:
    """Whether each layer of the module has its attention computed by torch's own function."""
    return all(
        getattr(
            getattr(getattr(layer, "self_attn", None), "config", None), "_attn_implementation", ""
        )
        == "sdpa"
        for layer in layers_of(module)
    )


def _attend_otherwise(attention: Any) -> None:
    attention.config = _config(attention.config)


def _config(config: Any) -> Any:
    found = copy.copy(config)
    found._attn_implementation_internal = _ATTENTION
    return found


def _register() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if _ATTENTION not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    *,
    tree: Tree,
    asked: list[int],
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Of each sequence by itself: (1, heads, N, width) → (1, N, heads, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    asked.append(1)

    def each(states: Any) -> Any:
        heads, width = states.shape[1], states.shape[3]
        rows = states[0].transpose(0, 1).reshape(-1, heads * width)
        chosen = rows.index_select(0, tree.places.reshape(-1))
        return chosen.view(*tree.places.shape, heads, width).transpose(1, 2)

    made, _none = sdpa_attention_forward(
        module, each(query), each(key), each(value), None, dropout=dropout, scaling=scaling
    )
    batch, length, heads, width = made.shape
    flat = made.reshape(batch * length, heads * width)
    return flat.index_select(0, tree.first).view(1, -1, heads, width), None
