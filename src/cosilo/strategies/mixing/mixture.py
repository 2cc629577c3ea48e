"""What a mixture is made of, and what a reply is written from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cosilo.strategies.mixing.numbers import Row


class Mixture(Protocol):
    """How one distribution is made of the large model's and of those of models at home.

    Rows are normalised, all over one alphabet; what comes out need not be.
    """

    @property
    def prior(self) -> int:
        """Which of the models at home is taken for the large one where that says nothing: the
        probability that its untold tokens have together is spread in proportion to this one's."""

    def asks(self, homes: Sequence[Row]) -> bool:
        """Whether the large model is asked at a place where those at home say `homes`."""

    def alone(self, homes: Sequence[Row]) -> Row:
        """What is believed without the large model."""

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        """What is believed with it."""


class Source(Protocol):
    """Where a reply's units (tokens or bytes) come from, one after the other."""

    @property
    def ends(self) -> Sequence[int]:
        """The units that end a reply."""

    @property
    def asked(self) -> int:
        """At how many places the large model was asked."""

    @property
    def count(self) -> int:
        """How many tokens the reply has."""

    def piece(self, token: int) -> bytes:
        """What a unit stands for."""

    def first(self, piece: bytes) -> bytes:
        """`piece` as the first of a reply."""

    def units(self, text: str) -> Sequence[int]:
        """What a whole reply consists of, without an end."""

    async def prompt_tokens(self) -> int:
        """How much stands in front of the reply, in tokens of the first model at home."""

    async def next(self) -> Row:
        """What comes next, normalised."""

    def fits(self, unit: int) -> bool:
        """Whether the reply stays the beginning of a text with this one next."""

    async def take(self, unit: int) -> None:
        """The reply goes on with `unit`."""
