"""A model whose owner tunes adapters of it for clients, on lessons that they send.

tune ──▶ name ──▶ plugged: the model, with that adapter
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from cosilo.models.base import Array, TextModel
from cosilo.types import Chat


@dataclass(frozen=True, eq=False)
class Lessons:
    """What an adapter is to learn.

    Attributes:
        chats: n of them.
        choices: k replies of which one is right for each chat; empty where each has its own.
        replies: n of them, where there are no choices.
        shares: of shape (n, k), rows that sum to 1: how likely each choice is right. Of shape (n, 1)
            where there are no choices: how much each reply is worth, 1 on average.
    """

    chats: tuple[Chat, ...]
    choices: tuple[str, ...]
    replies: tuple[str, ...]
    shares: Array = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class LessonPlan:
    """How it is trained; see `boundary.messages.Tune`."""

    steps: int
    batch: int
    learning_rate: float
    rank: int
    seed: int = 0
    confidence: float = 0.0
    warmup: float = 0.2


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        name: what the adapter answers by.
        first, last: the loss at the first and last step, in nats.
        tokens: read in training; 0 where it was trained before.
    """

    name: str
    first: float
    last: float
    tokens: int


class PluggingModel(Protocol):
    """A model that answers with adapters. Each belongs to one client: no other knows its name."""

    async def plugged(self, client: str, name: str) -> TextModel:
        """The model with that adapter.

        Raises:
            UnknownAdapterError: it has no such adapter of this client's (any more).
        """


class ForgettingModel(PluggingModel, Protocol):
    """One that can be told to forget an adapter."""

    async def adapters_of(self, client: str) -> Mapping[str, str]:
        """The name of each adapter that is kept for the client, and a hash of it."""

    async def forget_adapter(self, client: str, name: str) -> None:
        """Keep nothing of that adapter any longer, in memory or on disk, nor of a training of that
        name; nothing happens where there is none.

        Raises:
            StoreError: a file of it cannot be taken away.
        """


class TunableModel(PluggingModel, Protocol):
    async def tune(self, client: str, lessons: Lessons, plan: LessonPlan) -> Learned:
        """Train an adapter; the same lessons and plan are the same adapter, trained once.

        Raises:
            RejectedError: more than the owner tunes, or lessons that the model cannot read.
            ModelError: the loss is not finite.
        """


def plugs(model: TextModel) -> TypeGuard[PluggingModel]:
    """Whether it answers with adapters; asked of its class, as it may have to be loaded."""
    return hasattr(type(model), "plugged")


def tunes(model: TextModel) -> TypeGuard[TunableModel]:
    """Whether its owner tunes it for clients; asked of its class."""
    return hasattr(type(model), "tune") and plugs(model)


def forgets_adapters(model: TextModel) -> TypeGuard[ForgettingModel]:
    """Whether it can forget an adapter; asked of its class."""
    return hasattr(type(model), "forget_adapter") and plugs(model)
