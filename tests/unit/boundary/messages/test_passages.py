"""What a message says, text by text."""

from __future__ import annotations

import pytest

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Read,
    Score,
    Scored,
    Scores,
    States,
    encode,
)
from cosilo.boundary.messages.passages import JSON, Passage
from cosilo.errors import CapabilityError, PrivacyError
from cosilo.models.base import EVERYTHING, Access, Shows
from cosilo.models.chat.fields import canonical
from cosilo.types import Generation, Sampling, TokenLogprob, ToolCall, Turn, user

CALL = ToolCall("c1", "find", '{"a": 1}', extra='{"s": 2}')
ASK = Ask(
    chat=(
        Turn("system", "be brief"),
        Turn("assistant", "", tool_calls=(CALL,), other_texts=(("refusal", "no"),), extra="{}"),
        Turn("tool", "found", tool_call_id="c1", name="find"),
        Turn("user", "thanks", name="Anna"),
    ),
    sampling=Sampling(
        tools="[1]", response_format="[2]", choices=("yes", "no"), tool_choice="auto", stop=("X",)
    ),
)


def test_each_text_of_a_chat_comes_with_what_it_is_and_who_says_it() -> None:
    assert ASK.passages() == [
        Passage("be brief", "said", "system"),
        Passage("c1", "id", "assistant"),
        Passage("find", "word", "assistant"),
        Passage('{"a": 1}', "arguments", "assistant"),
        Passage('{"s": 2}', "sealed", "assistant"),
        Passage("no", "aside", "assistant"),
        Passage("{}", "sealed", "assistant"),
        Passage("found", "said", "tool"),
        Passage("find", "word", "tool"),
        Passage("c1", "id", "tool"),
        Passage("thanks", "said", "user"),
        Passage("Anna", "name", "user"),
        Passage("[1]", "tools"),
        Passage("[2]", "form"),
        Passage("yes", "label"),
        Passage("no", "label"),
        Passage("auto", "word"),
        Passage("X", "stop"),
    ]
    assert {p.what for p in ASK.passages() if p.text[0] in "[{"} == JSON


def test_each_text_is_replaced_where_it_stands() -> None:
    changed = ASK.with_passages(lambda p: f"<{p.text}>")
    assert [p.text for p in changed.passages()] == [f"<{p.text}>" for p in ASK.passages()]
    assert [(p.what, p.by) for p in changed.passages()] == [(p.what, p.by) for p in ASK.passages()]
    assert encode(ASK.with_passages(lambda p: p.text)) == encode(ASK)


def test_tokens_do_not_spell_a_text_that_was_replaced() -> None:
    said = Completion(generation=Generation("Anna", tokens=(TokenLogprob("Anna", -0.1),)))
    assert said.with_passages(lambda p: p.text) == said
    hidden = said.with_passages(lambda p: "PERSON_x")
    assert (hidden.generation.text, hidden.generation.tokens) == ("PERSON_x", ())


def test_what_is_scored_and_read_is_read_and_not_replaced() -> None:
    score = Score(items=(Scored(user("who", system="s"), "Anna"), Scored(user("x"), "")))
    assert [(p.text, p.by) for p in score.passages()] == [
        ("s", "system"), ("who", "user"), ("Anna", "assistant"), ("x", "user"),
    ]  # fmt: skip
    read = Read(texts=("a", "b"))
    assert read.passages() == [Passage("a"), Passage("b")]
    for message in (score, read):
        with pytest.raises(PrivacyError, match=f"nothing in a {type(message).__name__} can be"):
            message.with_passages(lambda p: "")
    for reply in (Scores(packed=b"x", lengths=(), vocabulary="v"), States(packed=b"x")):
        assert reply.passages() == []


@pytest.mark.parametrize(
    ("message", "shows"),
    [
        (ASK, Shows.TEXT),
        (Ask(chat=user("x"), sampling=Sampling(top_logprobs=1)), Access.LOGPROBS.shows),
        (Score(items=(Scored(user("x"), "y"),)), Shows.LOGITS),
        (Read(texts=("x",)), Shows.STATES),
    ],
)
def test_what_a_request_wants_to_see(message: Message, shows: Shows) -> None:
    assert message.wants() == shows


def test_a_reply_is_shown_without_what_its_owner_does_not_show() -> None:
    said = Completion(generation=Generation("a", tokens=(TokenLogprob("a", -0.1),)))
    assert said.shown(Access.LOGPROBS.shows) == said
    assert said.shown(Shows.TEXT).generation == Generation("a")
    with pytest.raises(CapabilityError, match="a Completion shows text, which is not exposed"):
        said.shown(Shows.STATES)
    states = States(packed=b"x")
    assert states.shown(EVERYTHING) == states
    with pytest.raises(CapabilityError, match="a States shows states, which is not exposed"):
        states.shown(Access.LOGITS.shows)


def test_a_further_field_is_read_unless_it_can_only_be_a_number_or_a_known_word() -> None:
    fields = canonical({
        "top_k": 40, "reasoning_effort": "high", "thinking": {"type": "enabled"},
        "verbosity": "Anna Kern", "metadata": {"for": "Anna Kern"}, "guided_choice": ["yes"],
    })  # fmt: skip
    ask = Ask(chat=user("q"), sampling=Sampling(fields=fields))
    read = [p.text for p in ask.passages() if p.what == "arguments"]
    assert read == ['["yes"]', '{"for":"Anna Kern"}', '"Anna Kern"']
    hidden = ask.with_passages(lambda p: p.text.replace("Anna Kern", "X"))
    assert "Anna Kern" not in str(hidden)
    assert dict(hidden.sampling.fields)["top_k"] == "40"


def test_what_they_may_cost_is_set_aside() -> None:
    plain = Ask(chat=user("q"), sampling=Sampling(max_tokens=9)).tokens_bound()
    more = Sampling(max_tokens=9, fields=canonical({"prediction": {"content": "x" * 100}}))
    bound = Ask(chat=user("q"), sampling=more).tokens_bound()
    assert bound[0] > plain[0] + 100
    assert bound[1] > plain[1] + 100
