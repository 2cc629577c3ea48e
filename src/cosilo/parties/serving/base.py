"""Which handler serves which class of requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from cosilo.boundary.messages import Message, Request
from cosilo.boundary.messages.base import classes
from cosilo.errors import CapabilityError, ConfigError, UnknownAdapterError
from cosilo.models.base import TextModel
from cosilo.models.tunable import plugs
from cosilo.parties.bodies import ClientBodies
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.forgets import ForgetBook
from cosilo.parties.joint import JointRuns
from cosilo.parties.threads import Threads
from cosilo.types import Delta

M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=Callable[..., Any])


class Owner(Protocol):
    """The owner of the LM, as far as a handler needs it."""

    @property
    def model(self) -> TextModel: ...
    @property
    def name(self) -> str: ...
    @property
    def client(self) -> str:
        """Whom it serves, where there are several."""

    @property
    def federation(self) -> Federation | None:
        """The one that it coordinates, if it does."""

    @property
    def threads(self) -> Threads:
        """What it keeps of the threads under way."""

    @property
    def bodies(self) -> ClientBodies | None:
        """The adapters that it trains for clients; None where it trains none."""

    @property
    def joint(self) -> JointRuns | None:
        """The joint computations that it takes part in; None for the model's own table."""

    @property
    def forgets(self) -> ForgetBook:
        """What it notes of requests to forget."""


async def answering(owner: Owner, adapter: str) -> TextModel:
    """The LM, with the adapter of that name where one is named.

    Raises:
        UnknownAdapterError: the owner has none of that name for this client.
    """
    if not adapter:
        return owner.model
    if not plugs(owner.model):
        raise UnknownAdapterError(f"{owner.name} plugs no adapters in")
    return await owner.model.plugged(owner.client, adapter)


Handler = Callable[[Owner, M], Awaitable[Message]]
PieceHandler = Callable[[Owner, M], AsyncIterator[Delta]]

_handlers: dict[type[Message], Handler[Any]] = {}
_piece_handlers: dict[type[Message], PieceHandler[Any]] = {}


def serves(kind: type[M]) -> Callable[[F], F]:
    """Registers what it decorates, `async (owner, message) -> reply`, as what answers a `kind`.

    What the owner shows is checked before it is called, and what its reply shows after.

    Raises:
        ConfigError: `kind` is no class of requests, or is served already.
    """
    return _into(_handlers, kind)


def serves_stream(kind: type[M]) -> Callable[[F], F]:
    """The same for a reply that is wanted in pieces: `(owner, message) -> AsyncIterator[Delta]`."""
    return _into(_piece_handlers, kind)


def answer(owner: Owner, message: Message) -> Awaitable[Message]:
    """The reply of whatever serves such messages.

    Raises:
        CapabilityError: nothing does.
    """
    return _of(_handlers, owner, message)(owner, message)


def pieces(owner: Owner, message: Message) -> AsyncIterator[Delta]:
    """The same in pieces."""
    return _of(_piece_handlers, owner, message, " in pieces")(owner, message)


def _of(handlers: dict[type[Message], F], owner: Owner, message: Message, how: str = "") -> F:
    try:
        return handlers[type(message)]
    except KeyError:
        raise CapabilityError(
            f"{owner.name} does not serve {type(message).__name__}{how}"
        ) from None


def _into(handlers: dict[type[Message], Any], kind: type[Message]) -> Callable[[F], F]:
    def add(handler: F) -> F:
        name = kind.__name__
        if not issubclass(kind, Request) or kind not in classes().values():
            raise ConfigError(f"{_place(handler)} cannot serve {name}: it is no class of requests")
        if kind in handlers and _place(handlers[kind]) != _place(handler):
            raise ConfigError(
                f"{name} is served twice, by {_place(handlers[kind])} and {_place(handler)}"
            )
        handlers[kind] = handler
        return handler

    return add


def _place(handler: Callable[..., object]) -> str:
    return f"{handler.__module__}.{handler.__qualname__}"
