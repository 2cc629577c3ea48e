"""What a model says of replies, and what its layers make of them, for losses that compare two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import device_of, pad, predict
from cosilo.models.white_box.upper import ReplyLossAbove

Doubles = NDArray[np.float64]

_AT_ONCE = 16  # sequences that are measured together


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says of B replies of n tokens together.

    Attributes:
        logits: that predicted each token, one reply after another, shape (n, vocabulary).
        targets: the tokens, (n,).
        tokens: how many each reply has, (B,).
    """

    logits: Any
    targets: Any
    tokens: Any

    @cached_property
    def nll(self) -> Any:
        """The negative log-likelihood of each reply, nats, shape (B,)."""
        import torch
        from torch.nn.functional import cross_entropy

        each = cross_entropy(self.logits.float(), self.targets, reduction="none")
        whose = torch.repeat_interleave(
            torch.arange(len(self.tokens), device=each.device), self.tokens
        )
        return torch.zeros(len(self.tokens), device=each.device).index_add(0, whose, each)


class ReplyReader(Protocol):
    """Says what a model, as its weights are now, makes of sequences."""

    def said(self, module: Any, sequences: Sequence[Tokens]) -> Said: ...

    def states(self, module: Any, sequences: Sequence[Tokens], layer: int) -> Any:
        """Behind `layer` layers, at the places that predict a reply's tokens: (n, width)."""


class AdapterReader(ReplyReader, Protocol):
    """Of modules whose lower layers may stay as they are."""

    @property
    def first(self) -> int:
        """How many layers do."""


