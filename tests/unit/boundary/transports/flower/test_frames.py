"""Frames between a courier and Cosilo's process: what goes in comes out, and no more is read."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cosilo.boundary.transports.flower.couriers import frames


def read(data: bytes) -> tuple[frames.Words, bytes]:
    """What `data` is to a process of ours."""

    async def run() -> tuple[frames.Words, bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await frames.read(reader)

    return asyncio.run(run())


def received(data: bytes) -> tuple[frames.Words, bytes]:
    """What `data` is to a courier."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return frames.received(ours)


def through(data: bytes) -> tuple[frames.Words, bytes]:
    found = received(data)
    assert read(data) == found
    return found


def fails(data: bytes, error: type[Exception]) -> None:
    for way in (read, received):
        with pytest.raises(error):
            way(data)


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 300])
def test_a_frame_comes_out_as_it_went_in(body: bytes) -> None:
    words = {"id": "ab" * 16, "failed": "größer"}
    assert through(frames.packed(words, body)) == (words, body)


def test_a_frame_that_is_cut_is_none() -> None:
    whole = frames.packed({"id": "x"}, b"body")
    for size in range(len(whole)):
        fails(whole[:size], ConnectionError)


def test_a_frame_too_large_is_refused_before_it_is_read() -> None:
    fails((1 << 30).to_bytes(4, "big"), ValueError)
    fails(frames.packed({})[:-8] + (1 << 40).to_bytes(8, "big"), ValueError)


@pytest.mark.parametrize("head", [b"[]", b'{"id": 1}', b"{", b"\xff"])
def test_words_that_are_none_are_refused(head: bytes) -> None:
    fails(len(head).to_bytes(4, "big") + head + bytes(8), ValueError)
