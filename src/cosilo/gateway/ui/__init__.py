"""The page for people: what is spent, saved and sent, under `/ui`.

    GET  /ui           the page, or the form to log in      POST /ui/login    key → session cookie
    GET  /ui/data      the numbers, as JSON                 POST /ui/logout   ends the session

The cookie holds a random token, never the key; it is HttpOnly, SameSite=Strict and lasts some hours.
A key sees what it did itself; an admin's key sees everything. Nothing here shows a text: requests
are kinds, counts and sizes. The policy of the page allows no script, style or connection but its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs

from cosilo.errors import StoreError
from cosilo.gateway.record.store_records import SESSION_SECONDS, GatewayStore
from cosilo.gateway.ui.data import Front, collect
from cosilo.gateway.web.http import App, Receive, Scope, Send, header

if TYPE_CHECKING:
    from cosilo.gateway.accounts.accounts import Key
    from cosilo.gateway.web.api import Gateway

__all__ = ["Front", "Page", "pages"]

log = logging.getLogger("cosilo.gateway")

COOKIE = "cosilo_session"
LARGEST_FORM = 4096  # bytes

_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        b" img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # With no referrer at all a browser would also hide the origin of our own forms from us.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
]

_FILES = {
    "/ui/ui.css": b"text/css; charset=utf-8",
    "/ui/ui.js": b"text/javascript; charset=utf-8",
    "/ui/icon.svg": b"image/svg+xml",
}


def pages(front: Front | None = None) -> Callable[[Gateway], App]:
    """What `server.work` takes as `page`: the page, with the measured points if there are any."""
    return lambda gateway: Page(gateway, front)


class Page:
    """The ASGI application below `/ui`."""

    def __init__(self, gateway: Gateway, front: Front | None = None) -> None:
        self._gateway = gateway
        self._front = front
        folder = files(__name__)
        self._static = {
            path: folder.joinpath(path.removeprefix("/ui/")).read_bytes() for path in _FILES
        }
        self._page = folder.joinpath("page.html").read_bytes()
        self._login = folder.joinpath("login.html").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except StoreError as error:
            log.error("the page could not be made: %s", error)
            await _text(send, 503, "The gateway cannot read its store now.")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"].rstrip("/"), scope["method"]
        if path in ("/ui/login", "/ui/logout"):
            if method != "POST":
                await _redirect(send)
            elif not own_form(scope):
                await _text(send, 403, "This form was sent by another site.")
            elif path == "/ui/login":
                await self._log_in(scope, receive, send)
            else:
                await self._log_out(scope, send)
        elif method not in ("GET", "HEAD"):
            await _text(send, 405, "Only GET is possible here.", [(b"allow", b"GET, HEAD")])
        elif path in self._static:
            await _send(send, 200, _FILES[path], self._static[path])
        elif path == "/ui":
            key = await self._key(scope)
            page = self._page if key else self._login.replace(b"{{note}}", b"")
            await _send(send, 200, b"text/html; charset=utf-8", page)
        elif path == "/ui/data":
            key = await self._key(scope)
            if key is None:
                await _send(send, 401, b"application/json", b'{"error":"log in again"}')
                return
            query = parse_qs(scope["query_string"].decode("latin-1"))
            data = await collect(
                self._gateway, self._store, key, self._front, query.get("span", ["24h"])[0]
            )
            await _send(send, 200, b"application/json", data)
        else:
            await _text(send, 404, "There is nothing here.")

    @property
    def _store(self) -> GatewayStore:
        return cast(GatewayStore, self._gateway.store)

    async def _key(self, scope: Scope) -> Key | None:
        token = _token(scope)
        return await self._store.session_key(token) if token else None

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = await _form(receive)
        bearer = parse_qs(form.decode("latin-1")).get("key", [""])[0].strip()
        key = await self._store.authenticate(bearer) if bearer else None
        if key is None:
            note = b'<p class="wrong" role="alert">This key is not known, or was revoked.</p>'
            page = self._login.replace(b"{{note}}", note)
            await _send(send, 401, b"text/html; charset=utf-8", page)
            return
        token = await self._store.open_session(key)
        await _redirect(send, cookie(token, int(SESSION_SECONDS), secure=_encrypted(scope)))

    async def _log_out(self, scope: Scope, send: Send) -> None:
        if token := _token(scope):
            await self._store.close_session(token)
        await _redirect(send, cookie("", 0, secure=_encrypted(scope)))


def own_form(scope: Scope) -> bool:
    """Whether a form was sent by one of our own pages, as far as the browser says.

    SameSite keeps the cookie from other sites' requests; this keeps other sites from logging
    somebody in. A client that says neither is not a browser, and has no cookie to abuse.
    """
    site = header(scope, b"sec-fetch-site")
    if site and site not in (b"same-origin", b"none"):
        return False
    origin = header(scope, b"origin")
    return not origin or origin.partition(b"://")[2] == header(scope, b"host")


def cookie(token: str, seconds: int, *, secure: bool) -> bytes:
    text = f"{COOKIE}={token}; Path=/ui; HttpOnly; SameSite=Strict; Max-Age={seconds}"
    return (text + ("; Secure" if secure else "")).encode()


def _encrypted(scope: Scope) -> bool:
    # A client that lies about this only keeps its own cookie from being sent in clear.
    return scope.get("scheme") == "https" or header(scope, b"x-forwarded-proto") == b"https"


def _token(scope: Scope) -> str:
    try:
        found = SimpleCookie(header(scope, b"cookie").decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def _form(receive: Receive) -> bytes:
    """The body, cut off where it is longer than any form of ours."""
    body = b""
    while True:
        event = await receive()
        body += bytes(event.get("body", b""))
        if event["type"] != "http.request" or not event.get("more_body"):
            return body[:LARGEST_FORM]
        if len(body) > LARGEST_FORM:
            return b""


async def _redirect(send: Send, set_cookie: bytes = b"") -> None:
    headers = [(b"location", b"/ui")]
    if set_cookie:
        headers.append((b"set-cookie", set_cookie))
    await _send(send, 303, b"text/plain; charset=utf-8", b"", headers)


async def _text(
    send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    await _send(send, status, b"text/plain; charset=utf-8", text.encode() + b"\n", headers)


async def _send(
    send: Send,
    status: int,
    kind: bytes,
    body: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    length = str(len(body)).encode()
    all_headers = [(b"content-type", kind), (b"content-length", length), *_HEADERS]
    await send(
        {"type": "http.response.start", "status": status, "headers": all_headers + (headers or [])}
    )
    await send({"type": "http.response.body", "body": body})
