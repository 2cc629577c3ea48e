"""To an LM owner in another process or on another machine: HTTPS, with a certificate on either side.

    payload ── id, version ──▶ POST, kept alive ──▶ host
               ▲                    │ broken: wait a little, say hello, send the same id again
               └────────────────────┘ the host works on an id once, so no retry is paid for twice

Before any connection carries a request the host has said what it speaks; where that is another version,
nothing is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import math
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from cosilo.boundary.messages import LARGEST
from cosilo.boundary.transports import tls
from cosilo.boundary.transports.agreed import (
    CARRY,
    CONTENT,
    HAVE,
    HELLO,
    ID,
    OURS,
    SPEAKS,
    STREAM,
    Hello,
    Pieces,
    new_id,
)
from cosilo.errors import (
    ConfigError,
    RejectedError,
    UnexpectedReplyError,
    UnreachableError,
)

log = logging.getLogger("cosilo.boundary")

T = TypeVar("T")

SKEW_S = 60.0
"""Seconds by which two clocks may differ without a word."""

_LONGEST_WAIT_S = 5.0
_MOST_TIMES = (
    200  # that one reply may break off: a host that always says a little more ends nothing
)
_CONNECT_S = 10.0
_HELLO_BYTES = 1 << 16
_ASIDE = SimpleNamespace(hello=True)


class _BrokenError(Exception):
    """The way to the host broke; `worked` is 0 where the request surely did not reach it."""

    def __init__(self, said: str, worked: int | None) -> None:
        super().__init__(said)
        self.worked = worked


class Https:
    """A transport to the host at `url`.

    Args:
        url: https://NAME:PORT; http:// only to this machine, or where `plain` says so.
        ca: the authority whose hosts are trusted.
        cert, key: this data owner's certificate and its key.
        server_name: the name that the host's certificate must bear, where it is not the URL's.
        plain: send without TLS to another machine all the same: whoever is on the way can read along
            and answer in the host's place.
        model: the name of the model that the host must serve; any, when empty.
        patience_s: how long a broken way is tried again before the request fails.
        timeout_s: how long a reply, or the next piece of one, may take.

    Raises:
        ConfigError: the URL or the certificates cannot be used.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        server_name: str = "",
        plain: bool = False,
        model: str = "",
        patience_s: float = 60.0,
        timeout_s: float = 600.0,
    ) -> None:
        self.url = _checked(url, plain=plain)
        for name, seconds in (("patience_s", patience_s), ("timeout_s", timeout_s)):
            if not 0 < seconds < math.inf:
                raise ConfigError(f"{name} = {seconds!r} is no time above 0")
        self.where = urlsplit(self.url).netloc
        self._urls = {path: URL(self.url + path) for path in (HELLO, CARRY, STREAM)}
        self._tls: ssl.SSLContext | bool = True
        if self.url.startswith("https:"):
            if not (ca and cert and key):
                raise ConfigError(
                    f"the host at {self.where} is asked over TLS, which takes ca, cert and key: "
                    "`cosilo host certs` makes them for a trial"
                )
            self._tls = tls.asking(ca, cert, key)
        self._server_name = server_name or None
        self._model = model
        self._patience_s = patience_s
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_S, sock_read=timeout_s
        )
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._random = random.Random()
        self._hello: Hello | None = None

    async def hello(self) -> Hello:
        """What the host says of itself.

        Raises:
            RejectedError: it speaks another version, is no host of ours, or refuses this client.
            UnreachableError: it did not answer for as long as there is patience.
        """
        return await self._patiently(self._greet)

    async def carry(self, payload: bytes, *, name: str = "") -> bytes:
        """The reply to `payload`, which the host answers once however often it must be sent.

        Args:
            name: the request's id, where the caller keeps it; a new one otherwise.

        Raises:
            RejectedError: the host refuses this client, or speaks another version.
            UnreachableError: it did not answer for as long as there is patience.
        """
        name = name or new_id()

        async def once() -> bytes:
            async with self._post(CARRY, payload, {ID: name}) as response:
                length = response.content_length
                if length is None or length > LARGEST:
                    raise UnexpectedReplyError(f"the reply of {self.where} is too long")
                return await response.read()

        return await self._patiently(once)

    async def carry_stream(self, payload: bytes, *, name: str = "") -> AsyncGenerator[bytes, None]:
        """The reply to `payload` in pieces. A stream that breaks goes on where it was, as long as the
        host still has what came before, and raises what `carry` does.
        """
        name = name or new_id()
        seen = hashlib.sha256()
        count = 0
        trouble = _Trouble()
        while True:
            try:
                have = f"{count}.{seen.hexdigest()}" if count else ""
                headers = {ID: name, HAVE: have} if have else {ID: name}
                async with self._post(STREAM, payload, headers) as response:
                    pieces = Pieces()
                    async for data in response.content.iter_any():
                        for piece in pieces.feed(data):
                            seen.update(piece)
                            count += 1
                            trouble.over()
                            yield piece
                    if pieces.ended:
                        return
                raise _BrokenError("the reply was cut", None)
            except _BrokenError as error:
                await self._wait(trouble, error)

    async def close(self) -> None:
        """Give back the connections; calling it twice is harmless."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    async def _greet(self) -> Hello:
        session = await self._session()
        async with (
            self._converting(0),
            session.get(
                self._urls[HELLO],
                headers={SPEAKS: OURS.header},
                ssl=self._tls,
                server_hostname=self._server_name,
                timeout=aiohttp.ClientTimeout(total=_CONNECT_S),
                allow_redirects=False,
                trace_request_ctx=_ASIDE,
            ) as response,
        ):
            said = await response.content.read(_HELLO_BYTES)
            status = response.status
        if status != 200:
            raise self._refused(status, said)
        try:
            hello = msgspec.json.decode(said, type=Hello)
        except msgspec.DecodeError:
            raise RejectedError(f"{self.where} is no host of Cosilo's", everything=True) from None
        if hello.versions != OURS:
            raise RejectedError(
                f"the host at {self.where} speaks {hello.versions}; here it is {OURS}. Nothing was "
                "sent: both sides must run versions of Cosilo that speak the same",
                everything=True,
            )
        if self._model and hello.model != self._model:
            raise RejectedError(
                f"the host at {self.where} serves {hello.model[:80]!r}, not {self._model!r}: nothing "
                "was sent",
                everything=True,
            )
        if self._hello is None and abs(hello.at - time.time()) > SKEW_S:
            log.warning(
                "the clock of the host at %s differs from this one by %.0f s: certificates and days "
                "are counted by either side's own",
                self.where,
                hello.at - time.time(),
            )
        self._hello = hello
        return hello

    @asynccontextmanager
    async def _post(
        self, path: str, payload: bytes, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The host's response to `payload`, of status 200."""
        if self._hello is None:
            await self._greet()
        session = await self._session()
        async with self._converting(None):
            response = await session.post(
                self._urls[path],
                data=payload,
                headers=headers,
                ssl=self._tls,
                server_hostname=self._server_name,
                timeout=self._timeout,
                allow_redirects=False,
            )
            try:
                if response.status != 200:
                    raise self._refused(response.status, await response.content.read(_HELLO_BYTES))
                yield response
            finally:
                # What was not read to its end would keep the connection: it is closed, and the host
                # sees that nobody reads on.
                response.release() if response.content.at_eof() else response.close()

    @asynccontextmanager
    async def _converting(self, worked: int | None) -> AsyncIterator[None]:
        """A context whose errors on the way become ours."""
        try:
            yield
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise RejectedError(
                f"the certificate of {self.where} is not accepted ({_reason(error)}), so nothing "
                "was sent",
                everything=True,
            ) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _BrokenError(f"it cannot be reached ({_reason(error)})", 0) from None
        except ssl.SSLError as error:
            raise RejectedError(
                f"{self.where} does not accept this certificate ({_alert(error)})", everything=True
            ) from None
        except aiohttp.ClientOSError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise RejectedError(
                    f"{self.where} does not accept this certificate ({_alert(error.__cause__)})",
                    everything=True,
                ) from None
            raise self._broken(error, worked) from None
        except TimeoutError:
            raise _BrokenError("nothing came for too long", worked) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._broken(error, worked) from None

    def _broken(self, error: Exception, worked: int | None) -> _BrokenError:
        said = f"the connection broke ({_reason(error)})"
        if worked == 0 and self.url.startswith("https:"):
            # TLS says so only after the handshake, and the word may be lost.
            said += "; perhaps it does not accept this side's certificate, or its time is over"
        return _BrokenError(said, worked)

    def _refused(self, status: int, said: bytes) -> Exception:
        """What a response other than 200 means. Its words are the host's own, cut to what can be
        shown."""
        words = "".join(c for c in said.decode(errors="replace")[:500] if c.isprintable())
        text = f"the host at {self.where}: HTTP {status}" + (f": {words}" if words else "")
        if status in (429, 503):
            return _BrokenError(text, 0)
        everything = status in (401, 403, 426) or not words
        error = RejectedError(text, everything=everything, status=status)
        error.worked = None if status == 410 else 0
        error.quoted = True
        return error

    async def _patiently(self, once: Callable[[], Awaitable[T]]) -> T:
        """The result of `once`, tried again while the way is broken and there is patience."""
        trouble = _Trouble()
        while True:
            try:
                return await once()
            except _BrokenError as error:
                await self._wait(trouble, error)

    async def _wait(self, trouble: _Trouble, error: _BrokenError) -> None:
        """Wait before the next try, or give up.

        Raises:
            UnreachableError: there is no more patience.
        """
        trouble.met(error)
        if trouble.seconds() >= self._patience_s or trouble.times >= _MOST_TIMES:
            tries = f" (tried {trouble.tries} times)" if trouble.tries > 1 else ""
            raise UnreachableError(
                f"the host at {self.where}: {error}{tries}", worked=1 if trouble.worked else 0
            ) from None
        most = min(_LONGEST_WAIT_S, 0.05 * 2.0 ** min(trouble.tries, 10))
        await asyncio.sleep(self._random.uniform(most / 2, most))

    async def _session(self) -> aiohttp.ClientSession:
        for loop in [o for o in self._sessions if o.is_closed()]:
            await self._sessions.pop(loop).close()
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            greeting = aiohttp.TraceConfig()
            greeting.on_connection_create_start.append(self._before_connecting)
            greeting.freeze()
            self._sessions[loop] = aiohttp.ClientSession(
                headers={
                    SPEAKS: OURS.header,
                    "Content-Type": CONTENT,
                    "Accept-Encoding": "identity",
                },
                auto_decompress=False,  # few bytes could stand for very many
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[greeting],
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                read_bufsize=1 << 18,
            )
        return self._sessions[loop]

    async def _before_connecting(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, _: object
    ) -> None:
        """Ask what the host speaks before a new connection carries a request: it may be another host by
        now, or one that was upgraded."""
        if context.trace_request_ctx is not _ASIDE:
            await self._greet()


