"""Clients reach an endpoint through whatever base URL they were given."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosilo.gateway.web.paths import documented
from house import house

NAMES = ["chat/completions", "completions", "embeddings", "messages", "models", "responses"]
WRITTEN: list[Callable[[str], str]] = [
    lambda name: f"/{name}",
    lambda name: f"/v1/{name}",
    lambda name: f"/v1/v1/{name}",
    lambda name: f"//v1/{name}",
    lambda name: f"/v1//{name}",
    lambda name: f"//{name}//",
    lambda name: f"/v1/{name}/",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("written", WRITTEN)
def test_an_endpoint_has_one_path(written: Callable[[str], str], name: str) -> None:
    assert documented(written(name)) == f"/v1/{name}"


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1", "/v1/", "/v2/models", "/healthz", "/v1/healthz", "/ui/models", "/modelsx",
     "/v1x/models", "/V1/models", "/chat", "/v1/chat/completionsx", "*", "//"],
)  # fmt: skip
def test_other_paths_stay(path: str) -> None:
    assert documented(path) == path


def test_what_follows_an_endpoint_stays() -> None:
    assert documented("/models/cosilo/x/") == "/v1/models/cosilo/x"
    assert documented("/v1/models/v1/x") == "/v1/models/v1/x"
    assert documented("/v1/v1/messages/count_tokens") == "/v1/messages/count_tokens"


@pytest.mark.parametrize(
    "path", ["/chat/completions", "//v1/chat/completions/", "/v1/v1/chat/completions"]
)
async def test_a_chat_is_answered_whatever_the_base_url(path: str) -> None:
    body = {"model": "cosilo/x", "messages": [{"role": "user", "content": "hello"}]}
    told = await (await house()).send(path, body)
    assert told.json["choices"][0]["message"]["content"] == "Hello to you."


@pytest.mark.parametrize(
    "path", ["/models", "/v1/models/", "/v1/models/cosilo/x", "/models/cosilo/x/"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_models_are_found_as_well(path: str, method: str) -> None:
    assert (await (await house()).send(path, method=method)).status == 200


async def test_models_in_the_words_of_anthropic() -> None:
    h = await house()
    version = [(b"anthropic-version", b"2023-06-01")]
    page = (await h.send("/v1/models", headers=version)).json
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "cosilo/x", "cosilo/x")
    one = (await h.send("/v1/models/cosilo/x", headers=version)).json
    assert page["data"] == [one]
    assert (one["type"], one["id"]) == ("model", "cosilo/x")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"x-api-key", b"good")], 200),
        ([(b"authorization", b"Bearer good"), (b"x-api-key", b"bad")], 200),
        ([(b"authorization", b"Bearer bad"), (b"x-api-key", b"good")], 401),
        ([(b"authorization", b"Basic Zm9v"), (b"x-api-key", b"good")], 200),
        ([(b"authorization", b"Bearer  "), (b"x-api-key", b"good")], 200),
        ([(b"x-api-key", b"bad")], 401),
        ([(b"x-api-key", b"  ")], 401),
        ([], 401),
    ],
)
async def test_a_key_comes_as_bearer_or_as_x_api_key(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    assert (await (await house()).send("/v1/models", key=None, headers=headers)).status == status


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/chat/completions", "POST, OPTIONS"), ("/v1/models", "GET, HEAD, OPTIONS")],
)
async def test_options_tells_what_a_path_takes(path: str, methods: str) -> None:
    told = await (await house()).send(path, method="OPTIONS", key=None)
    assert (told.status, told.headers, told.body) == (204, {"allow": methods}, b"")


@pytest.mark.parametrize(
    ("path", "method"),
    [("/v1/responses/resp_1", "GET"), ("/responses/resp_1", "DELETE"),
     ("/v1/responses/resp_1/cancel", "POST"), ("/v1/responses/resp_1/input_items", "GET")],
)  # fmt: skip
async def test_whoever_looks_for_a_response_is_told_that_none_is_kept(
    path: str, method: str
) -> None:
    told = await (await house()).send(path, method=method)
    assert (told.status, told.error["code"]) == (404, "not_found")
    assert "no response is kept" in told.error["message"]
    other = await (await house()).send("/v1/responses/compact", b"{}")
    assert (other.status, other.error["message"]) == (404, "there is nothing here")


async def test_what_is_not_there_is_told_in_the_clients_words() -> None:
    h = await house()
    told = await h.send(
        "/v1/messages/batches", b"{}", headers=[(b"anthropic-version", b"2023-06-01")]
    )
    assert (told.status, told.json["error"]["type"]) == (404, "not_found_error")
    assert (await h.send("/v1/images", b"{}")).error["code"] == "not_found"
