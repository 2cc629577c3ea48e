"""Which values of further fields are nobody's text."""

from __future__ import annotations

import pytest

from cosilo.errors import RejectedError
from cosilo.models.chat.chat_api import request
from cosilo.models.chat.fields import CLOSED, canonical, is_closed, values, written_beside
from cosilo.types import Sampling, user

FITTING = [
    ("presence_penalty", "-1.5"),
    ("top_k", "40"),
    ("min_p", "0.05"),
    ("reasoning_effort", '"high"'),
    ("verbosity", '"low"'),
    ("parallel_tool_calls", "false"),
    ("thinking", '{"type":"enabled","budget_tokens":1024}'),
    ("logit_bias", '{"50256":-100}'),
    ("service_tier", '"flex"'),
]


@pytest.mark.parametrize(("name", "text"), FITTING)
def test_a_number_or_a_known_word_is_nobodys_text(name: str, text: str) -> None:
    assert is_closed(name, text)


@pytest.mark.parametrize("name", sorted(CLOSED))
@pytest.mark.parametrize(
    "text",
    [
        '"Ottilie Katzenstein"',
        '{"Ottilie Katzenstein":1}',
        '["high"]',
        '{"type":"Ottilie Katzenstein"}',
        '{"type":"enabled","for":"Ottilie Katzenstein"}',
        "79927398713000",
        "1e999",
        "",
        "{",
        "\ud800",
        "[" * 5000,
    ],
)
def test_anything_else_is_text_whatever_field_it_stands_in(name: str, text: str) -> None:
    assert not is_closed(name, text)


@pytest.mark.parametrize("name", ["metadata", "user", "chat_template_kwargs", "guided_regex"])
@pytest.mark.parametrize("text", ["1", '"high"', "true", "{}"])
def test_what_no_list_knows_is_text(name: str, text: str) -> None:
    assert not is_closed(name, text)


def test_true_is_no_number() -> None:
    assert not is_closed("top_k", "true")
    assert not is_closed("min_p", "true")


def test_equal_fields_are_written_alike() -> None:
    one = canonical({"b": {"y": 1, "x": [2]}, "a": 1})
    assert one == canonical({"a": 1, "b": {"x": [2], "y": 1}}) == (
        ("a", "1"), ("b", '{"x":[2],"y":1}'),
    )  # fmt: skip
    assert values(one) == {"a": 1, "b": {"x": [2], "y": 1}}


def test_what_a_model_may_write_beside_its_reply() -> None:
    thinking = {"type": "enabled", "budget_tokens": 500}
    assert written_beside(canonical({"thinking": thinking, "top_k": 4})) == 500
    assert written_beside(canonical({"thinking": {"type": "enabled"}, "prediction": "abcd"})) == 6
    assert written_beside(canonical({"thinking": {"budget_tokens": "many"}})) == 0


def test_they_are_sent_with_the_request() -> None:
    sampling = Sampling(fields=canonical({"min_p": 0.25, "reasoning_effort": "low"}))
    body = request(user("q"), sampling, logprobs=False)
    assert (body["min_p"], body["reasoning_effort"]) == (0.25, "low")


@pytest.mark.parametrize(
    "name", ["messages", "max_tokens", "temperature", "model", "stream", "n", "best_of", "tools"]
)
def test_none_takes_the_place_of_what_was_declared(name: str) -> None:
    with pytest.raises(RejectedError, match="no further field"):
        request(user("q"), Sampling(fields=((name, "64"),)), logprobs=False)


def test_one_that_is_no_json_is_refused() -> None:
    with pytest.raises(RejectedError, match="no JSON"):
        request(user("q"), Sampling(fields=(("min_p", "{"),)), logprobs=False)
