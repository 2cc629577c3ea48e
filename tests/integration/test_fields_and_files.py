"""What OpenAI's own library sends beside messages: further fields, files, texts for vectors, and
whether a request may leave at all; through a gateway to an endpoint that keeps what it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from aiohttp import web
from tests.integration.gateway import Gateway, serving, write_config

from cosilo.cli import main
from pdfs import pdf

pytest.importorskip("pypdf", reason="needs the pdf extra")

MAIL = "ada.lovelace@example.org"


class Upstream:
    """Answers chats with a word and texts with vectors, and keeps every body."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.url = ""

    @property
    def last(self) -> dict[str, Any]:
        return self.bodies[-1]

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if body.get("min_p"):
            error = {"message": "Unrecognized request argument supplied: min_p", "type": "bad"}
            return web.json_response({"error": error}, status=400)
        usage = {
            "prompt_tokens": 9, "completion_tokens": 7,
            "completion_tokens_details": {"reasoning_tokens": 4},
        }  # fmt: skip
        choice = {"message": {"content": "Noted."}, "finish_reason": "stop", "index": 0}
        return web.json_response({"choices": [choice], "usage": usage})

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        rows = [np.array([len(text), 1, 0.5], "<f4") for text in body["input"]]
        data = [
            {"index": i, "embedding": base64.b64encode(row.tobytes()).decode()}
            for i, row in enumerate(rows)
        ]
        return web.json_response({"data": data, "usage": {"prompt_tokens": 6, "total_tokens": 6}})


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    found, loop, ready = Upstream(), asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", found.chat)
        app.router.add_post("/v1/embeddings", found.embeddings)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    runner = loop.run_until_complete(start())
    loop.call_soon(ready.set)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    ready.wait()
    yield found
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(runner.cleanup())
    loop.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    program = folder / "ocr.py"
    program.write_text(f"print('Card of {MAIL}')")
    ocr = json.dumps([sys.executable, str(program), "{file}"])
    config = f"""
[models.gpt]
kind = "openai"
base_url = "{upstream.url}"
model = "gpt"
usd_per_m_in = 1.0
usd_per_m_out = 2.0
retries = 0
[models.sm]
kind = "scripted"
replies = {{hello = "from home"}}
[defences.hide]
kind = "pseudonym"
detectors = ["patterns"]
[[points]]
name = "private"
strategy = "large"
large = "gpt"
small = "sm"
embedder = "gpt"
defences = ["hide"]
[points.fields]
chat_template_kwargs = "pass"
metadata = "pass"
[[points]]
name = "home"
strategy = "large"
large = "gpt"
small = "sm"
local_only = true
"""
    write_config(folder, config, more=f"ocr = {ocr}\nfile_seconds = 30")
    with serving(folder, None) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway, upstream: Upstream) -> Iterator[openai.OpenAI]:
    upstream.bodies.clear()
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, content: Any = "hello", **fields: Any) -> Any:
    model = f"cosilo/{fields.pop('point', 'private')}"
    made = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": content}], **fields
    )
    return made.parse(), made.headers


def test_what_the_library_has_a_name_for_arrives(client: openai.OpenAI, upstream: Upstream) -> None:
    reply, headers = ask(
        client, reasoning_effort="low", presence_penalty=0.5, verbosity="low", store=True,
        parallel_tool_calls=False, metadata={"for": MAIL}, user="u1", service_tier="flex",
        extra_body={"top_k": 20, "chat_template_kwargs": {"for": MAIL, "enable_thinking": False}},
    )  # fmt: skip
    assert reply.choices[0].message.content == "Noted."
    assert reply.usage.completion_tokens_details.reasoning_tokens == 4
    sent = upstream.last
    assert {name: sent[name] for name in ("reasoning_effort", "presence_penalty", "top_k")} == {
        "reasoning_effort": "low", "presence_penalty": 0.5, "top_k": 20,
    }  # fmt: skip
    assert (sent["verbosity"], sent["parallel_tool_calls"]) == ("low", False)
    assert sent["chat_template_kwargs"]["enable_thinking"] is False
    assert not {"store", "user", "service_tier"} & sent.keys()
    assert "lovelace" not in json.dumps(sent)
    assert headers["x-cosilo-dropped"] == "service_tier, store"
    assert headers["x-cosilo-processed"] == f"home, gpt at {upstream.url[7:-3]}"


def test_what_the_endpoint_refuses_is_told_as_its_refusal(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body={"min_p": 0.1})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "min_p")
    with pytest.raises(openai.BadRequestError, match="guided_regex") as caught:
        ask(client, extra_body={"guided_regex": "a+"})
    assert caught.value.code == "unknown_parameter"


def test_a_pdf_and_an_image_are_read_at_home(client: openai.OpenAI, upstream: Upstream) -> None:
    letter = base64.b64encode(pdf(f"Dear {MAIL}", "Second page")).decode()
    parts = [
        {"type": "text", "text": "Sum it up."},
        {"type": "file", "file": {
            "file_data": f"data:application/pdf;base64,{letter}", "filename": "letter.pdf",
        }},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]  # fmt: skip
    ask(client, parts)
    said = upstream.last["messages"][0]["content"]
    assert "letter.pdf:\nDear " in said
    assert "Second page" in said
    assert "Card of " in said
    assert "lovelace" not in said
    reply = client.responses.create(
        model="cosilo/private",
        input=[{"role": "user", "content": [
            {"type": "input_text", "text": "Sum it up."},
            {"type": "input_file", "file_data": f"data:application/pdf;base64,{letter}",
             "filename": "letter.pdf"},
        ]}],
    )  # fmt: skip
    assert reply.output_text == "Noted."
    assert "Second page" in json.dumps(upstream.last)


def test_vectors(client: openai.OpenAI, upstream: Upstream, gateway: Gateway) -> None:
    found = client.embeddings.create(model="cosilo/private", input=["one", f"to {MAIL}"])
    assert found.data[0].embedding == [3, 1, 0.5]  # the library asks for base64 by itself
    assert found.usage.prompt_tokens == 6
    plain = client.embeddings.create(
        model="cosilo/private", input="one", encoding_format="float", dimensions=3
    )
    assert plain.data[0].embedding == [3, 1, 0.5]
    assert upstream.last["dimensions"] == 3
    assert "lovelace" not in json.dumps(upstream.bodies)
    row = gateway.rows()[-1]
    assert (row.endpoint, row.spent.tokens_in, row.lm_calls) == ("embeddings", 6, 1)


def test_what_may_not_leave_does_not(
    client: openai.OpenAI, upstream: Upstream, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (
        {"extra_headers": {"x-cosilo-local-only": "true"}},
        {"extra_body": {"cosilo_local_only": True}},
        {"point": "home"},
    ):
        reply, headers = ask(client, **more)
        assert reply.choices[0].message.content == "from home"
        assert headers["x-cosilo-processed"] == "home"
    store = str(gateway.folder / "store")
    assert main(["keys", "create", "ward", "--local-only", "--store", store]) == 0
    ward = client.with_options(api_key=capsys.readouterr().out.strip())
    reply, headers = ask(ward)
    assert (reply.choices[0].message.content, headers["x-cosilo-processed"]) == (
        "from home", "home",
    )  # fmt: skip
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ward.embeddings.create(model="cosilo/private", input="one")
    assert caught.value.code == "local_only"
    assert upstream.bodies == []
    assert main(["audit", "show", store, "--key", "ward"]) == 0
    assert "processed: home\n" in capsys.readouterr().out