class _Trouble:
    """How long a way has been broken by now, and how often it broke in all."""

    def __init__(self) -> None:
        self.over()
        self.worked = False
        self.times = 0

    def over(self) -> None:
        """It works again."""
        self.tries = 0
        self._since = math.inf

    def met(self, error: _BrokenError) -> None:
        self.tries += 1
        self.times += 1
        self.worked = self.worked or error.worked != 0
        self._since = min(self._since, time.monotonic())

    def seconds(self) -> float:
        return time.monotonic() - self._since


def _checked(url: str, *, plain: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url = {url!r} must begin with https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("url must hold no user, no password and nothing after its path")
    if parts.path not in ("", "/"):
        raise ConfigError(f"url = {url!r} must end with the host's name and port")
    if parts.scheme == "http" and not plain and not _here(parts.hostname):
        raise ConfigError(
            f"url = {url!r} would send in clear to another machine: use https://, or say "
            "plain = true where the way between is safe"
        )
    return url.rstrip("/")


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _reason(error: BaseException) -> str:
    """What the system or TLS says, which quotes nothing of what is sent."""
    cause: BaseException = getattr(error, "os_error", None) or error
    cause = getattr(error, "certificate_error", None) or cause
    told = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or ""
    return str(told or getattr(cause, "strerror", None) or type(cause).__name__)


def _alert(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or type(error).__name__)
