"""An embeddings endpoint on loopback: what is asked, and what the client makes of the answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from cosilo.errors import ModelError, RejectedError, UnreachableError
from cosilo.models.base import Vectors, embeds
from cosilo.models.remote.openai_compatible import OpenAIModel
from wire import KEY, SECRET, Wire, http

USAGE = {"prompt_tokens": 9, "total_tokens": 9}


def item(values: Any, index: int | None = 0) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": values}


def body(*items: Any, **more: Any) -> list[Any]:
    return [http(json.dumps({"data": items, "usage": USAGE, **more}).encode())]


def packed(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


async def ask(wire: Wire, *texts: str, dimensions: int | None = None, **options: Any) -> Vectors:
    async with wire.serve() as url:
        model = OpenAIModel(url, "emb", api_key=KEY, backoff_s=0.001, retries=1, **options)
        assert embeds(model)
        try:
            return await model.vectors(texts, dimensions)
        finally:
            await model.close()


async def test_what_is_asked_and_what_comes() -> None:
    wire = Wire(body(item(packed(3, 4), 1), item([1, 2.5], 0)))
    found = await ask(wire, "one", "two", dimensions=2)
    assert wire.paths == ["/v1/embeddings"]
    assert wire.requests == [
        {"model": "emb", "input": ["one", "two"], "encoding_format": "base64", "dimensions": 2}
    ]
    assert f"Authorization: Bearer {KEY}" in wire.headers[0]
    assert found.rows.tolist() == [[1, 2.5], [3, 4]]
    assert (found.prompt_tokens, found.attempts) == (9, 1)


async def test_fields_that_it_does_not_take_are_left_out() -> None:
    wire = Wire(body(item([1.0])))
    await ask(wire, "one", omit=["encoding_format"], extra={"input_type": "query"})
    assert wire.requests == [{"model": "emb", "input": ["one"], "input_type": "query"}]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"prompt_tokens": 4}, 4), ({"total_tokens": 5}, 5), (None, 0), ({"prompt_tokens": "x"}, -1),
     ("no", -1)],
)  # fmt: skip
async def test_what_it_says_that_it_took(usage: object, tokens: int) -> None:
    assert (await ask(Wire(body(item([1.0]), usage=usage)), "one")).prompt_tokens == tokens


@pytest.mark.parametrize(
    "answer",
    [
        body(),
        body(item([1.0]), item([2.0])),
        body(item([])),
        body(item([1.0], 3)),
        body(item("no base64!")),
        body(item(base64.b64encode(b"123").decode())),
        body(item(packed(float("nan")))),
        body(item([1e300])),
        body(item({"a": SECRET})),
        [http(b'{"data": ' + b"[" * 10_000)],
        [http(b"\xff")],
        [http(json.dumps({"error": {"message": SECRET}}).encode())],
    ],
)
async def test_a_reply_that_is_none_is_refused_and_not_quoted(answer: list[Any]) -> None:
    with pytest.raises(ModelError) as caught:
        await ask(Wire(answer), "one")
    assert SECRET not in str(caught.value)
    assert caught.value.worked in (None, 1, 2)


async def test_what_is_worth_another_try_gets_one_and_what_is_not_does_not() -> None:
    wire = Wire([http(b"{}", 503)], body(item([1.0])))
    assert (await ask(wire, "one")).attempts == 1
    assert len(wire.requests) == 2
    error = {"error": {"message": SECRET, "code": "context_length_exceeded", "param": "input"}}
    wire = Wire([http(json.dumps(error).encode(), 400)])
    with pytest.raises(RejectedError, match="context_length_exceeded") as caught:
        await ask(wire, "one")
    assert (caught.value.param, len(wire.requests)) == ("input", 1)
    with pytest.raises(UnreachableError):
        await ask(Wire([http(b"{}", 500)]), "one")
