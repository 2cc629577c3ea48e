"""Public suites of hostile JSON and text (JSONTestSuite, the big list of naughty strings): nothing of
them breaks the gateway, and what is valid arrives as it was sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import suites
from cosilo.models.base import Access
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Generation, Sampling
from house import House, house

pytestmark = pytest.mark.shared

HEAD = b'{"model":"cosilo/x","messages":'
CONTENT = HEAD + b'[{"role":"user","content":%s}]}'


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
    return suites.json_files(folder / "suites")


@pytest.mark.parametrize("defended", [False, True])
async def test_no_json_in_place_of_a_content_is_a_failure(
    defended: bool, shared_data: Path, tmp_path: Path
) -> None:
    h, _ = await opened(tmp_path, defended=defended)
    for file in files(shared_data):
        told = await h.send("/v1/chat/completions", CONTENT.replace(b"%s", file.read_bytes()))
        assert told.status == 400 if file.name.startswith("n_") else told.status < 500, file.name


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
@pytest.mark.parametrize("shape", suites.SHAPES)
async def test_json_in_every_shape(
    shape: str, defended: bool, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path if defended else None
    found = await suites.json_in_places(shape, shared_data / "suites", folder)
    assert (found.wrong, found.sent >= 600, found.accepted >= 190) == ([], True, True)


async def test_no_file_is_a_body_of_any_endpoint(shared_data: Path) -> None:
    found = await suites.bodies(shared_data / "suites")
    assert (found.wrong, found.sent, found.accepted) == ([], 5 * 318, 0)


@pytest.mark.parametrize(("defended", "stream"), [(False, False), (True, True)])
@pytest.mark.parametrize("shape", suites.SHAPES)
async def test_any_text_comes_through_every_place_of_every_shape(
    shape: str, defended: bool, stream: bool, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path if defended else None
    found = await suites.strings(shape, shared_data / "suites", folder, streams=(stream,))
    assert (found.wrong, found.sent, found.accepted >= 6 * 515 - 1) == ([], 6 * 515, True)
