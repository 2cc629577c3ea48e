"""However the pieces of an answer are mixed, its events in Anthropic's shape add up to the whole of it,
block after block."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cosilo.gateway.web.dialects.base import Continuation, Envelope
from cosilo.gateway.web.dialects.blocks import MessageEvents, message
from cosilo.types import Delta, ToolCallDelta, assemble

VALUE = st.integers() | st.text(max_size=5)
ARGUMENTS = st.one_of(
    st.dictionaries(st.text(max_size=3), VALUE, max_size=2).map(json.dumps),
    st.sampled_from(["", " {} ", "[1]", "null", "look it up", ' "x"']),
)  # fmt: skip
TEXT = st.text(max_size=4)


def cut(text: str, draw: Any) -> list[str]:
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@st.composite
def deltas(draw: Any) -> list[Delta]:
    """Pieces of texts, thoughts and calls, each call's in order and first with its id and name."""
    waiting: list[list[Delta]] = []
    for index in range(draw(st.integers(0, 3))):
        first, *rest = cut(draw(ARGUMENTS), draw)
        calls = [ToolCallDelta(index, f"c{index}", "f", first)]
        calls += [ToolCallDelta(index, arguments=piece) for piece in rest]
        waiting.append([Delta(tool_calls=(call,)) for call in calls])
    waiting.append([Delta(piece) for piece in draw(st.lists(TEXT, max_size=4))])
    thoughts = draw(st.lists(TEXT, max_size=3))
    waiting.append([Delta(other_texts=(("reasoning_content", piece),)) for piece in thoughts])
    found = []
    while waiting := [pieces for pieces in waiting if pieces]:
        found.append(waiting[draw(st.integers(0, len(waiting) - 1))].pop(0))
    return found


def gathered(blocks: list[dict[str, Any]]) -> tuple[str, str, dict[str, Any]]:
    """(text, thoughts, calls by their ids) of a message's blocks."""
    texts = "".join(b["text"] for b in blocks if b["type"] == "text")
    thoughts = "".join(b["thinking"] for b in blocks if b["type"] == "thinking")
    calls = [b for b in blocks if b["type"] == "tool_use"]
    assert len({b["id"] for b in calls}) == len(calls)
    return texts, thoughts, {b["id"]: (b["name"], b["input"]) for b in calls}


@given(deltas())
def test_events_add_up_to_the_whole(pieces: list[Delta]) -> None:
    wanted = Continuation(model="m", chats=(), echo={"thinking": True})
    envelope = Envelope("r", 0, "m", wanted)
    generation = assemble(pieces)
    events = MessageEvents(envelope)
    data = events.first(0) + b"".join(events.piece(0, piece) for piece in pieces)
    data += events.last(0, generation)
    blocks: list[dict[str, Any]] = []
    written: dict[int, str] = {}
    is_open = False
    for line in data.decode().split("\n"):
        if not line.startswith("data: "):
            continue
        event = json.loads(line[6:])
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append(event["content_block"])
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                kind = event["delta"].pop("type")
                if kind == "input_json_delta":
                    before = written.get(event["index"], "")
                    written[event["index"]] = before + event["delta"]["partial_json"]
                elif kind != "signature_delta":
                    [(name, piece)] = event["delta"].items()
                    blocks[-1][name] += piece
            case "content_block_stop":
                assert is_open
                is_open = False
    assert not is_open
    for index, arguments in written.items():
        blocks[index]["input"] = json.loads(arguments)
    whole = json.loads(message(envelope, generation))["content"]
    assert gathered(blocks) == gathered(whole)
