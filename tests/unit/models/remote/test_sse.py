"""Server-sent events come out the same wherever their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.models.remote.sse import Events, EventTooLongError

STREAM = (
    "\ufeffdata: ä漢🙂 one\r\n\r\n"
    ": a comment\n\n"
    "event: ping\nid: 3\nretry: 10\n\n"
    "data:two\ndata\ndata: lines\n\n"
    "data: three\r\r"
    "data: of one\r\ndata: event\r\n\r\n"
    'data: {"x": "a: b"}\n\n\n\n'
    "data: [DONE]\n"
).encode()
EVENTS = ["ä漢🙂 one", "two\n\nlines", "three", "of one\nevent", '{"x": "a: b"}', "[DONE]"]


def read(pieces: list[bytes]) -> list[str]:
    events = Events()
    found = [event for piece in pieces for event in events.feed(piece)]
    return [event.decode() for event in (*found, *events.end())]


def test_whole_and_byte_by_byte() -> None:
    assert read([STREAM]) == EVENTS
    assert read([bytes([b]) for b in STREAM]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read([STREAM[a:b] for a, b in pairwise(edges)]) == EVENTS


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r", "\r\n"]),
    st.integers(1, 5),
)
def test_any_data_any_line_ending(texts: list[str], newline: str, step: int) -> None:
    stream = "".join(f"data: {t}{newline}{newline}" for t in texts).encode()
    assert read([stream[i : i + step] for i in range(0, len(stream), step)]) == texts


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 30, b"data:\n"])
def test_an_endless_event_is_refused(piece: bytes) -> None:
    events = Events(most=100)

    def feed() -> None:
        for _ in range(1000):
            events.feed(piece)

    with pytest.raises(EventTooLongError):
        feed()
