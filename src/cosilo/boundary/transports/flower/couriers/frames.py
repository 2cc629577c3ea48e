"""What a courier and Cosilo's process say to one another over a socket: words and bytes.

4 bytes: how long the words are ── words, JSON ── 8 bytes: how long the body is ── body
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping

MOST_WORDS = 1 << 16
MOST_BODY = (1 << 28) + (1 << 16)  # a message of Cosilo's, and room

Words = dict[str, str]


def packed(words: Mapping[str, str], body: bytes = b"") -> bytes:
    """The frame of `words` and `body`."""
    head = json.dumps(words).encode()
    return b"".join((len(head).to_bytes(4, "big"), head, len(body).to_bytes(8, "big"), body))


def received(connection: socket.socket) -> tuple[Words, bytes]:
    """The next frame that comes.

    Raises:
        OSError: the connection ended before it did.
        ValueError: it is none.
    """
    words = _words(_all(connection, _size(_all(connection, 4), MOST_WORDS)))
    return words, _all(connection, _size(_all(connection, 8), MOST_BODY))


async def read(reader: asyncio.StreamReader) -> tuple[Words, bytes]:
    """The next frame that comes; raises what `received` does."""
    try:
        words = _words(await reader.readexactly(_size(await reader.readexactly(4), MOST_WORDS)))
        return words, await reader.readexactly(_size(await reader.readexactly(8), MOST_BODY))
    except asyncio.IncompleteReadError:
        raise ConnectionError("the other process went away") from None


def said(path: str, words: Mapping[str, str], body: bytes = b"") -> tuple[Words, bytes]:
    """What the process that listens at `path` answers; raises what `received` does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(packed(words, body))
        return received(connection)


def _size(data: bytes, most: int) -> int:
    size = int.from_bytes(data, "big")
    if size > most:
        raise ValueError(f"{size} bytes are more than a frame may have")
    return size


def _words(data: bytes) -> Words:
    found = json.loads(data)
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError("a frame whose words are none")
    return found


def _all(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise ConnectionError("the other process went away")
        parts += part
    return bytes(parts)
