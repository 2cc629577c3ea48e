"""OpenAI's own library against the gateway: its examples run, and private values stay at home."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from cosilo.errors import RejectedError, UnreachableError
from cosilo.gateway.accounts.accounts import Key, Limits
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Delta, Generation, Sampling, ToolCall, ToolCallDelta, disassemble
from house import Failing, House, house

NAME = "Ada Lovelace"
KEY = "sk-proj-Ab3dEf6hIj9kLmN0pQrStUvWxYz1234567890abcdefGH"
ASKED = f"Mr. {NAME} uses the key {KEY}."
WEATHER = {
    "name": "weather",
    "description": f"The weather where someone lives. Mr. {NAME} wrote it.",
    "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
}
CHAT_TOOLS: Any = [{"type": "function", "function": WEATHER}]
TOOLS: Any = [{"type": "function", "strict": False, **WEATHER}]


class Agent(ScriptedModel):
    """Calls the first tool it is given twice, and then says what came back; without tools it repeats
    what it was told, as a JSON object where a schema is wanted. It thinks before it speaks.
    """

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[tuple[Chat, Sampling]] = []

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.told.append((chat, sampling))
        last = chat[-1].content
        others = (("reasoning_content", f"I was told: {last}"),)
        calls: tuple[ToolCall, ...] = ()
        text = last
        if sampling.tools and chat[-1].role == "user":
            arguments = json.dumps({"of": last})
            calls = tuple(ToolCall(f"call_{i}", "weather", arguments) for i in range(2))
            text = ""
        elif sampling.response_format:
            text = json.dumps({"said": last, "count": 2})
        return Generation(
            text,
            tool_calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            other_texts=others,
            prompt_tokens=11,
            completion_tokens=5,
        )

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        whole = await self.generate(chat, sampling)
        for name, text in whole.other_texts:
            for piece in cut(text):
                yield Delta(other_texts=((name, piece),))
        for piece in cut(whole.text):
            yield Delta(piece)
        for i, call in enumerate(whole.tool_calls):
            yield Delta(tool_calls=(ToolCallDelta(i, call.id, call.name),))
            for piece in cut(call.arguments):
                yield Delta(tool_calls=(ToolCallDelta(i, arguments=piece),))
        last = disassemble(whole)
        yield Delta(
            finish_reason=last.finish_reason,
            prompt_tokens=last.prompt_tokens,
            completion_tokens=last.completion_tokens,
        )


def cut(text: str) -> list[str]:
    return [text[i : i + 5] for i in range(0, len(text), 5)]


class Said(BaseModel):
    said: str
    count: int


@asynccontextmanager
async def speaking(h: House, key: str = "good") -> AsyncIterator[AsyncOpenAI]:
    wire = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=h.gateway))
    async with AsyncOpenAI(
        base_url="http://gateway/v1", api_key=key, max_retries=0, http_client=wire
    ) as client:
        yield client


@asynccontextmanager
async def private(folder: Path) -> AsyncIterator[tuple[AsyncOpenAI, Agent]]:
    """A client of a point with the pseudonym defence; no model is told the name or the key."""
    agent = Agent()
    options = {
        "detectors": ["patterns"], "conversation": "first-turn", "key_file": str(folder / "key"),
    }  # fmt: skip
    h = await house(large=[agent], around=(DefenceConfig("hide", "pseudonym", options),))
    async with speaking(h) as client:
        yield client, agent
    assert agent.told
    for secret in (*NAME.split(), KEY):
        assert secret not in repr(agent.told)


def weather(arguments: str) -> str:
    """The client's own tool, which is given what the client itself said."""
    assert json.loads(arguments) == {"of": ASKED}
    return f"Sunny for Mr. {NAME}."


# Chat completions.


