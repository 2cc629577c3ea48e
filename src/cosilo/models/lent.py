"""A model whose owner lends an emulator of it, and plugs in what was tuned there: what is asked of it.

lend ──▶ Loan (packed weights) ──▶ tuned elsewhere ──▶ plug_in ──▶ name ──▶ plugged: the model, tuned
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeGuard

from cosilo.models.base import Array, TextModel

Tensors = Mapping[str, Array]
Pack = Callable[[Tensors, str], bytes]
"""Tensors as bytes, by the codec of a name."""

Unpack = Callable[[bytes], Tensors]


@dataclass(frozen=True, eq=False)
class Loan:
    """An emulator as it is handed out.

    Attributes:
        config: what it is built by, as JSON.
        base: a digest of the model and its tokeniser, for whoever brings something back.
        kept: which of the model's layers are in it.
        ends: how many of the first, and of the last, are to be tuned.
        whole, alone: nats per token of public text: the model's, and the emulator's by itself.
        packed: its weights; where it was aligned, those of its middle alone.
    """

    config: str
    base: str
    kept: tuple[int, ...]
    ends: int
    whole: float
    alone: float
    packed: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of `packed`."""
        return hashlib.sha256(self.packed).hexdigest()


class LendingModel(Protocol):
    """A model that lends. Everything belongs to one client: no other knows the name of its adapter."""

    @property
    def vocabulary(self) -> str:
        """A hash of the tokeniser, as in `LogitModel`."""

    @property
    def tunable(self) -> Mapping[str, tuple[int, int]]:
        """The layers that may be tuned, by name, and the shapes of their weights."""

    @property
    def largest_rank(self) -> int:
        """Of an adapter that it takes."""

    async def lend(self, client: str, aligned_to: str, pack: Pack, unpack: Unpack) -> Loan:
        """The emulator, made when it is first asked for.

        Args:
            aligned_to: the name of an adapter that was plugged in; its middle learns again to be to
                that adapter what the model's middle is. Empty for the emulator as it is.

        Raises:
            CapabilityError: it can do more alone than the owner lends, or was aligned often enough.
            UnknownAdapterError: no such adapter is plugged in for this client.
        """

    async def plug_in(
        self, client: str, base: str, rank: int, alpha: float, tensors: Tensors
    ) -> str:
        """Take an adapter, in the model's numbering of layers; the name that it answers by.

        Raises:
            RejectedError: it is for another model, or is none.
        """

    async def plugged(self, client: str, name: str) -> TextModel:
        """The model with that adapter.

        Raises:
            UnknownAdapterError: no such adapter is plugged in for this client (any more).
        """


def lends(model: TextModel) -> TypeGuard[LendingModel]:
    """Whether its owner lends it; asked of its class, as it may have to be loaded."""
    return hasattr(type(model), "lend") and hasattr(type(model), "plugged")
