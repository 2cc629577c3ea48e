"""A web page of another origin reads answers only where the configuration names it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from cosilo.gateway.web.cors import check_origins
from house import Reply, house

APP = "https://app.example.org"
ALLOWED = "access-control-allow-origin"


async def asked(
    origin: str | None,
    *,
    cors: tuple[str, ...] = (APP, "http://localhost:3000"),
    path: str = "/v1/chat/completions",
    method: str = "POST",
    key: str | None = "good",
    **headers: str,
) -> Reply:
    found = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    if origin is not None:
        found.append((b"origin", origin.encode()))
    body = b'{"model":"cosilo/x","messages":[{"role":"user","content":"hello"}]}'
    h = await house(cors=cors)
    return await h.send(
        path, body if method == "POST" else b"", method=method, key=key, headers=found
    )


def preflight(origin: str, **options: Any) -> Coroutine[Any, Any, Reply]:
    return asked(
        origin, method="OPTIONS", key=None, access_control_request_method="POST",
        access_control_request_headers="authorization,content-type,x-stainless-lang", **options,
    )  # fmt: skip


async def test_nothing_is_said_by_default() -> None:
    for told in (await asked(APP, cors=()), await preflight(APP, cors=())):
        assert not [name for name in told.headers if name.startswith("access-control")]
        assert "vary" not in told.headers


async def test_a_named_page_may_read_the_answer_and_its_headers() -> None:
    told = await asked(APP)
    assert (told.status, told.headers[ALLOWED], told.headers["vary"]) == (200, APP, "origin")
    shown = told.headers["access-control-expose-headers"].split(", ")
    assert {"x-cosilo-request-id", "x-cosilo-usd", "x-cosilo-entities"} <= set(shown)


OTHERS = [
    "https://evil.example.org", "null", "https://app.example.org:8443", f"{APP}.evil.org", f"{APP}/",
    "http://app.example.org", "*", "",
]  # fmt: skip


@pytest.mark.parametrize("origin", OTHERS)
async def test_no_other_page_may(origin: str) -> None:
    for told in (await asked(origin), await preflight(origin)):
        assert not [name for name in told.headers if name.startswith("access-control")]
        assert told.headers["vary"] == "origin"


async def test_a_request_that_no_page_sends_is_answered_as_ever() -> None:
    told = await asked(None)
    assert (told.status, told.headers["vary"]) == (200, "origin")
    assert ALLOWED not in told.headers


async def test_every_page_where_that_is_written() -> None:
    told = await asked("https://anyone.example", cors=("*",))
    assert told.headers[ALLOWED] == "*"
    assert "vary" not in told.headers


@pytest.mark.parametrize("cors", [(APP,), ("*",)])
async def test_a_browser_that_asks_first_is_told_without_a_key(cors: tuple[str, ...]) -> None:
    told = await preflight(APP, cors=cors)
    assert (told.status, told.body) == (204, b"")
    assert told.headers[ALLOWED] == (APP if cors == (APP,) else "*")
    assert told.headers["access-control-allow-methods"] == "POST, OPTIONS"
    named = told.headers["access-control-allow-headers"]
    assert named == "authorization,content-type,x-stainless-lang"
    # A page holds its key itself; cookies of the browser's are nothing to it.
    assert "access-control-allow-credentials" not in told.headers


async def test_what_is_no_list_of_headers_is_not_repeated() -> None:
    told = await asked(
        APP, method="OPTIONS", key=None, access_control_request_method="POST",
        access_control_request_headers="a\r\nset-cookie: b",
    )  # fmt: skip
    assert told.status == 204
    assert "access-control-allow-headers" not in told.headers


@pytest.mark.parametrize(
    ("options", "status"),
    [({"key": None}, 401), ({"key": "bad"}, 401), ({"method": "DELETE"}, 405)],
)
async def test_errors_may_be_read_too(options: dict[str, str], status: int) -> None:
    told = await asked(APP, **options)
    assert (told.status, told.headers[ALLOWED]) == (status, APP)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/ui", "/nothing"])
async def test_what_is_no_part_of_the_api_is_closed_to_pages(path: str) -> None:
    assert ALLOWED not in (await asked(APP, path=path, method="GET")).headers


@pytest.mark.parametrize(
    ("origins", "said"),
    [
        (["*", APP], "stands alone"),
        (["null"], "sandboxed"),
        (["app.example.org"], "scheme, host and port"),
        ([f"{APP}/"], "nothing after them"),
        (["https://*.example.org"], "scheme, host"),
        (["HTTPS://app.example.org"], "lower case"),
        (["https://App.example.org"], "lower case"),
        (["https://u:p@app.example.org"], "scheme, host"),
        (["https://app.example.org:443"], "default port"),
        (["http://app.example.org:80"], "default port"),
        ([""], "scheme, host"),
    ],
)
def test_what_no_browser_sends_is_refused(origins: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("*", r"\*")):
        check_origins(origins)


def test_what_browsers_send_is_taken() -> None:
    check_origins([APP, "http://localhost:3000", "http://[::1]:8080"])
    check_origins(["app://obsidian.md", "chrome-extension://abc"])
    check_origins(["*"])
    check_origins([])
