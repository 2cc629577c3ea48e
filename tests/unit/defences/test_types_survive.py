"""Numbers stay numbers and escapes escapes, wherever JSON stands (cases 02, 03 and 04, f_schema)."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.types import Chat, Generation, ToolCall, Turn, user
from scripted_detectors import Make, Talk, Words, by_characters
from scripted_detectors import make as make

CODE = r"[A-Z]+_[a-z2-7]{6}"
PRIVATE = {
    "12345678": "ID",
    "49301234.5": "PHONE",
    "Jürgen Groß": "PERSON",
    'Al "x"\nRoe': "PERSON",
}
FOUND = Words(**PRIVATE)


def both(make: Make, chat: Chat, reply: Any = None, **sampling: Any) -> tuple[Generation, Talk]:
    """The reply, the same whole and in pieces, and what was asked."""
    talk = Talk(make(FOUND), reply or (lambda c: Generation(c[-1].content)), by_characters(1))
    whole = talk.send(chat, **sampling)
    for size in (1, 2, 5):
        talk.model.cut = by_characters(size)
        pieces = talk.stream(chat, **sampling)
        assert "".join(d.text for d in pieces) == whole.text
        arguments = "".join(c.arguments for d in pieces for c in d.tool_calls)
        assert arguments == "".join(c.arguments for c in whole.tool_calls)
    return whole, talk


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            '{"id": 12345678, "n": 7}', '{"id":12345678}', '[12345678, 1]', '[null, 12345678]',
            '[[1, 12345678], [true, 49301234.5]]', 'As asked: {"id": -12345678} is it.',
            '```json\n{\n  "id": 12345678,\n  "of": [1, 49301234.5]\n}\n```',
            '{"body": "{\\"id\\": 12345678}"}', '{"a": "{\\"b\\": \\"[12345678]\\"}"}',
            '{"id": 12345678}\n{"id": 1}\n', '{"n": 12345678e0, "m": 1}',
        ],
    )  # fmt: skip
    def test_json_with_a_hidden_number_is_json_and_comes_back(self, make: Make, text: str) -> None:
        reply, talk = both(make, user(text))
        assert reply.text == text
        seen = talk.seen
        assert "12345678" not in seen
        start = min(i for i in map(seen.find, "{[") if i >= 0)
        json.JSONDecoder().raw_decode(seen[start:])

    @pytest.mark.parametrize(
        "text",
        [
            "id,n\n12345678,7\n", "id;n\n12345678;7", "id: 12345678\nn: 7\n", "- 12345678\n- 7\n",
            "see [12345678](https://x.example) and [12345678]", "f(12345678, [x, 12345678])",
            "INSERT INTO t VALUES (12345678, 'x')", "<id>12345678</id>", "{id: 12345678}",
            '{"cut": 12345678, "off', "x = [12345678, and more",
        ],
    )  # fmt: skip
    def test_other_forms_come_back_too(self, make: Make, text: str) -> None:
        reply, talk = both(make, user(text))
        assert reply.text == text
        assert "12345678" not in talk.seen

    def test_a_value_of_both_types_has_the_one_of_its_key(self, make: Make) -> None:
        text = '{"id": 12345678, "phone": "12345678", "of": [12345678]}'
        assert both(make, user(text))[0].text == text

    def test_a_number_written_by_the_model_is_one_where_the_history_has_one(
        self, make: Make
    ) -> None:
        def reply(chat: Chat) -> Generation:
            shown = re.findall(CODE, chat[-1].content)[0]
            return Generation(f'New: {{"id": "{shown}", "text": "about {shown}"}}')

        chat = user('{"id": 12345678}')
        assert both(make, chat, reply)[0].text == 'New: {"id": 12345678, "text": "about 12345678"}'

    def test_a_detectors_process_tells_which_values_were_numbers(self, tmp_path: Path) -> None:
        defence = Pseudonym(detectors=("patterns",), key_file=tmp_path / "key", apart=True)
        text = '{"card": 4111111111111111, "see": "https://crm.example/?c=4111111111111111"}'
        talk = Talk(defence)

        async def run() -> str:
            try:
                reply = await talk.boundary.bind("r").send(Ask(chat=user(text)))
                return reply.generation.text
            finally:
                await defence.close()

        assert asyncio.run(run()) == text
        assert "4111" not in talk.seen


class TestReplies:
    @pytest.mark.parametrize(
        ("kind", "due"),
        [
            ({"type": "integer"}, 12345678), ({"type": "number"}, 12345678),
            ({"type": ["integer", "null"]}, 12345678), ({"type": "string"}, "12345678"),
            ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 12345678),
            ({"$ref": "#/$defs/id"}, 12345678), ({}, "12345678"),
        ],
    )  # fmt: skip
    def test_structured_output_has_the_types_of_its_schema(
        self, make: Make, kind: Any, due: Any
    ) -> None:
        schema = {
            "type": "object",
            "$defs": {"id": {"type": "integer"}},
            "properties": {"id": kind, "all": {"type": "array", "items": kind}},
        }
        form = json.dumps({"type": "json_schema", "json_schema": {"name": "o", "schema": schema}})

        def reply(chat: Chat) -> Generation:
            shown = re.findall(CODE, chat[-1].content)[0]
            return Generation(json.dumps({"id": shown, "all": [shown]}))

        text = both(make, user("Customer 12345678"), reply, response_format=form)[0].text
        assert json.loads(text) == {"id": due, "all": [due]}

    @pytest.mark.parametrize("value", [v for v in PRIVATE if not v[0].isdigit()])
    @pytest.mark.parametrize("form", ['{"type": "json_object"}', '{"type": "json_schema"}', ""])
    def test_what_json_escapes_is_escaped(self, make: Make, value: str, form: str) -> None:
        def reply(chat: Chat) -> Generation:
            return Generation(json.dumps({"a": re.findall(CODE, chat[-1].content)[0]}))

        text = both(make, user(f"Ship to {value}"), reply, response_format=form)[0].text
        assert json.loads(text) == {"a": value}

    def test_a_nested_number_in_arguments_comes_back_as_one(self, make: Make) -> None:
        arguments = json.dumps({"body": json.dumps({"id": 12345678, "of": [12345678]}), "n": 1})
        call = ToolCall("c", "post", arguments)
        chat = (*user("go"), Turn("assistant", tool_calls=(call,)), *user("again"))
        reply, talk = both(
            make, chat, lambda c: Generation("", tool_calls=c[1].tool_calls)
        )  # fmt: skip
        assert reply.tool_calls[0].arguments == arguments
        seen = json.loads(json.loads(talk.model.seen[-1][1].tool_calls[0].arguments)["body"])
        assert isinstance(seen["id"], str)
        assert seen["of"] == [seen["id"]]


class TestSchemas:
    NODE: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 12345678, "enum": [12345678], "const": 12345678},
            "who": {
                "enum": ["Jürgen Groß", "x"], "default": "Jürgen Groß", "examples": ["Jürgen Groß"],
            },
            "n": {"maxLength": 12345678, "multipleOf": 12345678, "minItems": 12345678},
        },
    }  # fmt: skip

    def test_numeric_keywords_stay_and_what_they_say_of_people_does_not(self, make: Make) -> None:
        tools = [{"type": "function", "function": {"name": "f", "parameters": self.NODE}}]
        form = {"type": "json_schema", "json_schema": {"name": "f", "schema": self.NODE}}

        def reply(chat: Chat) -> Generation:
            return Generation("ok")

        _, talk = both(
            make, user("hi"), reply, tools=json.dumps(tools), response_format=json.dumps(form)
        )  # fmt: skip
        asked = talk.model.asked[-1]
        sent = [
            json.loads(asked.tools)[0]["function"]["parameters"]["properties"],
            json.loads(asked.response_format)["json_schema"]["schema"]["properties"],
        ]
        for properties in sent:
            assert properties["id"] == self.NODE["properties"]["id"]
            assert properties["n"] == self.NODE["properties"]["n"]
            shown = properties["who"]["default"]
            assert properties["who"] == {
                "enum": [shown, "x"],
                "default": shown,
                "examples": [shown],
            }
            assert re.fullmatch(CODE, shown)

    def test_an_argument_of_an_enumeration_comes_back(self, make: Make) -> None:
        tools = [{"type": "function", "function": {"name": "f", "parameters": self.NODE}}]

        def reply(chat: Chat) -> Generation:
            shown = talk.model.asked[-1].tools
            who = json.loads(shown)[0]["function"]["parameters"]["properties"]["who"]["enum"][0]
            return Generation("", tool_calls=(ToolCall("c", "f", json.dumps({"who": who})),))

        talk = Talk(make(FOUND), reply)
        call = talk.send(user("hi"), tools=json.dumps(tools)).tool_calls[0]
        assert json.loads(call.arguments) == {"who": "Jürgen Groß"}
