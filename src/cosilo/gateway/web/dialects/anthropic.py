"""How Anthropic's endpoints refuse, and what all their answers have."""

from __future__ import annotations

import msgspec

from cosilo.gateway.refusals import Refusal

_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    504: "timeout_error",
}  # fmt: skip


class AnthropicShape:
    """Errors by the names of Anthropic's types; the `code` of OpenAI's shapes stands in `details`."""

    def error(self, refusal: Refusal) -> tuple[int, bytes]:
        return refusal.status, error_body(refusal)

    def headers(self, request: str) -> list[tuple[str, str]]:
        return [("request-id", request)]


def error_body(refusal: Refusal, request: str | None = None) -> bytes:
    """What went wrong, as Anthropic's clients expect to hear it."""
    other = "invalid_request_error" if refusal.status < 500 else "api_error"
    kind = _TYPES.get(refusal.status, other)
    if refusal.status == 503 and refusal.code in ("overloaded", "upstream_unavailable"):
        kind = "overloaded_error"
    told: dict[str, object] = {"type": kind, "message": refusal.message}
    if refusal.code:
        where = {"param": refusal.param} if refusal.param else {}
        told["details"] = {"error_code": refusal.code, **where}
    named = {"request_id": request} if request else {}
    return msgspec.json.encode({"type": "error", "error": told, **named})
