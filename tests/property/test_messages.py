"""Whatever a message holds survives its encoding, and no bytes decode to anything but a message."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Read,
    Score,
    Scored,
    Scores,
    States,
    decode,
    encode,
)
from cosilo.errors import UnexpectedReplyError
from cosilo.types import Delta, Generation, Sampling, ToolCall, Turn, assemble, disassemble

TEXT = st.text(max_size=40)
TURNS = st.builds(
    Turn,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT,
    tool_calls=st.lists(st.builds(ToolCall, TEXT, TEXT, TEXT), max_size=2).map(tuple),
)
ASKS = st.builds(
    Ask,
    chat=st.lists(TURNS, max_size=4).map(tuple),
    sampling=st.builds(
        Sampling,
        max_tokens=st.integers(1, 10**6),
        temperature=st.floats(0, 2),
        stop=st.lists(TEXT, max_size=2).map(tuple),
    ),
)


@given(ASKS)
def test_ask_round_trip(ask: Ask) -> None:
    assert decode(encode(ask)) == ask


@given(TEXT, st.integers(0, 10**6), st.floats(0, 1e4))
def test_completion_round_trip(text: str, tokens: int, seconds: float) -> None:
    message = Completion(
        generation=Generation(text, prompt_tokens=tokens, seconds=seconds), epsilon=0.5
    )
    assert decode(encode(message)) == message


@given(
    st.lists(st.builds(Scored, st.lists(TURNS, max_size=3).map(tuple), TEXT), min_size=1).map(tuple)
)
def test_score_round_trip_and_bound(items: tuple[Scored, ...]) -> None:
    score = Score(items=items, top=8, ids=False, pieces=True)
    assert decode(encode(score)) == score
    bound, written = score.tokens_bound()
    said = (t.content for i in items for t in i.chat)
    assert bound >= sum(len(text.encode()) // 2 for text in (*said, *(i.reply for i in items)))
    assert written == 0


@given(st.binary(max_size=40), st.lists(st.lists(st.binary(max_size=4)).map(tuple)).map(tuple))
def test_scores_round_trip(packed: bytes, pieces: tuple[tuple[bytes, ...], ...]) -> None:
    lengths = tuple(map(len, pieces))
    scores = Scores(
        packed=packed,
        lengths=lengths,
        vocabulary="v",
        pieces=pieces,
        spelt=(packed,),
        prompt_tokens=7,
    )
    assert decode(encode(scores)) == scores
    assert scores.usage() == (7, 0)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_clean_refusal(data: bytes) -> None:
    try:
        message = decode(data)
    except UnexpectedReplyError:
        return
    assert isinstance(message, Message)


@given(ASKS)
def test_the_token_bound_holds_for_a_two_byte_tokeniser(ask: Ask) -> None:
    bound, most = ask.tokens_bound()
    assert bound >= sum(len(t.content.encode()) for t in ask.chat) // 2
    assert most == ask.sampling.max_tokens


@given(TEXT, st.lists(st.builds(ToolCall, TEXT, TEXT, TEXT), max_size=3))
def test_one_piece_assembles_to_the_whole(text: str, calls: list[ToolCall]) -> None:
    whole = Generation(text, tool_calls=tuple(calls), prompt_tokens=3, completion_tokens=4)
    assert assemble([disassemble(whole)]) == whole


@given(TEXT, st.lists(st.integers(0, 40), max_size=5))
def test_any_cut_assembles_to_the_whole(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(c for c in cuts if c <= len(text)), len(text)]
    pieces = [Delta(text=text[a:b]) for a, b in itertools.pairwise(edges)]
    assert assemble(pieces).text == text


def test_values_are_frozen() -> None:
    turn = Turn("user", "x")
    try:
        turn.content = "y"  # type: ignore[misc]
    except AttributeError:
        return
    raise AssertionError(f"{msgspec.structs.asdict(turn)} was changed")


@given(st.lists(TEXT, min_size=1).map(tuple), st.none() | st.integers(0, 10**6))
def test_read_round_trip_and_bound(texts: tuple[str, ...], layer: int | None) -> None:
    read = Read(texts=texts, layer=layer)
    assert decode(encode(read)) == read
    assert read.tokens_bound() == (sum(len(t.encode()) + 8 for t in texts), 0)


@given(st.binary(max_size=40), st.integers(0, 10**6))
def test_states_round_trip(packed: bytes, tokens: int) -> None:
    states = States(packed=packed, prompt_tokens=tokens)
    assert decode(encode(states)) == states
    assert states.usage() == (tokens, 0)
