"""An agent's whole conversation: one value is one in definitions, calls, results, parts and names, and
what the model calls comes back with its values and types."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Delta, Generation, Sampling, ToolCall, ToolCallDelta
from house import House, Reply, house

MAIL, ACCOUNT, OTHER = "maud.ottokar@example.org", 4111111111111111, "rolf.amsel@example.org"
CODE = r"[A-Z]+_[a-z2-7]{6}"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": f"Looks a customer up, such as {MAIL}.",
            "parameters": {
                "type": "object",
                "properties": {
                    "mail": {"type": "string", "enum": [MAIL, OTHER], "default": MAIL,
                             "examples": [OTHER]},
                    "account": {"type": "integer", "minimum": 1000000000000000},
                },
                "required": ["mail"],
            },
        },
    },
    {"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}},
]  # fmt: skip


class Agent(ScriptedModel):
    """Looks the first customer of the tools up, and notes what the last result says."""

    def __init__(self) -> None:
        super().__init__({})
        self.seen: list[tuple[Chat, Sampling]] = []

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.seen.append((chat, sampling))
        mail = json.loads(sampling.tools)[0]["function"]["parameters"]["properties"]["mail"]
        last = chat[-1]
        if last.role == "tool":
            account = json.loads(last.content)["account"]
            note = {
                "of": mail["default"],
                "n": account,
                "text": f"{account} is {mail['default']}'s",
            }
            return Generation(
                "Noted.",
                tool_calls=(
                    ToolCall("c2", "note", json.dumps(note)),
                    ToolCall("c3", "look_up", json.dumps({"mail": mail["enum"][1]})),
                ),
                finish_reason="tool_calls",
            )
        found = {"mail": mail["default"]}
        return Generation(
            "",
            tool_calls=(ToolCall("c1", "look_up", json.dumps(found)),),
            finish_reason="tool_calls",
        )

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        whole = await self.generate(chat, sampling)
        for number, call in enumerate(whole.tool_calls):
            yield Delta(tool_calls=(ToolCallDelta(number, call.id, call.name),))
        for at in range(max(len(call.arguments) for call in whole.tool_calls)):
            for number, call in enumerate(whole.tool_calls):  # interleaved, letter by letter
                yield Delta(
                    tool_calls=(ToolCallDelta(number, arguments=call.arguments[at : at + 1]),)
                )
        yield Delta(finish_reason=whole.finish_reason)

    @property
    def sent(self) -> str:
        chat, sampling = self.seen[-1]
        said = [t.content + t.name + "".join(c.arguments for c in t.tool_calls) for t in chat]
        return "\n".join((*said, sampling.tools, sampling.response_format))


async def opened(folder: Path, agent: Agent) -> House:
    given = {
        "detectors": ["patterns"], "conversation": "first-turn", "key_file": str(folder / "key"),
    }  # fmt: skip
    return await house(large=[agent], around=(DefenceConfig("hide", "pseudonym", given),))


def calls_of(reply: Reply, *, stream: bool) -> list[tuple[str, Any]]:
    if not stream:
        message = reply.json["choices"][0]["message"]
        found = [(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]
    else:
        pieces: dict[int, list[str]] = {}
        for event in reply.events:
            for choice in event["choices"]:
                for call in choice["delta"].get("tool_calls", []):
                    one = pieces.setdefault(call["index"], ["", ""])
                    one[0] += call["function"].get("name", "")
                    one[1] += call["function"].get("arguments", "")
        found = [(name, arguments) for _, (name, arguments) in sorted(pieces.items())]
    return [(name, json.loads(arguments)) for name, arguments in found]


@pytest.mark.parametrize("stream", [False, True])
async def test_one_value_is_one_over_all_of_a_conversation(tmp_path: Path, stream: bool) -> None:
    agent = Agent()
    h = await opened(tmp_path, agent)
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": f"You work for {MAIL}."},
        {"role": "user", "name": "amsel", "content": [
            {"type": "text", "text": "Look it up: "}, {"type": "text", "text": f"{MAIL}."}]},
    ]  # fmt: skip
    ask = {"model": "cosilo/x", "tools": TOOLS, "stream": stream, "parallel_tool_calls": True}
    first = await h.send("/v1/chat/completions", {**ask, "messages": messages})
    assert first.status == 200
    assert calls_of(first, stream=stream) == [("look_up", {"mail": MAIL})]
    shown = set(re.findall(r"EMAIL_[a-z2-7]{6}", agent.sent))
    assert len(shown) == 2  # two addresses, wherever they stand
    called = {"name": "look_up", "arguments": json.dumps({"mail": MAIL})}
    messages += [
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "c1", "type": "function", "function": called}]},
        {"role": "tool", "tool_call_id": "c1", "content": json.dumps(
            {"mail": MAIL, "account": ACCOUNT, "others": [OTHER]})},
    ]  # fmt: skip
    second = await h.send("/v1/chat/completions", {**ask, "messages": messages})
    assert second.status == 200
    assert calls_of(second, stream=stream) == [
        ("note", {"of": MAIL, "n": ACCOUNT, "text": f"{ACCOUNT} is {MAIL}'s"}),
        ("look_up", {"mail": OTHER}),
    ]
    assert set(re.findall(r"EMAIL_[a-z2-7]{6}", agent.sent)) == shown
    for value in (MAIL, OTHER, str(ACCOUNT)):
        assert value not in agent.sent
    chat, sampling = agent.seen[-1]
    assert chat[0].role == "system"
    schema = json.loads(sampling.tools)[0]["function"]["parameters"]["properties"]
    assert schema["account"] == TOOLS[0]["function"]["parameters"]["properties"]["account"]  # type: ignore[index]
    assert schema["mail"]["default"] == schema["mail"]["enum"][0]
    assert isinstance(json.loads(chat[-1].content)["account"], str)