async def test_a_chat_whole_and_streamed(tmp_path: Path) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": ASKED},
    ]
    async with private(tmp_path) as (client, _):
        whole = await client.chat.completions.create(model="cosilo/x", messages=messages)
        assert whole.choices[0].message.content == ASKED
        stream = await client.chat.completions.create(
            model="cosilo/x", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ASKED
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens == 16


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_chat_calls_tools_in_parallel(streamed: bool, tmp_path: Path) -> None:
    messages: Any = [{"role": "user", "content": ASKED}]
    async with private(tmp_path) as (client, _):
        for _ in range(2):
            asked: Any = {"model": "cosilo/x", "messages": messages, "tools": CHAT_TOOLS}
            if streamed:
                async with client.chat.completions.stream(**asked) as stream:
                    reply: Any = await stream.get_final_completion()
            else:
                reply = await client.chat.completions.create(**asked)
            said = reply.choices[0].message
            messages.append(said.to_dict())
            for call in said.tool_calls or ():
                done = weather(call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": done})
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert messages[-1]["content"] == f"Sunny for Mr. {NAME}."


async def test_a_chat_is_parsed(tmp_path: Path) -> None:
    messages: Any = [{"role": "user", "content": ASKED}]
    async with private(tmp_path) as (client, _):
        reply = await client.chat.completions.parse(
            model="cosilo/x", messages=messages, response_format=Said
        )
        assert reply.choices[0].message.parsed == Said(said=ASKED, count=2)
        async with client.chat.completions.stream(
            model="cosilo/x", messages=messages, response_format=Said
        ) as stream:
            final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Said(said=ASKED, count=2)


async def test_a_text_of_the_older_api(tmp_path: Path) -> None:
    async with private(tmp_path) as (client, _):
        reply = await client.completions.create(model="cosilo/x", prompt=ASKED)
        stream = await client.completions.create(model="cosilo/x", prompt=ASKED, stream=True)
        pieces = [chunk.choices[0].text async for chunk in stream]
    assert reply.choices[0].text == "".join(pieces) == ASKED


# Responses.


async def test_a_response_whole_and_streamed(tmp_path: Path) -> None:
    async with private(tmp_path) as (client, _):
        whole = await client.responses.create(
            model="cosilo/x", instructions=f"Be kind to Mr. {NAME}.", input=ASKED,
            metadata={"about": NAME}, reasoning={"effort": "low"},
        )  # fmt: skip
        stream = await client.responses.create(model="cosilo/x", input=ASKED, stream=True)
        events = [event async for event in stream]
        async with client.responses.stream(model="cosilo/x", input=ASKED) as helped:
            pieces = [e.delta async for e in helped if e.type == "response.output_text.delta"]
            final = await helped.get_final_response()
    assert whole.output_text == ASKED
    assert (whole.instructions, whole.metadata) == (f"Be kind to Mr. {NAME}.", {"about": NAME})
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == ASKED
    thought = "".join(e.delta for e in events if e.type == "response.reasoning_text.delta")
    assert thought == f"I was told: {ASKED}"
    assert "".join(pieces) == final.output_text == ASKED
    for reply in (whole, final):
        assert reply.usage is not None
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == (11, 5)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_calls_tools_in_parallel(streamed: bool, tmp_path: Path) -> None:
    items: Any = [{"role": "user", "content": ASKED}]
    async with private(tmp_path) as (client, agent):
        for _ in range(2):
            asked: Any = {"model": "cosilo/x", "input": items, "tools": TOOLS}
            if streamed:
                async with client.responses.stream(**asked) as stream:
                    reply: Any = await stream.get_final_response()
            else:
                reply = await client.responses.create(**asked)
            items += [item.to_dict() for item in reply.output]
            items += [
                {
                    "type": "function_call_output",
                    "call_id": item.call_id,
                    "output": weather(item.arguments),
                }
                for item in reply.output
                if item.type == "function_call"
            ]
        assert reply.output_text == f"Sunny for Mr. {NAME}."
        [_, (chat, _)] = agent.told
    assert [turn.role for turn in chat] == ["user", "assistant", "tool", "tool"]
    assert [call.id for call in chat[1].tool_calls] == ["call_0", "call_1"]
    assert dict(chat[1].other_texts).keys() == {
        "reasoning_content"
    }  # it is given its thoughts back


async def test_a_response_is_parsed(tmp_path: Path) -> None:
    async with private(tmp_path) as (client, _):
        reply = await client.responses.parse(model="cosilo/x", input=ASKED, text_format=Said)
        assert reply.output_parsed == Said(said=ASKED, count=2)
        async with client.responses.stream(
            model="cosilo/x", input=ASKED, text_format=Said
        ) as stream:
            final = await stream.get_final_response()
        assert final.output_parsed == Said(said=ASKED, count=2)
        tool = openai.pydantic_function_tool(Said)
        chat_tool = tool["function"]
        flat: Any = {"type": "function", **chat_tool}
        calling = await client.responses.parse(model="cosilo/x", input=ASKED, tools=[flat])
    assert [item.type for item in calling.output] == ["reasoning", "function_call", "function_call"]


async def test_a_conversation_that_is_sent_again_keeps_its_placeholders(tmp_path: Path) -> None:
    """`input` grows by what was answered, as OpenAI's guides show it for `store=False`."""
    items: Any = [{"role": "user", "content": ASKED}]
    async with private(tmp_path) as (client, agent):
        for _ in range(3):
            reply = await client.responses.create(model="cosilo/x", input=items, store=False)
            items += [item.to_dict() for item in reply.output]
            items.append({"role": "user", "content": f"And Mr. {NAME}?"})
    first, *_, last = (chat for chat, _ in agent.told)
    assert last[0] == first[0]
    assert {turn.content for turn in last if turn.role == "assistant"} == {
        first[0].content, last[2].content,
    }  # fmt: skip


# Errors.

HI: Any = [{"role": "user", "content": "hi"}]


async def chats(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.chat.completions.create(**{"model": "cosilo/x", "messages": HI, **fields})


async def responds(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.responses.create(**{"model": "cosilo/x", "input": "hi", **fields})


both = pytest.mark.parametrize("ask", [chats, responds])


@both
@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature"),
        ({"model": "cosilo/y"}, openai.NotFoundError, "model"),
        ({"extra_body": {"user": "x" * 20_000}}, openai.APIStatusError, None),
    ],
)
async def test_what_a_client_did_wrong_is_the_right_exception(
    ask: Any, fields: dict[str, Any], kind: type[openai.APIStatusError], param: str | None
) -> None:
    async with speaking(await house()) as client:
        with pytest.raises(kind) as caught:
            await ask(client, **fields)
    assert caught.value.param == param
    assert caught.value.request_id
    assert caught.value.request_id == caught.value.response.headers["x-cosilo-request-id"]


@both
async def test_keys_and_budgets_are_the_right_exceptions(ask: Any) -> None:
    async with speaking(await house(), key="bad") as client:
        with pytest.raises(openai.AuthenticationError):
            await ask(client)
    async with speaking(await house(limits=Limits(usd=0.0))) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
    assert caught.value.code == "insufficient_quota"
    h = await house()
    h.books.keys["good"] = Key(id="k1", name="test", points=("other",))
    async with speaking(h) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await ask(client)


@both
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnreachableError("down"), openai.InternalServerError),
        (RejectedError("no", status=400, code="context_length_exceeded"), openai.BadRequestError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_failed_upstream_is_the_right_exception(
    ask: Any, error: Exception, kind: type[openai.APIStatusError], stream: bool
) -> None:
    async with speaking(await house(large=[Failing(fail=error)])) as client:
        with pytest.raises(kind):
            await ask(client, stream=stream)


async def test_a_stream_that_breaks_is_told_as_openai_tells_it() -> None:
    large = Failing(fail=UnreachableError("the large model is down"))
    large.after = 2
    async with speaking(await house(large=[large])) as client:
        chat = await chats(client, stream=True)
        with pytest.raises(openai.APIError, match="down"):
            _ = [chunk async for chunk in chat]
        *_, error, failed = [event async for event in await responds(client, stream=True)]
        assert (error.type, error.code) == ("error", "upstream_unreachable")
        assert (failed.type, failed.response.status) == ("response.failed", "failed")
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            async with client.responses.stream(model="cosilo/x", input="hi") as stream:
                await stream.get_final_response()


async def test_what_would_have_to_be_kept_is_refused() -> None:
    async with speaking(await house()) as client:
        for fields in (
            {"previous_response_id": "resp_1"},
            {"conversation": "conv_1"},
            {"background": True},
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                await responds(client, **fields)
            assert caught.value.param in fields
        for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError, match="no response is kept"):
                await gone("resp_1")
