"""Public suites of hostile JSON and text (JSONTestSuite, the big list of naughty strings): nothing of
them breaks the gateway, and what is valid arrives as it was sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosilo.models.base import Access
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Generation, Sampling
from house import House, house

pytestmark = pytest.mark.shared

HEAD = b'{"model":"cosilo/x","messages":'
PLACES = {
    "tool": HEAD + b'[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":'
    b'{"name":"f","parameters":%s}}]}',
    "format": HEAD + b'[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema",'
    b'"json_schema":{"name":"s","schema":%s}}}',
    "content": HEAD + b'[{"role":"user","content":%s}]}',
    "body": b"%s",
}
RESPONSE = b'{"model":"cosilo/x","input":'
RESPONSE_PLACES = {
    "tool": RESPONSE + b'"hi","tools":[{"type":"function","name":"f","parameters":{"x":%s}}]}',
    "format": RESPONSE
    + b'"hi","text":{"format":{"type":"json_schema","name":"s","schema":{"x":%s}}}}',
    "content": RESPONSE + b"%s}",
    "body": b"%s",
}
SHAPES = {"/v1/chat/completions": PLACES, "/v1/responses": RESPONSE_PLACES}


class Endpoint:
    """Keeps the bodies that would be sent, and repeats the last turn."""

    name, access = "lm", Access.TEXT

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._real = OpenAIModel("http://127.0.0.1:9/v1", "m")

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.bodies.append(self._real._body(chat, sampling, stream=False))
        last = chat[-1]
        return Generation(last.content, tool_calls=chat[1].tool_calls if len(chat) > 2 else ())

    async def close(self) -> None: ...


async def opened(tmp_path: Path, *, defended: bool) -> tuple[House, Endpoint]:
    options = {"detectors": ["patterns"], "key_file": str(tmp_path / "key")}
    around = (DefenceConfig("hide", "pseudonym", options),) if defended else ()
    lm = Endpoint()
    h = await house(large=[lm], around=around, sampling=Sampling(max_tokens=8))
    h.gateway.bodies.largest = h.gateway.bodies.together = 1 << 20
    return h, lm


def files(folder: Path) -> list[Path]:
    found = sorted((folder / "suites" / "json_parsing").glob("*.json"))
    assert len(found) == 318
    return found


@pytest.mark.parametrize("defended", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", SHAPES)
async def test_no_json_is_a_failure_and_valid_json_arrives(
    path: str, place: str, defended: bool, shared_data: Path, tmp_path: Path
) -> None:
    h, lm = await opened(tmp_path, defended=defended)
    for file in files(shared_data):
        data = file.read_bytes()
        told = await h.send(path, SHAPES[path][place].replace(b"%s", data))
        assert told.status < 500, file.name
        if file.name.startswith("n_"):
            assert told.status == 400, file.name
        elif file.name.startswith("y_") and place in ("tool", "format"):
            assert told.status == 200, file.name
            json.loads(lm.bodies[-1])
            if not defended:
                assert data.strip() in lm.bodies[-1], file.name
    assert lm.bodies or place in ("body", "content")


@pytest.mark.parametrize("defended", [False, True])
async def test_arguments_of_tool_calls_may_be_any_text(
    defended: bool, shared_data: Path, tmp_path: Path
) -> None:
    h, _ = await opened(tmp_path, defended=defended)
    for file in files(shared_data):
        arguments = file.read_bytes().decode(errors="replace")
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        chat: list[dict[str, Any]] = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": arguments},
        ]
        told = await h.send("/v1/chat/completions", {"model": "cosilo/x", "messages": chat})
        assert told.status == 200, file.name
        message = told.json["choices"][0]["message"]
        assert message["content"] in (arguments, None if arguments == "" else arguments), file.name
        back = message["tool_calls"][0]["function"]["arguments"]
        if file.name.startswith("y_"):
            assert json.loads(back) == json.loads(arguments), file.name
        if not defended:
            assert back == arguments, file.name


@pytest.mark.parametrize("defended", [False, True])
async def test_any_text_is_restored_exactly(
    defended: bool, shared_data: Path, tmp_path: Path
) -> None:
    h, _ = await opened(tmp_path, defended=defended)
    strings = json.loads((shared_data / "suites" / "naughty_strings.json").read_text("utf-8"))
    assert len(strings) == 515
    for number, text in enumerate(strings):
        told = await h.chat(text)
        assert told.status == 200, number
        assert told.json["choices"][0]["message"]["content"] == text, number
