"""`/ui` lets in who has a key, shows each what it may see, and answers other sites' forms with no."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from cosilo.errors import StoreError
from cosilo.gateway.accounts.accounts import RequestFacts, Spend
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.record.store import open_store
from cosilo.gateway.ui import LARGEST_FORM, Page
from cosilo.gateway.ui.data import Front, ObjectiveAxis, PointMark

FRONT = Front(
    ObjectiveAxis("usd", "$", "min"),
    ObjectiveAxis("accuracy", "", "max"),
    [PointMark("private", 1, 0.8, True)],
)


class Browser:
    """Talks ASGI to the page and keeps its cookie."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.cookie = ""

    async def ask(
        self, method: str, path: str, *, form: dict[str, str] | None = None, **headers: str
    ) -> Any:
        path, _, query = path.partition("?")
        given = {"host": "gw.example", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if self.cookie:
            given["cookie"] = f"other=1; cosilo_session={self.cookie}; last=2"
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(),
            "scheme": "http", "headers": [(k.encode(), v.encode()) for k, v in given.items()],
        }  # fmt: skip
        body = urlencode(form or {}).encode()
        pieces = [
            {"type": "http.request", "body": body[i : i + 1000], "more_body": i + 1000 < len(body)}
            for i in range(0, max(len(body), 1), 1000)
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return pieces.pop(0)

        async def send(event: Any) -> None:
            sent.append(event)

        await self.page(scope, receive, send)
        start, end = sent
        found = {k.decode(): v.decode() for k, v in start["headers"]}
        assert int(found["content-length"]) == len(end["body"])
        if "set-cookie" in found:
            self.cookie = found["set-cookie"].partition("=")[2].partition(";")[0]
        return SimpleNamespace(status=start["status"], headers=found, text=end["body"].decode())

    async def log_in(self, bearer: str, **headers: str) -> Any:
        return await self.ask("POST", "/ui/login", form={"key": bearer}, **headers)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    store = await open_store(str(tmp_path / "store"))
    yield store
    await store.close()


@pytest.fixture
async def admin(store: Any) -> str:
    return str((await store.create_key("operations", admin=True)).bearer)


@pytest.fixture
async def other(store: Any) -> str:
    return str((await store.create_key("ward", points=("private",))).bearer)


@pytest.fixture
def browser(store: Any) -> Browser:
    points = {
        name: SimpleNamespace(
            name=name, model=f"cosilo/{name}", strategy="large", routes=[], defences=(),
            serving=SimpleNamespace(fallback="refuse"),
        )
        for name in ("private", "open")
    }  # fmt: skip
    setup = SimpleNamespace(points=points, upstreams={})
    gateway: Any = SimpleNamespace(store=store, metrics=Metrics(), setup=setup)
    return Browser(Page(gateway, FRONT))


async def spend(store: Any, bearer: str, request: str) -> None:
    key = await store.authenticate(bearer)
    held = await store.reserve(key, Spend(requests=1), request=request)
    facts = RequestFacts(
        request=request, point="private", strategy="large", endpoint="chat", outcome="ok",
        status=200, lm_calls=1, kinds={"NAME": 1}, bytes_up=10,
    )  # fmt: skip
    await store.settle(held, Spend(usd=0.5, requests=1, entities=1), request=facts)


async def test_without_a_key_there_is_only_the_form(browser: Browser) -> None:
    page = await browser.ask("GET", "/ui")
    assert page.status == 200
    assert 'action="/ui/login"' in page.text
    assert "ui.js" not in page.text
    assert (await browser.ask("GET", "/ui/data")).status == 401
    browser.cookie = "made-up"
    assert (await browser.ask("GET", "/ui/data")).status == 401


async def test_a_key_opens_the_page_until_it_logs_out(browser: Browser, admin: str) -> None:
    answer = await browser.log_in(admin)
    assert (answer.status, answer.headers["location"]) == (303, "/ui")
    cookie = answer.headers["set-cookie"]
    assert "; HttpOnly" in cookie
    assert "; SameSite=Strict" in cookie
    assert "; Path=/ui" in cookie
    assert "Secure" not in cookie
    assert browser.cookie not in admin
    assert admin not in cookie
    assert "ui.js" in (await browser.ask("GET", "/ui")).text
    token = browser.cookie
    assert (await browser.ask("POST", "/ui/logout")).status == 303
    browser.cookie = token  # kept by somebody who looked over the shoulder
    assert (await browser.ask("GET", "/ui/data")).status == 401


async def test_behind_tls_the_cookie_is_secure(browser: Browser, admin: str) -> None:
    answer = await browser.log_in(admin, x_forwarded_proto="https")
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("bearer", ["", "x", "cosilo_aaaaaaaaaa_bbbb", "k" * (3 * LARGEST_FORM)])
async def test_a_wrong_key_opens_nothing(browser: Browser, admin: str, bearer: str) -> None:
    answer = await browser.log_in(bearer)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    assert "not known" in answer.text
    assert len(answer.text) < 2000


async def test_what_was_typed_is_not_echoed(browser: Browser) -> None:
    answer = await browser.log_in("<script>alert(1)</script>")
    assert "alert(1)" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://gw.example"}, 303),
        ({"origin": "http://gw.example"}, 303),  # nginx ends TLS, so the scheme may differ
        ({"sec_fetch_site": "same-origin"}, 303),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://gw.example.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site", "origin": "https://gw.example"}, 403),
    ],
)
async def test_forms_of_other_sites_are_refused(
    browser: Browser, admin: str, headers: dict[str, str], status: int
) -> None:
    assert (await browser.log_in(admin, **headers)).status == status
    assert (await browser.ask("POST", "/ui/logout", **headers)).status == status


