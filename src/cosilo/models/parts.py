"""A model's layers as somebody else uses and trains them: several texts at a time, gradients and steps.

part = await model.part(first, last, how)        # an adapter of its own, around shared weights
passed = await part.forward(states, lengths)     # keeps what a gradient needs
gradient = await part.step(passed, gradient)     # back through the layers, and the adapter a step on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from cosilo.models.base import Array, SplitModel, StatePast, TextModel


@dataclass(frozen=True, kw_only=True)
class PartTuning:
    """How the adapter of a part is trained.

    Attributes:
        rank: of its matrices.
        learning_rate: of each step of AdamW.
        clip: gradients of its weights are scaled down to this norm.
        seed: of the weights that it begins with.
    """

    rank: int
    learning_rate: float
    clip: float = 1.0
    seed: int = 0


class Passed(Protocol):
    """States that went through a part, and what their gradient needs. Where that is gone, because it
    was used or the part has changed, they go through once more when it is needed."""

    @property
    def out(self) -> Array:
        """What became of them, (n, width)."""

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""


class LayerRange(Protocol):
    """Some of a model's layers."""

    async def forward(self, states: Array, lengths: Sequence[int]) -> Passed:
        """`states`, (n, width), of texts of these lengths, one after the other.

        Raises:
            RejectedError: a text is longer than the model's context.
            ModelError: the model failed.
        """

    async def backward(self, passed: Passed, gradient: Array) -> Array:
        """From the gradient of what comes out of the part as it is now that of what went in.

        Raises:
            ModelError: the model failed.
        """

    async def step(self, passed: Passed, gradient: Array) -> Array:
        """The same, and the adapter takes a step downhill.

        Raises:
            RejectedError: the adapter's gradient is not finite; it stays as it was.
        """

    async def go_on(self, past: StatePast | None, states: Array) -> tuple[StatePast, Array]:
        """As `SplitModel.forward`, through the part as it is now."""

    async def state(self) -> Mapping[str, Any]:
        """A copy of the adapter and of its optimiser's memory, as tensors."""

    async def restore(self, state: Mapping[str, Any]) -> None:
        """Be as at `state`."""

    async def write(self, path: Path, reply: bytes, about: object) -> None:
        """Replace `path` by a file with the state, `reply` and `about` (JSON).

        Raises:
            StoreError: it cannot be written.
        """

    async def read(self, path: Path) -> tuple[Mapping[str, Any], bytes, Any]:
        """The state, reply and `about` that `write` wrote.

        Raises:
            StoreError: it cannot be read, or is of another part.
        """


class PartModel(SplitModel, Protocol):
    """A model whose layers others may go through with several texts, and train an adapter on."""

    async def base_digest(self) -> bytes:
        """A hash of its weights, without any adapter, and of its tokeniser."""

    async def part(self, first: int, last: int, how: PartTuning | None) -> LayerRange:
        """The layers behind the first `first`, up to the first `last`; without `how` as they are.

        Raises:
            RejectedError: there are no such layers.
        """


def has_parts(model: TextModel) -> TypeGuard[PartModel]:
    """Whether it is one. Asked of its class: its properties may have to load it."""
    return hasattr(type(model), "part")
