"""Training upper layers only: what the layers below say of a text is computed once, and kept.

    text ─▶ embedding, layers below (frozen) ─▶ states, kept ─▶ layers above (trained) ─▶ head ─▶ loss
            └────────── once a text ─────────┘                 └──────── at every step ────────┘

A step over the last 4 of 30 layers costs about 4/30 of one over all. Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cosilo.errors import RejectedError
from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import device_of
from cosilo.models.white_box.layers import is_adapted, layers_of, states
from cosilo.models.white_box.split import between
from cosilo.models.white_box.tree import Tree, along, can_be_a_tree

VERSION = 2

MOST_BYTES = 512 << 20
"""Of states that are kept; what is beyond is computed again whenever it is needed."""


class ReplyLossAbove:
    """`batch.reply_loss` for a module whose first layers stay as they are.

    It is the same up to rounding: what several texts begin with is computed once, and nothing is
    padded. One object serves one module, or such as share its first layers.

    Args:
        first: so many layers stay as they are, 1 or more.
        most_bytes: of states that are kept.
    """

    def __init__(self, first: int, most_bytes: int = MOST_BYTES) -> None:
        self.first = first
        self._left = most_bytes
        self._kept: dict[bytes, Any] = {}

    def __call__(self, module: Any, sequences: Sequence[Tokens]) -> Any:
        """The mean negative log-likelihood of a reply token, in nats: a scalar with its gradient."""
        import torch
        from torch.nn.functional import cross_entropy

        wanted = [s.ids[s.start :] for s in sequences]
        targets = torch.cat([torch.as_tensor(ids, dtype=torch.long) for ids in wanted])
        logits = self.logits(module, sequences)
        return cross_entropy(logits.float(), targets.to(logits.device))

    def logits(self, module: Any, sequences: Sequence[Tokens]) -> Any:
        """The logits that predicted the tokens of the replies, one reply after another, shape (sum of
        the replies' lengths, vocabulary)."""
        inner = module.get_base_model() if is_adapted(module) else module
        rows = self.states(module, sequences, len(layers_of(module)))
        return inner.get_output_embeddings()(inner.get_decoder().norm(rows))

    def states(self, module: Any, sequences: Sequence[Tokens], last: int) -> Any:
        """The states behind `last` layers at the places that predict the tokens of the replies, one
        reply after another, shape (sum of the replies' lengths, width)."""
        import torch

        below = [self._below(module, s) for s in sequences]
        padded = torch.nn.utils.rnn.pad_sequence(below, batch_first=True)
        tree = Tree.of(sequences, padded.device)
        made = along(module, self.first, last, padded.flatten(0, 1)[tree.first], tree)
        wanted = [tree.places[i, s.start - 1 : len(s) - 1] for i, s in enumerate(sequences)]
        return made[torch.cat(wanted)]

    def _below(self, module: Any, sequence: Tokens) -> Any:
        """What the first layers give for a text, shape (its length, width)."""
        import torch

        key = sequence.ids.tobytes()
        if (found := self._kept.get(key)) is None:
            training = module.training
            module.eval()  # dropout that is kept would be that of whichever step came first
            try:
                with torch.no_grad():
                    (rows,) = states(module, [sequence], self.first)
            finally:
                module.train(training)
            found = torch.from_numpy(rows).to(device_of(module), next(module.parameters()).dtype)
            size = found.nbytes
            if size <= self._left:
                self._left -= size
                self._kept[key] = found
        return found


def can_be_cut(module: Any) -> bool:
    """Whether the module's layers can be run by themselves."""
    try:
        between(module, 0, 1)
    except RejectedError:
        return False
    return can_be_a_tree(module)
