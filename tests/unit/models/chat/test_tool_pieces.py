"""Pieces of streamed tool calls are put together whatever an endpoint leaves out or repeats."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from cosilo.models.chat.chat_api import chunk, completion
from cosilo.models.chat.tool_pieces import ToolPieces
from cosilo.types import ToolCall, assemble

LONDON, UTC = '{"city":"London"}', '{"tz":"UTC"}'
TWO = (ToolCall("c1", "weather", LONDON), ToolCall("c2", "time", UTC))


def call(
    index: int | str | None, id: str | int | None, name: str | None, arguments: Any
) -> dict[str, Any]:
    whole: dict[str, Any] = {"index": index, "id": id, "type": "function"}
    function = {"name": name, "arguments": arguments}
    whole["function"] = {k: v for k, v in function.items() if v is not None}
    return {k: v for k, v in whole.items() if v is not None}


NEW = "call_…"  # an id that was made here

W, T = ("c1", "weather"), ("c2", "time")
CASES: dict[str, tuple[list[list[dict[str, Any]]], tuple[ToolCall, ...]]] = {
    "as OpenAI sends them": (
        [[call(0, *W, "")], [call(0, None, None, LONDON[:8])], [call(0, None, None, LONDON[8:])],
         [call(1, *T, "")], [call(1, None, None, UTC)]], TWO),
    "interleaved": (
        [[call(0, *W, "")], [call(1, *T, "")], [call(0, None, None, LONDON[:8])],
         [call(1, None, None, UTC)], [call(0, None, None, LONDON[8:])]], TWO),
    "no index, whole": ([[call(None, *W, LONDON)], [call(None, *T, UTC)]], TWO),
    "no index, in one chunk": ([[call(None, *W, LONDON), call(None, *T, UTC)]], TWO),
    "all 0": ([[call(0, *W, LONDON)], [call(0, *T, UTC)]], TWO),
    "all 0, split": (
        [[call(0, *W, LONDON[:8])], [call(0, None, None, LONDON[8:])], [call(0, *T, UTC[:3])],
         [call(0, None, None, UTC[3:])]], TWO),
    "no index, split": (
        [[call(None, *W, LONDON[:8])], [call(None, None, None, LONDON[8:])], [call(None, *T, UTC)]],
        TWO),
    "id and name in each chunk": (
        [[call(0, *W, LONDON[:8])], [call(0, *W, LONDON[8:])], [call(1, *T, UTC[:3])],
         [call(1, *T, UTC[3:])]], TWO),
    "the same without index": (
        [[call(None, *W, LONDON[:8])], [call(None, *W, LONDON[8:])], [call(None, *T, UTC)]], TWO),
    "name in each chunk, no id": (
        [[call(0, None, "weather", LONDON[:8])], [call(0, None, "weather", LONDON[8:])]],
        (ToolCall(NEW, "weather", LONDON),)),
    "no ids, one name twice, all 0": (
        [[call(0, None, "time", UTC)], [call(0, None, "time", "{}")]],
        (ToolCall(NEW, "time", UTC), ToolCall(NEW, "time", "{}"))),
    "the name as id, twice": (
        [[call(None, "time", "time", UTC)], [call(None, "time", "time", "{}")]],
        (ToolCall("time", "time", UTC), ToolCall(f"time_{NEW}", "time", "{}"))),
    "one id for all, numbered": (
        [[call(0, "x", "weather", LONDON)], [call(1, "x", "time", UTC)]],
        (ToolCall("x", "weather", LONDON), ToolCall(f"x_{NEW}", "time", UTC))),
    "id first, name later": (
        [[call(0, "c1", None, "")], [call(0, None, "weather", "")], [call(0, None, None, LONDON)]],
        TWO[:1]),
    "name first, id later": (
        [[call(0, None, "weather", "")], [call(0, "c1", None, LONDON)]], TWO[:1]),
    "empty end repeated": ([[call(0, *W, LONDON)], [call(0, *W, "")]], TWO[:1]),
    "the name in pieces": (
        [[call(0, "c1", "wea", "")], [call(0, None, "ther", "")], [call(0, None, None, LONDON)]],
        TWO[:1]),
    "whole calls once more at the end": (
        [[call(0, *W, LONDON[:8])], [call(0, None, None, LONDON[8:])], [call(1, *T, UTC)],
         [call(0, *W, LONDON), call(1, *T, UTC)]], TWO),
    "the number as text": (
        [[call("0", *W, "")], [call("1", *T, "")], [call("0", None, None, LONDON)],
         [call("1", None, None, UTC)]], TWO),
    "a number that is none": ([[call("a", *W, LONDON)], [call("b", *T, UTC)]], TWO),
    "arguments as an object": (
        [[call(0, *W, {"city": "London"})]], (ToolCall("c1", "weather", '{"city": "London"}'),)),
    "ids that are numbers": (
        [[call(0, 1, "weather", LONDON)], [call(1, 2, "time", UTC)]],
        (ToolCall("1", "weather", LONDON), ToolCall("2", "time", UTC))),
    "no ids and no arguments": (
        [[call(0, None, "now", None)], [call(1, None, "here", "")]],
        (ToolCall(NEW, "now", ""), ToolCall(NEW, "here", ""))),
    "no ids, interleaved": (
        [[call(0, None, "weather", LONDON[:8])], [call(1, None, "time", UTC[:3])],
         [call(0, None, None, LONDON[8:])], [call(1, None, None, UTC[3:])]],
        (ToolCall(NEW, "weather", LONDON), ToolCall(NEW, "time", UTC))),
    "an id that comes late": (
        [[call(0, None, "weather", LONDON[:8])], [call(0, "c1", None, LONDON[8:])]],
        (ToolCall(NEW, "weather", LONDON),)),
    "counted from 1": ([[call(1, *W, LONDON)], [call(2, *T, UTC)]], TWO),
}  # fmt: skip


def plain(call: ToolCall) -> ToolCall:
    return msgspec.structs.replace(call, id=re.sub(r"call_[0-9a-f]{24}", NEW, call.id))


@pytest.mark.parametrize("case", CASES)
def test_calls_are_told_apart(case: str) -> None:
    chunks, wanted = CASES[case]
    calls = ToolPieces()
    ends = [{"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}]
    bodies = [{"choices": [{"delta": {"tool_calls": pieces}}]} for pieces in chunks]
    deltas = [chunk(body, calls) for body in [*bodies, *ends]]
    whole = assemble(deltas).tool_calls
    assert tuple(map(plain, whole)) == wanted
    assert len({call.id for call in whole}) == len(whole)
    told = [p for d in deltas for p in d.tool_calls]
    for number, one in enumerate(whole):  # clients glue what they are sent, so it is sent once
        mine = [p for p in told if p.index == number]
        assert "".join(p.id for p in mine) == one.id
        assert [p.id for p in mine if p.id] == [one.id]
        assert "".join(p.name for p in mine) == one.name


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([call(None, None, "time", UTC), call(None, None, "time", UTC)],
         (ToolCall(NEW, "time", UTC), ToolCall(NEW, "time", UTC))),
        ([call(0, "x", "time", UTC), call(0, "x", "weather", LONDON)],
         (ToolCall("x", "time", UTC), ToolCall(f"x_{NEW}", "weather", LONDON))),
        ([call("7", 5, "weather", LONDON)], (ToolCall("5", "weather", LONDON),)),
        ([call(0, *W, LONDON), call(0, *T, UTC)], TWO),
    ],
)  # fmt: skip
def test_calls_of_a_whole_reply_are_told_apart(
    given: list[dict[str, Any]], wanted: tuple[ToolCall, ...]
) -> None:
    reply = completion({"choices": [{"message": {"tool_calls": given}}]})
    assert tuple(map(plain, reply.tool_calls)) == wanted
    assert len({call.id for call in reply.tool_calls}) == len(wanted)
