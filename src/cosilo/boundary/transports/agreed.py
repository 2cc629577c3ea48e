"""What the two ends of a network agree on: versions, headers, and how pieces follow one another.

    GET  /v1/hello                    who the host is and what it speaks, in JSON that never changes
    POST /v1/carry   request bytes  ─▶ reply bytes
    POST /v1/stream  request bytes  ─▶ pieces, each after its length in 4 bytes; a 0 ends them

A request names the version it is written in (SPEAKS) and itself (ID): 128 random bits in hexadecimal.
The same id with the same bytes is the same request, sent again; it is worked on and billed once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from cosilo.boundary.messages import LARGEST
from cosilo.errors import UnexpectedReplyError

PROTOCOL = 1
"""Of the requests and headers here."""

MESSAGES = 1
"""Of the encoding of messages."""

HELLO, CARRY, STREAM = "/v1/hello", "/v1/carry", "/v1/stream"
SPEAKS, ID, HAVE = "Cosilo-Speaks", "Cosilo-Id", "Cosilo-Have"
CONTENT = "application/msgpack"

END = b"\0\0\0\0"


class Versions(NamedTuple):
    protocol: int
    messages: int

    def __str__(self) -> str:
        return f"protocol {self.protocol}, messages {self.messages}"

    @property
    def header(self) -> str:
        return f"{self.protocol}.{self.messages}"


OURS = Versions(PROTOCOL, MESSAGES)


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of itself to a client it knows.

    Attributes:
        protocol, messages: the versions it speaks.
        name: what its owner calls it.
        model: the name of the large model.
        exposes: what it lets this client see.
        at: its clock, in seconds since 1970.
    """

    protocol: int
    messages: int
    name: str = ""
    model: str = ""
    exposes: str = ""
    at: float = 0.0

    @property
    def versions(self) -> Versions:
        return Versions(self.protocol, self.messages)


def new_id() -> str:
    """An id that no other request has."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    return len(text) == 32 and not text.strip("0123456789abcdef")


def framed(piece: bytes) -> bytes:
    """`piece` as it follows others."""
    return len(piece).to_bytes(4, "big") + piece


class Pieces:
    """Cuts what comes into the pieces that `framed` made."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces that are whole now.

        Raises:
            UnexpectedReplyError: a piece longer than a message may be, or something after the end.
        """
        self._held += data
        while len(self._held) >= 4 and not self.ended:
            size = int.from_bytes(self._held[:4], "big")
            if size > LARGEST:
                raise UnexpectedReplyError(
                    f"a piece of {size} bytes is longer than a message may be"
                )
            if len(self._held) < 4 + size:
                return
            piece = bytes(self._held[4 : 4 + size])
            del self._held[: 4 + size]
            if size:
                yield piece
            else:
                self.ended = True
        if self.ended and self._held:
            raise UnexpectedReplyError("something follows the end of a reply")
