"""The two ends of a model whose middle layers are somebody else's: both at home, and trained there.

    tokens ─▶ embedding, first layers ─▶ states ─▶ …  the other side …  ─▶ last layers, head ─▶ loss
                     ▲                                                            │
                     └────────────── gradient ◀─ …  the other side … ◀────────────┘

Nothing of a text leaves but what `below` returns, and nothing of its labels but what of the loss's
gradient `above` returns. Needs torch, transformers and peft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosilo.errors import ModelError
from cosilo.models.base import Array, Tokens
from cosilo.models.parts import PartTuning
from cosilo.models.white_box.batch import device_of
from cosilo.models.white_box.held import finite_array
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.parts import AdapterInTraining, places, rows_through
from cosilo.models.white_box.split import between

_WRONG = "a state or gradient at home is not finite"


@dataclass(frozen=True, eq=False)
class Above:
    """What the last layers found.

    Attributes:
        loss: mean negative log-likelihood of a reply token, in nats.
        tokens: how many reply tokens that is over.
        gradient: of the loss with respect to the states that came, (n, width); None where it was not
            asked for.
    """

    loss: float
    tokens: int
    gradient: Array | None


class Ends:
    """The first `first` layers and those behind `last`, with an adapter on them in training.

    The last token of a sequence predicts nothing, so it has no state.

    Args:
        clip: states are cut to this length; where `open` says so but each text's first.

    Raises:
        ConfigError: the model has an adapter already, or no such layers.
    """

    def __init__(
        self,
        module: Any,
        first: int,
        last: int,
        how: PartTuning,
        *,
        clip: float | None = None,
        open: bool = False,
    ) -> None:
        self.first, self.last = first, last
        self.layers = len(layers_of(module))
        self._training = AdapterInTraining(module, (*range(first), *range(last, self.layers)), how)
        self._clip, self._open = clip, open
        self._sent: Any = None

    @property
    def module(self) -> Any:
        """The whole model with the adapter as it is now; the layers between are as they were."""
        return self._training.module

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return int(self.module.config.hidden_size)

    @property
    def steps(self) -> int:
        """How many were taken."""
        return self._training.steps

    def below(self, sequences: Sequence[Tokens], *, train: bool = True) -> Array:
        """The states of all texts after the first layers, one text after the other, (n, width)."""
        import torch

        module, lengths = self.module, [len(s) - 1 for s in sequences]
        device = device_of(module)
        ids = np.zeros((len(sequences), max(lengths)), np.int64)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence) - 1] = sequence.ids[:-1]
        there = places(lengths, device)
        with torch.set_grad_enabled(train):
            states = module.get_input_embeddings()(torch.from_numpy(ids).to(device))
            if self.first:
                out = between(module, 0, self.first)(inputs_embeds=states, use_cache=False)
                states = out.last_hidden_state
            rows = self._cut(states[there], lengths)
        self._sent = rows if train and rows.requires_grad else None
        return finite_array(rows, _WRONG)

    def _cut(self, rows: Any, lengths: Sequence[int]) -> Any:
        if self._clip is None:
            return rows
        scale = (self._clip / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        if self._open:
            begins = np.cumsum([0, *lengths[:-1]])
            scale = scale.index_fill(0, _index(begins, rows.device), 1.0)
        return rows * scale

    def above(self, came: Array, sequences: Sequence[Tokens], *, train: bool = True) -> Above:
        """The loss of the replies, where `came`, (n, width), is what became of the states that left.

        Raises:
            ModelError: the loss is not finite; the step is to be dropped.
        """
        import torch
        from torch.nn.functional import cross_entropy

        module, lengths = self.module, [len(s) - 1 for s in sequences]
        device = device_of(module)
        begins = np.cumsum([0, *lengths[:-1]])
        at = [
            np.arange(b + s.start - 1, b + len(s) - 1)
            for b, s in zip(begins, sequences, strict=True)
        ]
        said = np.concatenate([s.ids[s.start :] for s in sequences]).astype(np.int64)
        inner = module.get_base_model()
        with torch.set_grad_enabled(train):
            rows = torch.from_numpy(np.array(came, np.float32)).to(device, module.dtype)
            rows.requires_grad_(train)
            ended = rows_through(module, rows, lengths, self.last, self.layers)
            found = inner.get_decoder().norm(ended[_index(np.concatenate(at), device)])
            logits = inner.get_output_embeddings()(found)
            loss = cross_entropy(logits.float(), torch.from_numpy(said).to(device))
            value = float(loss.detach())
            if not np.isfinite(value):
                raise ModelError(f"the loss is {value}")
            if not train:
                return Above(value, len(said), None)
            loss.backward()
        return Above(value, len(said), finite_array(rows.grad, _WRONG))

    def settle(self, gradient: Array | None, rate: float) -> bool:
        """Take a step at `rate`; False where a gradient was not finite, and nothing has changed then.

        Args:
            gradient: with respect to what `below` returned last; None where there is none.
        """
        import torch

        sent, self._sent = self._sent, None
        if gradient is not None and sent is not None:
            sent.backward(torch.from_numpy(np.array(gradient, np.float32)).to(sent))
        return self._training.step(rate)

    def drop(self) -> None:
        """Forget the gradients of this step."""
        self._sent = None
        self._training.forget()

    def state(self) -> dict[str, Any]:
        """Copies of all that decides the next step, by name."""
        return self._training.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as at `state`.

        Raises:
            StoreError: it is another adapter's.
        """
        self._training.restore(state)


def _index(numbers: Any, device: Any) -> Any:
    import torch

    return torch.from_numpy(np.asarray(numbers, np.int64)).to(device)
