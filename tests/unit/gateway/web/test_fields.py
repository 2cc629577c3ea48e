"""Further fields of a request on their way to the large model, or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosilo.errors import UnreachableError
from cosilo.gateway.serving.points import Serving
from cosilo.models.chat.fields import values
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Generation, Sampling
from house import Failing, House, house

MAIL = "ada@lovelace.example"


class Remote(ScriptedModel):
    """Honours every field, and keeps what it was asked with."""

    def __init__(self, *known: str) -> None:
        super().__init__({"hello": "Hello."})
        self.known = known
        self.given: list[dict[str, object]] = []

    def honours(self, field: str) -> bool:
        return not self.known or field in self.known

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.given.append(values(sampling.fields))
        return await super().generate(chat, sampling)


async def hidden(folder: Path, model: Any, fields: dict[str, Any]) -> House:
    options = {"detectors": ["patterns"], "key_file": str(folder / "key")}
    return await house(
        large=[model],
        around=(DefenceConfig("hide", "pseudonym", options),),
        serving=Serving(fields=fields),
    )


async def test_what_an_ordinary_client_sends_reaches_a_model_that_honours_it() -> None:
    model = Remote()
    h = await house(large=[model])
    for stream in (False, True):
        told = await h.chat(
            "hello", reasoning_effort="high", presence_penalty=0.5, top_k=40, store=True, stream=stream,
            metadata={"for": MAIL}, user="u1", logit_bias={}, verbosity="medium",
        )  # fmt: skip
        assert told.status == 200
        assert told.headers["x-cosilo-dropped"] == "metadata, store"
    sent = {"presence_penalty": 0.5, "reasoning_effort": "high", "top_k": 40}
    assert model.given == [sent, sent]
    assert told.body.count(b'"dropped":["metadata","store"]') == 1


async def test_one_that_does_not_gets_none_and_the_client_is_told() -> None:
    model = ScriptedModel({"hello": "Hello."})
    h = await house(large=[model])
    told = await h.chat("hello", reasoning_effort="high")
    assert (told.status, told.headers["x-cosilo-dropped"]) == (200, "reasoning_effort")
    told = await h.chat("hello", presence_penalty=0.5)
    assert (told.status, told.error["code"]) == (400, "unsupported_parameter")
    assert told.error["param"] == "presence_penalty"
    assert len(model.seen) == 1


async def test_a_field_of_another_shape_is_no_misspelling_of_itself() -> None:
    h = await house(large=[ScriptedModel({})])
    told = await h.send("/v1/completions", {"model": "cosilo/x", "prompt": "a", "tools": []})
    assert told.error["message"] == "'tools' is not a field of this request"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"1": 3}}, "logit_bias"),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"best_of": 3}, "best_of"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"reasoning_effort": MAIL}, "reasoning_effort"),
        ({"temprature": 1}, "temprature"),
        ({"top_k": [[[[{}]]]]}, "top_k"),
    ],
)  # fmt: skip
async def test_a_refusal_names_the_field_and_quotes_nothing(
    fields: dict[str, Any], param: str
) -> None:
    model = Remote()
    h = await house(large=[model])
    told = await h.chat("hello", **fields)
    assert (told.status, told.error["param"]) == (400, param)
    assert MAIL not in told.body.decode()
    assert not model.given
    assert not h.books.settled


async def test_a_private_value_in_a_field_that_may_pass_is_hidden(tmp_path: Path) -> None:
    model = Remote()
    names = ("metadata", "user", "chat_template_kwargs", "prediction", "provider", "verbosity")
    h = await hidden(tmp_path, model, dict.fromkeys(names, "pass"))
    for value in (MAIL, {"for": MAIL}, [{MAIL: 1}], [f"write to {MAIL} and 123-45-6789"]):
        told = await h.chat(f"hello {MAIL}", **dict.fromkeys(names, value))
        assert told.status == 200, told.body
    assert len(model.given) == 4
    assert all(given.keys() == set(names) for given in model.given)
    assert "lovelace" not in repr((model.given, model.seen)).lower()
    assert "123-45" not in repr(model.given)


async def test_another_model_that_stands_in_gets_no_hint_that_it_does_not_know() -> None:
    down = Failing(fail=UnreachableError("down"))
    down.honours = lambda field: True  # type: ignore[attr-defined]
    small = Remote("top_k")
    h = await house(large=[down], small=small, serving=Serving(fallback="small"))
    told = await h.chat("hello", reasoning_effort="high", top_k=3)
    assert (told.status, told.headers["x-cosilo-dropped"]) == (200, "reasoning_effort")
    assert small.given == [{"top_k": 3}]


async def test_the_small_model_counts_where_the_strategy_may_ask_it() -> None:
    large, small = Remote(), Remote("top_k")
    small.confidence = 0.3
    h = await house(large=[large], small=small, strategy="cascade", options={"threshold": 0.9})
    told = await h.chat("hello", reasoning_effort="high", top_k=3)
    assert (told.status, told.headers["x-cosilo-dropped"]) == (200, "reasoning_effort")
    assert large.given == [{"top_k": 3}]


@pytest.mark.parametrize("name", ["echo", "suffix"])
async def test_what_the_older_api_cannot_do_is_refused(name: str) -> None:
    h = await house(large=[Remote()])
    body = {"model": "cosilo/x", "prompt": "hello", name: True if name == "echo" else "end"}
    told = await h.send("/v1/completions", body)
    assert (told.status, told.error["param"]) == (400, name)


INSIDE: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi", "cache": {"a": MAIL}}]},
                {
                    "role": "assistant", "content": "yes", "id": "m1", "annotations": [{"url": MAIL}],
                    "reasoning_details": [{"text": MAIL}], "audio": None, "thinking_blocks": [],
                    "tool_calls": [{
                        "id": "c", "index": 0,
                        "function": {"name": "f", "arguments": "{}", "why": MAIL},
                    }],
                },
                {"role": "tool", "tool_call_id": "c", "content": "done"},
                {"role": "user", "content": "hello", "x y\r\n": MAIL},
            ]
        },
        "messages.annotations, messages.content.cache, messages.other, "
        "messages.reasoning_details, messages.tool_calls.function.why",
    ),
    "messages": (
        "/v1/messages",
        {
            "max_tokens": 10,
            "system": [{"type": "text", "text": "be kind", "cache_control": {}, "tag": MAIL}],
            "messages": [
                {"role": "user", "content": "hi", "vendor": MAIL},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "b"}, "by": MAIL}
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result", "tool_use_id": "t",
                            "content": [{"type": "text", "text": "ok", "deep": MAIL}],
                        },
                        {"type": "text", "text": "hello"},
                    ],
                },
            ],
        },
        "messages.content.by, messages.content.deep, messages.vendor, system.tag",
    ),
    "responses": (
        "/v1/responses",
        {
            "input": [
                {
                    "type": "message", "role": "assistant", "id": "i", "status": "completed",
                    "content": [{"type": "output_text", "text": "yes", "annotations": [MAIL]}],
                },
                {"role": "user", "content": "hello", "vendor": MAIL},
            ]
        },
        "input.content.annotations, input.vendor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", INSIDE)
async def test_what_stands_in_messages_that_nobody_reads_goes_nowhere_and_is_told(
    shape: str,
) -> None:
    path, body, told = INSIDE[shape]
    model = Remote()
    h = await house(large=[model])
    reply = await h.send(path, {"model": "cosilo/x", **body})
    assert (reply.status, reply.headers["x-cosilo-dropped"]) == (200, told)
    assert MAIL not in repr(model.seen)
    field = told.split(", ")[0]
    h = await house(large=[model], serving=Serving(fields={field: "refuse"}))
    reply = await h.send(path, {"model": "cosilo/x", **body})
    assert reply.status == 400
    assert f"{field}: not supported with this value: this point refuses it" in reply.body.decode()
    with pytest.raises(ValueError, match=r"cannot pass: a message is sent as what it says"):
        Serving(fields={field: "pass"})


async def test_of_very_many_such_fields_the_header_names_some() -> None:
    h = await house(large=[Remote()])
    more = {f"field_{i}": 1 for i in range(500)}
    said = [{"role": "user", "content": "hello", **more}]
    reply = await h.send("/v1/chat/completions", {"model": "cosilo/x", "messages": said})
    assert reply.status == 200
    assert len(reply.headers["x-cosilo-dropped"]) < 2_000
    assert "messages.other" in reply.headers["x-cosilo-dropped"]
