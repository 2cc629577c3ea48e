"""Placeholders in tool calls and in streams, and a session from end to end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import ClassVar

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.defences.texts import texts_of
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import (
    Chat,
    Delta,
    Generation,
    TokenLogprob,
    ToolCall,
    Turn,
    assemble,
    user,
)
from scripted_detectors import PEOPLE, Make, Talk, Words, by_characters, echo
from scripted_detectors import make as make


class TestTools:
    ARGUMENTS: ClassVar = r'{"to": "alice@x.org", "text": "Dear \"Alice Brown\",\nbye", "n": 3}'

    def test_arguments_are_hidden_and_stay_json(self, make: Make) -> None:
        call = ToolCall("c1", "mail", self.ARGUMENTS)
        chat = (
            Turn("user", "Write to Alice Brown."),
            Turn("assistant", tool_calls=(call,)),
            Turn("tool", "sent to alice@x.org", tool_call_id="c1", name="mail"),
        )
        talk = Talk(make(PEOPLE), lambda c: Generation("", tool_calls=c[1].tool_calls))
        back = talk.send(chat).tool_calls[0]
        assert json.loads(back.arguments) == json.loads(self.ARGUMENTS)
        sent = talk.model.seen[-1][1].tool_calls[0]
        assert "Alice" not in sent.arguments
        assert "alice" not in sent.arguments
        name = talk.model.seen[-1][0].content.split()[-1].strip(".")
        assert name in json.loads(sent.arguments)["text"]
        assert sent.name == talk.model.seen[-1][2].name == "mail"
        assert "alice" not in talk.model.seen[-1][2].content

    def test_a_value_with_quotes_and_newlines_keeps_arguments_valid(self, make: Make) -> None:
        value = 'Al "the\nfox" \\ Roe'
        words = Words(**{value: "PERSON"})

        def reply(chat: Chat) -> Generation:
            hidden = chat[-1].content.removeprefix("Call ")
            return Generation("", tool_calls=(ToolCall("1", "call", f'{{"who": "{hidden}"}}'),))

        for size in (1, 3, 7):
            talk = Talk(make(words), reply, by_characters(size))
            whole = talk.send(user(f"Call {value}")).tool_calls[0]
            assert json.loads(whole.arguments) == {"who": value}
            assert assemble(talk.stream(user(f"Call {value}"))).tool_calls[0] == whole

    def test_a_card_number_given_as_a_number_is_hidden(self, make: Make) -> None:
        call = ToolCall("c1", "pay", '{"card": 4111111111111111, "cents": 250}')
        chat = (
            Turn("user", "Pay with 4111 1111 1111 1111"),
            Turn("assistant", tool_calls=(call,)),
            Turn("user", "again"),
        )
        talk = Talk(make())
        talk.send(chat)
        sent = json.loads(talk.model.seen[-1][1].tool_calls[0].arguments)
        assert sent["card"].startswith("CARD_")
        assert sent["cents"] == 250

    def test_descriptions_of_tools_are_hidden_and_their_structure_is_not(self, make: Make) -> None:
        tools = json.dumps(
            [
                {
                    "type": "function",
                    "function": {
                        "name": "mail",
                        "description": "Writes as Alice Brown",
                        "parameters": {
                            "type": "object",
                            "properties": {"to": {"type": "string", "enum": ["alice@x.org"]}},
                            "required": ["to"],
                        },
                    },
                }
            ]
        )
        talk = Talk(make(PEOPLE))
        talk.send(user("Hello"), tools=tools)
        sent = talk.model.asked[-1].tools
        function = json.loads(sent)[0]["function"]
        assert "Alice" not in sent
        assert "alice" not in sent
        assert function["name"] == "mail"
        assert function["parameters"]["required"] == ["to"]

    def test_names_that_no_program_could_use_are_data(self, make: Make) -> None:
        people = {"Alice Brown": {"type": "integer"}, "other_people": {"type": "string"}}
        schema = {"type": "object", "properties": people, "required": [*people]}
        more = {"$comment": "", "x-of Alice Brown": 1, "format": "of Alice Brown"}
        function = {"name": "rate Alice Brown", "parameters": {**schema, **more}}
        asked = {"tools": json.dumps([{"type": "function", "function": function}])}

        def reply(chat: Chat) -> Generation:
            hidden = json.loads(talk.model.asked[-1].tools)[0]["function"]
            name = next(iter(hidden["parameters"]["properties"]))
            return Generation("", tool_calls=(ToolCall("1", hidden["name"], f'{{"{name}": 5}}'),))

        for size in (1, 3, 7):
            talk = Talk(make(PEOPLE), reply, by_characters(size))
            whole = talk.send(user("Rate them"), **asked).tool_calls[0]
            sent = json.loads(talk.model.asked[-1].tools)[0]["function"]
            assert "Alice" not in str(sent)
            first, second = sent["parameters"]["required"]
            assert [*sent["parameters"]["properties"]] == [first, "other_people"] == [first, second]
            assert first in sent["name"]
            assert json.loads(whole.arguments) == {"Alice Brown": 5}
            assert whole.name == "rate Alice Brown"
            assert assemble(talk.stream(user("Rate them"), **asked)).tool_calls[0] == whole

    def test_the_tool_that_is_to_be_called_keeps_its_name(self, make: Make) -> None:
        for name, left in (("mail", "mail"), ("alice@x.org", "EMAIL")):
            chosen = json.dumps({"type": "function", "function": {"name": name}})
            talk = Talk(make(Words(**PEOPLE.kinds, mail="PERSON")))
            talk.send(user("Hello"), tool_choice=chosen)
            sent = json.loads(talk.model.asked[-1].tool_choice)
            assert sent["type"] == "function"
            assert sent["function"]["name"].startswith(left)
            talk.send(user("Hello"), tool_choice="auto")
            assert talk.model.asked[-1].tool_choice == "auto"

    def test_data_inside_a_tools_schema_are_hidden_whatever_their_keys(self, make: Make) -> None:
        shape = {
            "name": {"type": "string", "default": {"name": "Alice Brown", "type": "VIP"}},
            "to": {"examples": [{"name": "alice@x.org", "John Roe": 1}], "type": "string"},
        }
        tools = json.dumps([{"function": {"name": "mail", "parameters": {"properties": shape}}}])
        talk = Talk(make(PEOPLE))
        talk.send(user("Hello"), tools=tools)
        sent = talk.model.asked[-1].tools
        assert not [value for value in PEOPLE.kinds if value in sent]
        assert json.loads(sent)[0]["function"]["name"] == "mail"
        assert list(json.loads(sent)[0]["function"]["parameters"]["properties"]) == ["name", "to"]

    def test_ids_of_calls_are_hidden_and_still_name_the_call(self, make: Make) -> None:
        call = ToolCall("look up Alice Brown", "find", "{}")
        chat = (
            Turn("user", "Who is it?"),
            Turn("assistant", tool_calls=(call,)),
            Turn("tool", "found", tool_call_id=call.id, name="find"),
        )
        talk = Talk(make(PEOPLE), lambda c: Generation("x"))
        talk.send(chat)
        _, asked, answered = talk.model.seen[-1]
        assert "Alice" not in asked.tool_calls[0].id
        assert asked.tool_calls[0].id == answered.tool_call_id

    def test_long_arguments_are_walked_in_one_pass(self, make: Make) -> None:
        def seconds(keys: int) -> float:
            call = ToolCall("1", "f", json.dumps({f"k{i}": "v" for i in range(keys)}))
            ask = Ask(chat=(Turn("assistant", tool_calls=(call,)),))
            started = time.thread_time()
            texts_of(ask, public_system=False)
            return time.thread_time() - started

        seconds(100)
        assert seconds(80_000) < 40 * seconds(4_000)


class TestStreams:
    def test_pieces_come_as_they_can_and_hold_back_only_what_may_be_a_placeholder(
        self, make: Make
    ) -> None:
        talk = Talk(make(PEOPLE), echo, by_characters(1))
        pieces = talk.stream(user("Pay Alice Brown now."))
        texts = [d.text for d in pieces if d.text]
        assert "".join(texts) == "Pay Alice Brown now."
        # The whole name at once, with the sign after it: it tells whether this is the name of a host.
        assert "Alice Brown " in texts
        assert texts[-4:] == ["n", "o", "w", "."]  # and the rest letter by letter
        assert pieces[-1].finish_reason == "stop"
        assert pieces[-1].completion_tokens == 7

    @pytest.mark.parametrize("text", ["Alice Brown called", "yes"])
    def test_with_choices_the_pieces_still_add_up_to_the_whole(self, make: Make, text: str) -> None:
        talk = Talk(make(PEOPLE))
        pieces = talk.stream(user(text), choices=("yes", "no"))
        assert assemble(pieces).text == talk.send(user(text), choices=("yes", "no")).text == text
        assert pieces[-1].finish_reason == "stop"

    def test_what_is_held_at_the_end_is_let_go(self, make: Make) -> None:
        talk = Talk(make(PEOPLE), lambda c: Generation(f"{c[-1].content} PERSON_"))
        whole = "".join(d.text for d in talk.stream(user("Alice Brown")))
        assert whole == "Alice Brown PERSON_"

    def test_a_stream_that_is_cut_gives_what_it_had(self, make: Make) -> None:
        def cut(generation: Generation) -> Sequence[Delta]:
            return [Delta(text=generation.text[:9])]

        text = "Pay Alice Brown now."
        pieces = Talk(make(PEOPLE), echo, cut).stream(user(text))
        assert "".join(d.text for d in pieces).startswith("Pay PERSO")

    def test_tokens_of_a_placeholder_become_one(self, make: Make) -> None:
        def reply(chat: Chat) -> Generation:
            text = chat[-1].content
            tokens = tuple(TokenLogprob(text[i : i + 4], -0.5) for i in range(0, len(text), 4))
            return Generation(text, tokens=tokens)

        def cut(generation: Generation) -> Sequence[Delta]:
            return [Delta(text=t.token, tokens=(t,)) for t in generation.tokens]

        talk = Talk(make(PEOPLE), reply, cut)
        whole = talk.send(user("Now pay Alice Brown, please."))
        assert "".join(t.token for t in whole.tokens) == whole.text
        assert whole.logprob == -0.5 * len(reply(talk.model.seen[-1]).tokens)
        merged = [t for t in whole.tokens if "Alice Brown" in t.token]
        assert len(merged) == 1
        streamed = assemble(talk.stream(user("Now pay Alice Brown, please.")))
        assert streamed.tokens == whole.tokens


class TestScripted:
    @pytest.mark.parametrize("half", [r"\ud800", r"x \udfff y", r"\ud800\ud800"])
    def test_half_a_character_in_arguments_is_no_failure(self, make: Make, half: str) -> None:
        written = '{"a": "jane.doe@example.com ' + half + '"}'
        call = ToolCall("c", "f", written)
        talk = Talk(
            Pseudonym(key_file=make()._key_file),
            lambda c: Generation("", tool_calls=c[-1].tool_calls),
        )
        back = talk.send((*user("hi"), Turn("assistant", tool_calls=(call,))))
        assert json.loads(back.tool_calls[0].arguments) == json.loads(written)
        assert "jane" not in talk.model.seen[-1][-1].tool_calls[0].arguments

    def test_the_default_model_sees_no_email(self, make: Make) -> None:
        model = ScriptedModel()
        boundary = Boundary(InProcess(LMOwner(model)), declared=frozenset({Ask}), guards=[make()])
        text = "Mail jane.roe@example.org or call 212-555-0142."
        reply = asyncio.run(boundary.send(Ask(chat=user(text))))
        assert reply.generation.text == text
        assert "jane" not in model.seen[0][0].content
        assert "212" not in model.seen[0][0].content