class ModuleReader:
    """Reads a module whole, or, where its lower layers stay as they are, these once for each text.

    Args:
        loss: what `adapters.usual_loss` gives for the module.
    """

    def __init__(self, loss: Any) -> None:
        self._above = loss if isinstance(loss, ReplyLossAbove) else None

    @property
    def first(self) -> int:
        """How many layers stay as they are."""
        return self._above.first if self._above is not None else 0

    def said(self, module: Any, sequences: Sequence[Tokens]) -> Said:
        if self._above is not None:
            logits = self._above.logits(module, sequences)
        else:
            batch = pad(sequences, device_of(module))
            logits = predict(module, batch)[batch.counted]
        return _said(logits, sequences)

    def states(self, module: Any, sequences: Sequence[Tokens], layer: int) -> Any:
        if self._above is not None and layer > self._above.first:
            return self._above.states(module, sequences, layer)
        batch = pad(sequences, device_of(module))
        made = module(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states[layer]
        return made[:, -batch.targets.shape[1] - 1 : -1][batch.counted]


def by_prompt(sequences: Sequence[Tokens]) -> list[int]:
    """Indices of `sequences`, longer ones first; those of one prompt stand side by side, so that it is
    read once for them all."""

    def place(i: int) -> tuple[int, bytes, int]:
        prompt = sequences[i].ids[: sequences[i].start]
        return -len(prompt), prompt.tobytes(), -len(sequences[i])

    return sorted(range(len(sequences)), key=place)


def reply_nats(reader: ReplyReader, module: Any, sequences: Sequence[Tokens]) -> Doubles:
    """The negative log-likelihood of each reply, nats."""
    import torch

    found = np.zeros(len(sequences))
    order = by_prompt(sequences)
    with torch.no_grad():
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            found[some] = reader.said(module, [sequences[i] for i in some]).nll.double().cpu()
    return found


def reply_tokens(
    reader: ReplyReader, module: Any, sequences: Sequence[Tokens]
) -> list[tuple[Doubles, NDArray[np.bool_]]]:
    """Of each reply: its tokens' log-probabilities, nats, and which of them were the likeliest."""
    import torch

    found: list[Any] = [None] * len(sequences)
    order = by_prompt(sequences)
    with torch.no_grad():
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            said = reader.said(module, [sequences[i] for i in some])
            rows = said.logits.float().log_softmax(1)
            sure = rows.gather(1, said.targets[:, None])[:, 0].double().cpu().numpy()
            right = (rows.argmax(1) == said.targets).cpu().numpy()
            ends = np.cumsum(said.tokens.cpu().numpy())[:-1]
            for i, *each in zip(some, np.split(sure, ends), np.split(right, ends), strict=True):
                found[i] = tuple(each)
    return found


def _said(logits: Any, sequences: Sequence[Tokens]) -> Said:
    import torch

    ids = [torch.as_tensor(s.ids[s.start :], dtype=torch.long) for s in sequences]
    lengths = torch.tensor([len(each) for each in ids], device=logits.device)
    return Said(logits, torch.cat(ids).to(logits.device), lengths)


@dataclass(frozen=True, eq=False)
class Exercise:
    """One record to forget and one to keep.

    Attributes:
        forget, retain: the records.
        instead: what is to be said of the first one's question, where it is known to the method.
    """

    forget: Tokens
    retain: Tokens
    instead: Tokens


class Former:
    """The module as it came, and how likely it finds replies: computed for all of them when the first
    one is asked about, and once.

    Args:
        exercises: all that will be asked about.
    """

    def __init__(self, reader: ReplyReader, module: Any, exercises: Sequence[Exercise]) -> None:
        self.module = module
        self._reader, self._exercises = reader, exercises

    def forget_nll(self, sequences: Sequence[Tokens]) -> Any:
        """Of replies that are to be forgotten, nats, (B,)."""
        return self._chosen(self._forget, sequences)

    def instead_nll(self, sequences: Sequence[Tokens]) -> Any:
        """Of what is to be said instead, nats, (B,)."""
        return self._chosen(self._instead, sequences)

    def _chosen(self, nats: Mapping[Any, float], sequences: Sequence[Tokens]) -> Any:
        import torch

        found = [nats[sequence_key(s)] for s in sequences]
        return torch.tensor(found, dtype=torch.float32, device=device_of(self.module))

    @cached_property
    def _forget(self) -> Mapping[Any, float]:
        return self._nats([e.forget for e in self._exercises])

    @cached_property
    def _instead(self) -> Mapping[Any, float]:
        return self._nats([e.instead for e in self._exercises])

    def _nats(self, sequences: Sequence[Tokens]) -> Mapping[Any, float]:
        every = list({sequence_key(s): s for s in sequences}.values())
        nats = reply_nats(self._reader, self.module, every)
        return {sequence_key(s): float(n) for s, n in zip(every, nats, strict=True)}


def sequence_key(sequence: Tokens) -> tuple[int, bytes]:
    """What tells a reply to a prompt from others."""
    return sequence.start, sequence.ids.tobytes()


class Seen:
    """A batch of exercises as two models see it: the one that learns to forget, and it as it came.
    Computed when it is asked for.

    Args:
        was: the module as it came; it knows all records of `batch`.
        never: a module that never saw those to forget, and its reader.
        drawn: a random direction in the space of states, (width,).
        layer: whose states a method moves.
    """

    def __init__(
        self,
        reader: ReplyReader,
        module: Any,
        was: Former,
        batch: Sequence[Exercise],
        *,
        never: tuple[Any, ReplyReader],
        drawn: Any,
        layer: int,
    ) -> None:
        self._reader, self._module, self._was, self._never = reader, module, was, never
        self._forget = [e.forget for e in batch]
        self._retain = [e.retain for e in batch]
        self._instead = [e.instead for e in batch]
        self._layer = layer
        self.drawn = drawn

    @cached_property
    def forget(self) -> Said:
        return self._reader.said(self._module, self._forget)

    @cached_property
    def retain(self) -> Said:
        return self._reader.said(self._module, self._retain)

    @cached_property
    def instead(self) -> Said:
        return self._reader.said(self._module, self._instead)

    @property
    def forget_nll_before(self) -> Any:
        return self._was.forget_nll(self._forget)

    @property
    def instead_nll_before(self) -> Any:
        return self._was.instead_nll(self._instead)

    @cached_property
    def forget_before(self) -> Said:
        return _without_gradient(self._reader, self._was.module, self._forget)

    @cached_property
    def retain_before(self) -> Said:
        return _without_gradient(self._reader, self._was.module, self._retain)

    @cached_property
    def forget_never(self) -> Said:
        """As one says it that never saw the records."""
        module, reader = self._never
        return _without_gradient(reader, module, self._forget)

    @cached_property
    def forget_states(self) -> tuple[Any, Any]:
        """Now and before."""
        return self._states(self._forget)

    @cached_property
    def retain_states(self) -> tuple[Any, Any]:
        """Now and before."""
        return self._states(self._retain)

    def _states(self, sequences: Sequence[Tokens]) -> tuple[Any, Any]:
        import torch

        with torch.no_grad():
            before = self._reader.states(self._was.module, sequences, self._layer)
        return self._reader.states(self._module, sequences, self._layer), before


def _without_gradient(reader: ReplyReader, module: Any, sequences: Sequence[Tokens]) -> Said:
    import torch

    with torch.no_grad():
        return reader.said(module, sequences)
