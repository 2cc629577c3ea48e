"""A private value in a name that programs use is replaced wherever that name stands, and comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cosilo.types import Chat, Generation, ToolCall, Turn, assemble, user
from scripted_detectors import Make, Talk, Words, by_characters
from scripted_detectors import make as make

KEY = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
CARD, IBAN, SSN = "4111111111111111", "DE89370400440532013000", "536-22-8145"
PRIVATE = (KEY, CARD, IBAN, SSN, "Kowalska", "kowalska")
PARAMETERS: dict[str, Any] = {
    "$id": f"https://schemas.example/{KEY}",
    "$defs": {KEY: {"type": "integer", "minimum": 3, "maximum": 4111111111111111}},
    "definitions": {"a": {"$anchor": f"a-{KEY}"}},
    "type": "object",
    "properties": {
        KEY: {"$ref": f"#/$defs/{KEY}"},
        f"card_{CARD}": {"type": "string", "pattern": f"^{KEY}|x{{2,3}}$", "maxLength": 40},
        f"iban_{IBAN}": {"type": "number"},
        f"ssn_{SSN}": {"type": "string", "format": "date-time"},
        "kowalska_note": {"type": "string"},
        "getKowalskaReport": {"type": "boolean"},
        "amount": {"type": "number"},
    },
    "required": [KEY, "kowalska_note", "amount"],
    "patternProperties": {f"^{KEY}$": {"type": "string"}},
}
NAME = f"{KEY}__find"
TOOLS = json.dumps([{"type": "function", "function": {"name": NAME, "parameters": PARAMETERS}}])
ARGUMENTS = json.dumps({KEY: 7, "kowalska_note": "a", "amount": 1.5, f"card_{CARD}": "b"})


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def echoed(chat: Chat) -> Generation:
    return Generation("", tool_calls=chat[1].tool_calls)


CHAT = (
    *user("I am Maria Kowalska."),
    Turn("assistant", tool_calls=(ToolCall("c", NAME, ARGUMENTS),)),
    Turn("tool", "done", tool_call_id="c", name=NAME),
)
CHOICE = json.dumps({"type": "function", "function": {"name": NAME}})


def test_no_value_leaves_in_one_and_the_schema_says_the_same(make: Make) -> None:
    talk = Talk(make(Words(**{"Maria Kowalska": "PERSON"})), echoed)
    reply = talk.send(CHAT, tools=TOOLS, tool_choice=CHOICE)
    asked, (_, called, result) = talk.model.asked[-1], talk.model.seen[-1]
    sent = called.tool_calls[0]
    for text in (asked.tools, asked.tool_choice, sent.name, sent.arguments, result.name):
        told = text.replace(str(PARAMETERS["$defs"][KEY]["maximum"]), "")  # a bound is no name
        assert not [value for value in PRIVATE if value in told]
    function = json.loads(asked.tools)[0]["function"]
    schema = function["parameters"]
    name = next(iter(schema["$defs"]))
    assert schema["properties"][name] == {"$ref": f"#/$defs/{name}"}
    assert name in schema["required"]
    assert [*schema["patternProperties"]] == [f"^{name}$"]
    assert schema["$id"].endswith(name)
    assert [*schema["properties"].values()][3] == {
        "type": "string", "format": "date-time",
    }  # fmt: skip
    assert numbers(schema) == numbers(PARAMETERS)
    assert {*json.loads(sent.arguments)} <= {*schema["properties"]}
    assert sent.name == result.name == function["name"] == f"{name}__find"
    assert json.loads(asked.tool_choice)["function"]["name"] == sent.name
    [back] = reply.tool_calls
    assert (back.name, back.arguments) == (NAME, ARGUMENTS)
    for size in (1, 3, 7):
        talk.model.cut = by_characters(size)
        streamed = assemble(talk.stream(CHAT, tools=TOOLS, tool_choice=CHOICE)).tool_calls
        assert [(c.name, c.arguments) for c in streamed] == [(NAME, ARGUMENTS)]


def test_a_number_under_such_a_name_comes_back_as_one(make: Make) -> None:
    def reply(chat: Chat) -> Generation:
        schema = json.loads(talk.model.asked[-1].tools)[0]["function"]["parameters"]
        key = next(k for k in schema["properties"] if k.startswith("iban_"))
        value = chat[0].content.split()[-1]
        return Generation("", tool_calls=(ToolCall("c", "f", json.dumps({key: value})),))

    tools = TOOLS.replace(NAME, "f")
    talk = Talk(make(Words(**{"99123456": "ID"})), reply)
    [call] = talk.send(user("it is 99123456"), tools=tools).tool_calls
    assert call.arguments == f'{{"iban_{IBAN}": 99123456}}'


def test_names_without_a_value_stay_as_they_are(make: Make) -> None:
    shape = {
        "type": "object",
        "properties": {"user_id": {"type": "string", "pattern": r"^\d{3}-\d{2}$"}},
    }
    function = {"name": "text_editor_20250124", "parameters": shape}
    tools = json.dumps([{"type": "function", "function": function}])
    talk = Talk(make(), lambda chat: Generation("ok"))
    talk.send(user("hello"), tools=tools)
    assert talk.model.asked[-1].tools == tools


def test_the_reply_to_a_form_has_its_own_names_again(make: Make) -> None:
    form = {"type": "object", "properties": {KEY: {"type": "string"}}, "required": [KEY]}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": form}}

    def reply(chat: Chat) -> Generation:
        schema = json.loads(talk.model.asked[-1].response_format)["json_schema"]["schema"]
        return Generation(json.dumps(dict.fromkeys(schema["required"], "x")))

    talk = Talk(make(), reply)
    said = talk.send(user("hello"), response_format=json.dumps(asked)).text
    assert json.loads(said) == {KEY: "x"}
    assert KEY not in talk.model.asked[-1].response_format


@pytest.mark.parametrize("name", ["a\0b", "a\n\0\nb", ""])
def test_no_name_is_taken_for_two(make: Make, name: str) -> None:
    shape = {"type": "object", "$defs": {name: {}, KEY: {}}}
    tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": shape}}])
    talk = Talk(make(), lambda chat: Generation("ok"))
    talk.send(user("hello"), tools=tools)
    sent = json.loads(talk.model.asked[-1].tools)[0]["function"]["parameters"]["$defs"]
    assert next(iter(sent)) == name
    assert KEY not in sent
    assert len(sent) == 2
