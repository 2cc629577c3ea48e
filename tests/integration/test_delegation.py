"""`rewrite` and `sketch` as a client of a gateway meets them: OpenAI's own library, a real process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.integration.gateway import Gateway, Mock, mocking, serving, upstream

ASKED = "Tell jane.roe@example.org that her cat died."
# By the longest key: the task of asking, then the finishing, then the question itself.
SMALL = """
[models.sm]
kind = "scripted"
[models.sm.replies]
"Rewrite the request below" = "How is a loss told?"
"Say in one sentence what kind of text or answer is wanted below" = "Write about a loss."
"Somebody who does not know the details was asked in general" = "Dear Jane, it died."
"Follow this outline, and fill in the details of the request above" = "Dear Jane, along the lines."
"""
POINTS = """
[defences.hide]
kind = "pseudonym"
detectors = ["patterns"]
[[points]]
name = "rewrite"
strategy = "rewrite"
large = "lm"
small = "sm"
defences = ["hide"]
[[points]]
name = "sketch"
strategy = "sketch"
large = "lm"
small = "sm"
[[points]]
name = "stubborn"
strategy = "rewrite"
large = "lm"
small = "echo"
[models.echo]
kind = "scripted"
name = "echo"
"""


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(mock: Mock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = upstream("lm", mock, "echo") + SMALL + POINTS
    with serving(tmp_path_factory.mktemp("gateway"), config) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway, mock: Mock) -> Iterator[openai.OpenAI]:
    mock.reset()
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, model: str, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": ASKED}]
    return client.chat.completions.create(model=f"cosilo/{model}", messages=messages, **fields)


@pytest.mark.parametrize(
    ("point", "question", "answer"),
    [
        ("rewrite", "How is a loss told?", "Dear Jane, it died."),
        ("sketch", "Write about a loss.", "Dear Jane, along the lines."),
    ],
)
def test_only_what_was_written_for_it_reaches_the_lm(
    client: openai.OpenAI, mock: Mock, point: str, question: str, answer: str
) -> None:
    whole = ask(client, point)
    pieces = [c.choices[0].delta.content for c in ask(client, point, stream=True) if c.choices]
    said = [piece for piece in pieces if piece]
    assert whole.choices[0].message.content == "".join(said) == answer
    assert len(said) > 1
    bodies = mock.seen()["bodies"]
    assert len(bodies) == 2
    for body in bodies:
        (message,) = json.loads(body)["messages"]
        assert message["content"].startswith(question)
        assert "jane" not in body
        assert "cat" not in body


def test_a_small_model_that_repeats_what_it_is_told_sends_nothing(
    client: openai.OpenAI, mock: Mock
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, "stubborn")
    assert caught.value.status_code == 503
    assert "jane" not in str(caught.value)
    assert mock.seen()["requests"] == 0