async def test_nothing_is_changed_by_a_link(browser: Browser, admin: str) -> None:
    await browser.log_in(admin)
    for path in ("/ui/logout", "/ui/login"):
        assert (await browser.ask("GET", path)).status == 303
    assert (await browser.ask("GET", "/ui/data")).status == 200
    assert (await browser.ask("POST", "/ui/data")).status == 405
    assert (await browser.ask("GET", "/ui/../secret")).status == 404


@pytest.mark.parametrize(
    "path", ["/ui", "/ui/data", "/ui/ui.js", "/ui/ui.css", "/ui/login", "/ui/x"]
)
async def test_every_answer_carries_the_policy(browser: Browser, path: str) -> None:
    headers = (await browser.ask("GET", path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["page.html", "login.html", "ui.js", "ui.css", "icon.svg"])
def test_no_file_of_the_page_needs_anything_from_outside(name: str) -> None:
    import cosilo.gateway.ui

    text = Path(cosilo.gateway.ui.__file__).with_name(name).read_text(encoding="utf-8")
    text = text.replace("http://www.w3.org/2000/svg", "")
    for outside in ("http:", "https:", "//cdn", "@import", "url("):
        assert outside not in text
    for inline in ("<script>", "<style", " style=", " onclick=", "innerHTML", "eval("):
        assert inline not in text


async def test_an_admin_sees_everything_and_others_their_own(
    browser: Browser, store: Any, admin: str, other: str
) -> None:
    for i, bearer in enumerate((admin, other, other)):
        await spend(store, bearer, f"r{i}")
    await browser.log_in(admin)
    data = json.loads((await browser.ask("GET", "/ui/data?span=7d")).text)
    assert (data["span"], data["who"], data["admin"]) == ("7d", "operations", True)
    assert (data["total"]["requests"], data["total"]["usd"]) == (3, 1.5)
    assert {row["key"] for row in data["recent"]} == {"operations", "ward"}
    assert [key["name"] for key in data["keys"]] == ["operations", "ward"]
    assert [point["name"] for point in data["served"]] == ["private", "open"]
    assert data["front"]["points"][0]["name"] == "private"
    await browser.log_in(other)
    mine = json.loads((await browser.ask("GET", "/ui/data?span=nonsense")).text)
    assert (mine["span"], mine["admin"], mine["front"]) == ("24h", False, None)
    assert (mine["total"]["requests"], mine["kinds"]) == (2, {"NAME": 2})
    assert {row["key"] for row in mine["recent"]} == {"ward"}
    assert [key["name"] for key in mine["keys"]] == ["ward"]
    assert [point["name"] for point in mine["served"]] == ["private"]
    assert "operations" not in json.dumps(mine)


async def test_a_revoked_key_is_shut_out_at_once(browser: Browser, store: Any, other: str) -> None:
    await browser.log_in(other)
    assert (await browser.ask("GET", "/ui/data")).status == 200
    await store.revoke_key(other.split("_")[1])
    assert (await browser.ask("GET", "/ui/data")).status == 401


async def test_a_store_that_cannot_be_read_says_so(
    browser: Browser, store: Any, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.log_in(other)

    async def broken(*_: object, **__: object) -> None:
        raise StoreError("the disk with /var/private is gone")

    monkeypatch.setattr(store, "summary", broken)
    answer = await browser.ask("GET", "/ui/data")
    assert answer.status == 503
    assert "/var/private" not in answer.text


async def test_the_page_says_where_a_request_was_processed_and_which_keys_are_local_only(
    browser: Browser, admin: str, store: Any
) -> None:
    made = await store.create_key("ward", local_only=True)
    key = await store.authenticate(made.bearer)
    assert key.local_only
    held = await store.reserve(key, Spend(requests=1), request="r2")
    facts = RequestFacts(
        request="r2", point="private", strategy="large", endpoint="chat", outcome="ok", status=200,
        lm_calls=1, sent_to="gpt at api.example.org",
    )  # fmt: skip
    await store.settle(held, Spend(requests=1), request=facts)
    held = await store.reserve(key, Spend(requests=1), request="r1")
    quiet = msgspec.structs.replace(facts, request="r1", lm_calls=0, sent_to="")
    await store.settle(held, Spend(requests=1), request=quiet)
    await spend(store, made.bearer, "r3")  # of an earlier version
    await browser.log_in(admin)
    data = json.loads((await browser.ask("GET", "/ui/data")).text)
    assert {k["name"]: k["local_only"] for k in data["keys"]}["ward"]
    assert not {k["name"]: k["local_only"] for k in data["keys"]}["operations"]
    found = {r["request"]: r["processed"] for r in data["recent"]}
    assert found == {
        "r1": "home", "r2": "home, gpt at api.example.org", "r3": "home, a large model"
    }  # fmt: skip
