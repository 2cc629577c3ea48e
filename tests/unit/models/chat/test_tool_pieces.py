"""Pieces of streamed tool calls are put together whatever an endpoint leaves out or repeats."""

from __future__ import annotations

from typing import Any

import pytest

from cosilo.models.chat.chat_api import chunk
from cosilo.models.chat.tool_pieces import ToolPieces
from cosilo.types import ToolCall, assemble

LONDON, UTC = '{"city":"London"}', '{"tz":"UTC"}'
TWO = (ToolCall("c1", "weather", LONDON), ToolCall("c2", "time", UTC))


def call(
    index: int | None, id: str | None, name: str | None, arguments: str | None
) -> dict[str, Any]:
    whole: dict[str, Any] = {"index": index, "id": id, "type": "function"}
    function = {"name": name, "arguments": arguments}
    whole["function"] = {k: v for k, v in function.items() if v is not None}
    return {k: v for k, v in whole.items() if v is not None}


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
        (ToolCall("", "weather", LONDON),)),
    "no ids, one name twice, all 0": (
        [[call(0, None, "time", UTC)], [call(0, None, "time", "{}")]],
        (ToolCall("", "time", UTC), ToolCall("", "time", "{}"))),
    "the name as id, twice": (
        [[call(None, "time", "time", UTC)], [call(None, "time", "time", "{}")]],
        (ToolCall("time", "time", UTC), ToolCall("time", "time", "{}"))),
    "one id for all, numbered": (
        [[call(0, "x", "weather", LONDON)], [call(1, "x", "time", UTC)]],
        (ToolCall("x", "weather", LONDON), ToolCall("x", "time", UTC))),
    "id first, name later": (
        [[call(0, "c1", None, "")], [call(0, None, "weather", "")], [call(0, None, None, LONDON)]],
        TWO[:1]),
    "name first, id later": (
        [[call(0, None, "weather", "")], [call(0, "c1", None, LONDON)]], TWO[:1]),
    "empty end repeated": ([[call(0, *W, LONDON)], [call(0, *W, "")]], TWO[:1]),
    "counted from 1": ([[call(1, *W, LONDON)], [call(2, *T, UTC)]], TWO),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_calls_are_told_apart(case: str) -> None:
    chunks, wanted = CASES[case]
    calls = ToolPieces()
    deltas = [chunk({"choices": [{"delta": {"tool_calls": pieces}}]}, calls) for pieces in chunks]
    assert assemble(deltas).tool_calls == wanted
    told = [p for d in deltas for p in d.tool_calls]
    for number, whole in enumerate(wanted):  # clients glue what they are sent, so it is sent once
        mine = [p for p in told if p.index == number]
        assert "".join(p.id for p in mine) == whole.id
        assert [p.name for p in mine if p.name] == [whole.name]
