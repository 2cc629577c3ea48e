"""Steps along shared directions, of which an owner sends one number each: FedKSeed.

What goes on from round to round is the sum of all rounds' scalars. The weights are where that sum leads
from the first adapter, so an owner that comes late needs the last sum alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.messages import Enrolled, RoundState
from cosilo.databases import made_private
from cosilo.errors import CapabilityError, StoreError
from cosilo.federation.scalars import SCALARS, Directions, moved, walked
from cosilo.federation.updates import Shapes, Tensors
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import (
    Adapter,
    AdapterLoss,
    first_adapter,
    with_adapter,
)
from cosilo.models.white_box.training import Schedule, order
from cosilo.models.white_box.tuning import fitted
from cosilo.strategies.federating.adapters import adapted_layers
from cosilo.strategies.federating.participation import Participation

_NUMBER = struct.Struct("<d")


class ScalarTraining:
    """A walk along shared directions in the space of an adapter's matrices; see `federation.scalars`.

    Args:
        module: the model that the adapter is around, left as it is.
        sequences: the owner's examples.
    """

    def __init__(self, how: Participation, module: Any, sequences: Sequence[Tokens]) -> None:
        self._how = how
        self._module = module
        self._sequences = fitted(sequences, module)
        self.layers = adapted_layers(how, module)
        self._first: Adapter
        self._directions: Directions
        self._rate = 0.0

    def first(self, enrolled: Enrolled) -> Tensors:
        """What the first round begins with: no scalar.

        Raises:
            CapabilityError: the federation is none of scalars.
        """
        walk, rank = enrolled.walk, self._how.rank
        if walk is None:
            raise CapabilityError(
                'the federation is of adapters, and this owner sends scalars: set method = "adapter"'
            )
        self._first = first_adapter(
            self.layers, rank, alpha=enrolled.scale * rank, seed=enrolled.seed
        )
        self._directions = Directions(enrolled.seed, walk.directions)
        self._rate = walk.rate
        return {SCALARS: np.zeros(walk.directions, np.float32)}

    def shapes(self, rank: int) -> Shapes:
        """Of what comes back of a round."""
        return {SCALARS: (self._directions.count,)}

    def begun(self, state: RoundState, found: Tensors) -> Tensors:
        """What the round after the one that `found` came of begins with."""
        return found

    def private_loss(self, session: str) -> None:
        """None: a walk has no steps with noise."""

    def trained(
        self, number: int, start: Tensors, folder: Path | None, session: str
    ) -> tuple[Tensors, float]:
        """What round `number` makes of `start`, and the loss of its last step's examples."""
        how, seed = self._how, (self._how.seed << 16) + number
        loss = AdapterLoss(self._module, self._first)
        schedule = Schedule(steps=how.steps, batch=min(how.batch, len(self._sequences)), seed=seed)

        def of_step(step: int, weights: Tensors) -> float:
            batch = [self._sequences[i] for i in order(len(self._sequences), schedule, step)]
            return loss(weights, batch)

        with _Noted(folder) as noted:
            end, scalars = walked(
                of_step,
                self._weights(start),
                self._directions,
                steps=how.steps,
                rate=self._rate,
                epsilon=how.epsilon,
                seed=seed,
                known=noted.known,
                note=noted.note,
            )
        found = {SCALARS: (start[SCALARS] + scalars).astype(np.float32)}
        return found, of_step(how.steps - 1, end)

    def module(self, start: Tensors, *, merged: bool, untuned: bool = False) -> Any:
        """The model with what came of the federation."""
        adapter = Adapter(self._first.rank, self._first.alpha, self._weights(start))
        return with_adapter(self._module, adapter)

    def _weights(self, start: Tensors) -> Tensors:
        return moved(self._first.tensors, start[SCALARS], self._directions, rate=self._rate)


class _Noted:
    """The numbers of a walk's steps so far, in a file that grows by one at each, so that a process that
    was killed goes on where it was; nowhere where there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "walk"
        self._file: Any = None
        self.known: list[float] = []

    def __enter__(self) -> _Noted:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = made_private(self._path).open("a+b")
                self._file.seek(0)
                data = self._file.read()
                whole = len(data) // _NUMBER.size * _NUMBER.size
                self._file.truncate(whole)  # a kill may have left half a number
            except OSError as error:
                raise StoreError(f"{str(self._path)!r} cannot be used: {error.strerror}") from None
            self.known = [number for (number,) in _NUMBER.iter_unpack(data[:whole])]
        return self

    def note(self, number: float) -> None:
        if self._file is not None:
            self._file.write(_NUMBER.pack(number))
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
