"""Which web pages may call the gateway from a browser: cross-origin resource sharing.

Source: the Fetch standard, "CORS protocol" (https://fetch.spec.whatwg.org/#http-cors-protocol).

A browser lets a page read an answer of another origin only where the answer names the page's own.
Nothing is named unless the configuration does. Credentials that a browser adds by itself (cookies) are
never allowed: a page has to hold a key and send it, as any client does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosilo.gateway.web.http import Event, Headers, Scope, Send, header

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#\\@*,A-Z]+")
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_SECONDS = b"600"


def check_origins(origins: Sequence[str]) -> None:
    """Raise unless each of `origins` is one that a browser could send, or "*" stands alone.

    Raises:
        ValueError: what is wrong with the first that is not, and what would do.
    """
    for origin in origins:
        if origin == "*":
            if len(origins) > 1:
                raise ValueError('cors: "*" allows every page, so it stands alone')
        elif origin == "null":
            raise ValueError(
                'cors: "null" is the origin of any sandboxed page; name the page\'s own, '
                'or write "*" for every page'
            )
        elif not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"cors: {origin!r} is not an origin as browsers send it: scheme, host and port in "
                "lower case and nothing after them, such as 'https://app.example.org'"
            )
        elif (origin.startswith("https://") and origin.endswith(":443")) or (
            origin.startswith("http://") and origin.endswith(":80")
        ):
            raise ValueError(f"cors: browsers leave out the default port of {origin!r}")


class CrossOrigin:
    """What a browser is told about the pages that may read an answer.

    Args:
        origins: as in the configuration (`check_origins`); without any, nobody is told anything.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        check_origins(origins)
        self._every = "*" in origins
        self._origins = frozenset(o.encode() for o in origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def around(self, scope: Scope, send: Send) -> Send:
        """`send`, which adds to the head of the answer who may read it."""
        allowed = self._allowed(header(scope, b"origin"))
        # A cache must not give one page's answer to another.
        vary = [] if self._every else [(b"vary", b"origin")]

        async def told(event: Event) -> None:
            if event["type"] == "http.response.start":
                names = b", ".join(name for name, _ in event["headers"])
                shown = [(b"access-control-expose-headers", names)] if allowed and names else []
                event = {**event, "headers": [*event["headers"], *allowed, *shown, *vary]}
            await send(event)

        return told

    def preflight(self, scope: Scope, methods: bytes) -> Headers | None:
        """The further headers for a browser that asks before it sends; None: it asks no such thing.

        Args:
            methods: what the path takes, as in `Allow`.
        """
        if not _preflight(scope) or not self._allowed(header(scope, b"origin")):
            return None
        wanted = header(scope, b"access-control-request-headers")
        # Any header may be sent: none of them is believed without a key.
        named = [(b"access-control-allow-headers", wanted)] if _NAMES.fullmatch(wanted) else []
        return [
            (b"access-control-allow-methods", methods),
            *named,
            (b"access-control-max-age", _SECONDS),
        ]

    def _allowed(self, origin: bytes) -> Headers:
        if not origin or not self._origins:
            return []
        if self._every:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", origin)] if origin in self._origins else []


def _preflight(scope: Scope) -> bool:
    return scope["method"] == "OPTIONS" and bool(header(scope, b"access-control-request-method"))
