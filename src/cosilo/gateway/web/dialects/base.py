"""What a shape that clients speak (a *dialect*) has to say: how it is read, how it is written.

    body ─▶ read ─▶ Continuation ─▶ Gateway._answer ─▶ whole │ events ─▶ client

A dialect translates and nothing else. It sees no point, no model and no money, so every shape goes the
same way through guards and books: the way from a `Continuation` to its answers is `Gateway._answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cosilo.gateway.refusals import Refusal
from cosilo.gateway.web.dialects.files import ClientFile
from cosilo.types import Chat, Delta, Generation

Header = Callable[[bytes], bytes]
"""The value of a request's header, by its name in lower case; nothing where it was not sent."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A request to continue chats, each `n` times. The older API's texts are chats of one turn.

    Attributes:
        sampling: the fields of `Sampling` that the client set; the point's own hold for the rest.
        n: how many answers are wanted, each asked for on its own.
        logprobs: None when not wanted, else the number of alternatives shown for each token.
        user: who the client says is asking, as the JSON it sent: `user`, or else `safety_identifier`.
        others: further fields, JSON by the names they have in OpenAI's chat API: the point says whether
            one is passed on, dropped or refused.
        files: those whose text has to be read; a mark stands for each in `chats`.
        echo: what the dialect's answer repeats of the request, by the names it has there.
    """

    model: str
    chats: tuple[Chat, ...]
    sampling: dict[str, Any] = field(default_factory=dict)
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    logprobs: int | None = None
    user: bytes = b""
    others: Mapping[str, bytes] = field(default_factory=dict)
    files: Sequence[ClientFile] = ()
    echo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Envelope:
    """What stands around the answers to a request.

    Attributes:
        request: the gateway's id of it; ids in the answer are made from it.
        created: seconds since 1970.
        model: the point, by the name clients call it.
    """

    request: str
    created: int
    model: str
    wanted: Continuation


class AnswerEvents(Protocol):
    """The server-sent events of one request's answers, one answer after the other.

    Whatever a method returns is sent as it is; nothing (`b""`) is not sent. What `first` returns goes
    out together with the first piece, so that an answer that fails before it is refused with a status.
    """

    def first(self, index: int) -> bytes:
        """What opens answer `index`."""
        ...

    def piece(self, index: int, delta: Delta) -> bytes:
        """What says `delta` to the client; nothing where it holds nothing for one."""
        ...

    def last(self, index: int, generation: Generation) -> bytes:
        """What ends answer `index`, which was `generation` in all."""
        ...

    def end(self, generations: Sequence[Generation], facts: Mapping[str, object]) -> bytes:
        """What ends the stream: what all answers took, and `facts` about how they were made."""
        ...

    def error(self, refusal: Refusal) -> bytes:
        """What ends a stream that cannot go on."""
        ...


class Shape(Protocol):
    """How an endpoint refuses, and what every answer of it has."""

    def error(self, refusal: Refusal) -> tuple[int, bytes]:
        """(status, body) by which its clients tell what went wrong."""
        ...

    def headers(self, request: str) -> list[tuple[str, str]]:
        """Headers that its clients look for in any answer to the request of that id."""
        ...


class Dialect(Shape, Protocol):
    """The shape of an endpoint that answers chats.

    Attributes:
        endpoint: what it is called in the record and in metrics.
        path: where it is served.
    """

    @property
    def endpoint(self) -> str: ...

    @property
    def path(self) -> str: ...

    def read(self, body: bytes, header: Header) -> Continuation:
        """The request in `body`.

        Raises:
            RequestError: it is not JSON, or a field or a header is missing, unknown, of the wrong type
                or refused. The text names the field, never what stood in it.
        """
        ...

    def whole(self, envelope: Envelope, generations: Sequence[Generation]) -> bytes:
        """The body with all answers: for each chat its `n`."""
        ...

    def events(self, envelope: Envelope) -> AnswerEvents: ...
