"""`ensemble` and `automix` as a client of a gateway meets them: OpenAI's own library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.integration.gateway import Gateway, Mock, mocking, serving, upstream

SMALL = """
[models.sm]
kind = "scripted"
confidence = 0.9
[models.sm.replies]
"a sure thing" = "From home."
"a doubtful thing" = "From home, perhaps."
"""
POINTS = """
[[points]]
name = "votes"
strategy = "ensemble"
large = ["one", "two"]
small = "sm"
sure = 0.6
[[points]]
name = "one-down"
strategy = "ensemble"
large = ["one", "down"]
small = "sm"
missing = 1
[[points]]
name = "both-or-none"
strategy = "ensemble"
large = ["one", "down"]
small = "sm"
[[points]]
name = "checked"
strategy = "automix"
large = "one"
small = "judge"
threshold = 0.5
[models.judge]
kind = "scripted"
[models.judge.replies]
"a sure thing" = "From home."
"a doubtful thing" = "From home, perhaps."
"Is this answer to the request above right" = "yes"
[[points]]
name = "doubted"
strategy = "automix"
large = "one"
small = "critic"
threshold = 0.5
[models.critic]
kind = "scripted"
[models.critic.replies]
"a sure thing" = "From home."
"Is this answer to the request above right" = "no"
"""


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(mock: Mock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = upstream("one", mock, "echo") + upstream("two", mock, "ok")
    config += upstream("down", mock, "500", retries=0) + SMALL + POINTS
    with serving(tmp_path_factory.mktemp("gateway"), config) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway, mock: Mock) -> Iterator[openai.OpenAI]:
    mock.reset()
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, model: str, text: str = "a sure thing", **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    made = client.chat.completions.with_raw_response
    return made.create(model=f"cosilo/{model}", messages=messages, **fields)


def test_who_disagree_give_no_answer_and_the_client_is_told(
    client: openai.OpenAI, mock: Mock
) -> None:
    told = ask(client, "votes")
    assert told.headers["x-cosilo-abstained"] == "true"
    (choice,) = told.parse().choices
    assert not choice.message.content
    assert choice.finish_reason == "content_filter"
    assert mock.seen()["requests"] == 2


def test_one_of_several_may_be_down_where_that_is_allowed(client: openai.OpenAI) -> None:
    told = ask(client, "one-down", "hello")
    assert told.parse().choices[0].message.content == "hello"
    assert "x-cosilo-abstained" not in told.headers
    with pytest.raises(openai.APIStatusError):
        ask(client, "both-or-none", "hello")


def test_what_the_check_finds_right_stays_at_home(client: openai.OpenAI, mock: Mock) -> None:
    told = ask(client, "checked")
    assert told.parse().choices[0].message.content == "From home."
    assert told.headers["x-cosilo-by"] == "small"
    assert mock.seen()["requests"] == 0


def test_what_the_check_doubts_is_asked_and_streams(client: openai.OpenAI, mock: Mock) -> None:
    assert ask(client, "doubted").parse().choices[0].message.content == "a sure thing"
    messages: Any = [{"role": "user", "content": "a sure thing"}]
    stream = client.chat.completions.create(model="cosilo/doubted", messages=messages, stream=True)
    pieces = [c.choices[0].delta.content for c in stream if c.choices]
    assert "".join(piece for piece in pieces if piece) == "a sure thing"
    assert mock.seen()["requests"] == 2
