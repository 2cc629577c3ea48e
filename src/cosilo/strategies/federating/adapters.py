"""An adapter trained at home, from where a round begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.messages import Enrolled, RoundState
from cosilo.errors import ConfigError
from cosilo.federation.low_rank import reduced, truncated
from cosilo.federation.updates import A, B, Floats, Shapes, Tensors
from cosilo.models.base import Tokens
from cosilo.models.low_rank import Layers, matrix_shapes
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    merged_with,
    trained_adapter,
    upper_layers,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.private import PrivateLoss
from cosilo.models.white_box.tuning import fitted
from cosilo.models.white_box.upper import ReplyLossAbove
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.strategies.federating.participation import Participation


def stacked(adapters: Sequence[Adapter]) -> Adapter:
    """One adapter that adds to the weights what all of `adapters` add. It has the sum of their ranks,
    or as many as the layers themselves, if that is less."""
    found: dict[str, Floats] = {}
    for layer in adapters[0].layers:
        scaled = [np.float32(each.scale) * each.tensors[layer + A] for each in adapters]
        found[layer + A] = np.concatenate(scaled, axis=0)
        found[layer + B] = np.concatenate([each.tensors[layer + B] for each in adapters], axis=1)
    rank = sum(each.rank for each in adapters)
    full = max(min(shape) for shape in adapters[0].layers.values())
    if rank > full:
        found, rank = reduced(found, full), full
    return Adapter(rank, float(rank), found)


def adapted_layers(how: Participation, module: Any) -> Layers:
    """The layers that an owner's adapter is on.

    Raises:
        ConfigError: there are not so many.
    """
    if how.upper > (count := len(layers_of(module))):
        raise ConfigError(f"upper = {how.upper}: the small model has {count} layers")
    return upper_layers(module, how.upper or None)


class AdapterTraining:
    """Steps of AdamW on the matrices of an adapter, which are what crosses.

    Args:
        module: the model that the adapter is around, left as it is.
        sequences: the owner's examples.
        draws: what noise on steps is drawn by, where there is any.
    """

    def __init__(
        self,
        how: Participation,
        module: Any,
        sequences: Sequence[Tokens],
        draws: KeyedNoise | None = None,
    ) -> None:
        self._how = how
        self._draws = draws
        self._module = self._untuned = module
        self._added: list[Adapter] = []
        self._sequences = sequences
        self.layers = adapted_layers(how, module)
        self._loss = usual_loss(module, first_adapter(self.layers, 1, seed=0))
        self._scale = 0.0
        self._seed = 0

    def first(self, enrolled: Enrolled) -> Tensors:
        """What the first round begins with."""
        self._scale, self._seed = enrolled.scale, enrolled.seed
        self._module, self._added = self._untuned, []
        return self._first()

    def shapes(self, rank: int) -> Shapes:
        """Of what comes back of a round, in an adapter of that rank."""
        return matrix_shapes(self.layers, rank)

    def begun(self, state: RoundState, found: Tensors) -> Tensors:
        """What the round after the one that `found` came of begins with."""
        if state.adds:
            adapter = Adapter(state.rank, self._scale * state.rank, found)
            self._module = merged_with(self._module, adapter)
            self._added.append(adapter)
            return self._first()
        return truncated(found, min(state.rank, self._how.rank))

    @property
    def above(self) -> ReplyLossAbove | None:
        """What keeps the states of the layers below, where upper layers alone are adapted."""
        return self._loss if isinstance(self._loss, ReplyLossAbove) else None

    def adapter(self, tensors: Tensors) -> Adapter:
        """The adapter of these matrices."""
        rank = min(len(t) for name, t in tensors.items() if name.endswith(A))
        return Adapter(rank, self._scale * rank, tensors)

    def private_loss(self, session: str) -> PrivateLoss | None:
        """What steps with noise learn by; None where there is none.

        Args:
            session: names the federation and the round.
        """
        how = self._how
        if self._draws is None or how.noise_on != "step":
            return None
        return PrivateLoss(
            fitted(self._sequences, self._module),
            rate=how.rate(len(self._sequences)),
            largest=how.clip,
            noise=how.noise,
            draws=self._draws,
            session=session,
        )

    def trained(
        self, number: int, start: Tensors, folder: Path | None, session: str
    ) -> tuple[Tensors, float]:
        """What round `number` makes of `start`, and the loss at its last step."""
        how, private = self._how, self.private_loss(session)
        adapter, outcome = trained_adapter(
            self._module,
            self.adapter(start),
            self._sequences,
            steps=how.steps,
            batch=how.batch,
            learning_rate=how.learning_rate,
            seed=(how.seed << 16) + number,
            folder=folder,
            run="" if private is None else private.identity,
            loss=self._loss if private is None else private,
        )
        return adapter.tensors, outcome.losses[-1]

    def module(self, start: Tensors, *, merged: bool, untuned: bool = False) -> Any:
        """The model with what came of the federation; as an adapter that can be taken off again, where
        it is needed `untuned`, too."""
        if merged and untuned:
            return with_adapter(self._untuned, stacked(self._added))
        return self._module if merged else with_adapter(self._module, self.adapter(start))

    def _first(self) -> Tensors:
        rank = self._how.rank
        return first_adapter(self.layers, rank, alpha=self._scale * rank, seed=self._seed).tensors
