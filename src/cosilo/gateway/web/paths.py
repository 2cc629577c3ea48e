"""Where a client asks: a path as its base URL makes it, as the path that is documented.

Clients put what a library calls an endpoint behind a base URL that people write in many ways:

    http://host           /chat/completions
    http://host/          //chat/completions
    http://host/v1        /v1/messages, or /v1/v1/messages (Anthropic's libraries add their own /v1)
    http://host/v1/       /v1//models/
"""

from __future__ import annotations

import re

from cosilo.gateway.refusals import RequestError

_ENDPOINTS = (
    "/chat/completions", "/completions", "/embeddings", "/messages", "/models", "/responses",
)  # fmt: skip
_VERSIONS = re.compile(r"\A(?:/v1(?=/))*")
_SLASHES = re.compile("/{2,}")


def documented(path: str) -> str:
    """`path` without repeated or trailing slashes, and with one `/v1` before an endpoint's name.

    >>> documented("//chat/completions/")
    '/v1/chat/completions'

    What names no endpoint of the API comes back as it is.
    """
    rest = _VERSIONS.sub("", _SLASHES.sub("/", path)).rstrip("/")
    for endpoint in _ENDPOINTS:
        if rest == endpoint or rest.startswith(endpoint + "/"):
            return "/v1" + rest
    return path


def nothing_at(path: str) -> RequestError:
    """Why nothing is served at `path`."""
    why = "there is nothing here"
    if path.startswith("/v1/responses/resp_"):
        why = (
            "no response is kept, so there is none to get, cancel or delete; "
            "send the whole conversation as input to /v1/responses"
        )
    return RequestError(why, status=404, code="not_found")
