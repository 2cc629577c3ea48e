"""What went wrong, as OpenAI's clients expect to hear it.

    {"error": {"message": …, "type": …, "param": …, "code": …}}

Clients retry 429 and 5xx by themselves; `x-should-retry: false` tells them where that is no use.
Only texts of our own errors are passed on, and those hold no private text by rule; of any other
exception only the class is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    CosiloError,
    LocalOnlyError,
    ModelError,
    PrivacyError,
    RejectedError,
    RequestBudgetError,
    StoreError,
    UnexpectedReplyError,
    UnprotectableError,
    UnreachableError,
)
from cosilo.gateway.accounts.accounts import OverBudgetError


class RequestError(CosiloError):
    """The client's request cannot be served as it is; it gets the HTTP status `status`."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.kind = kind
        self.headers = headers or {}


class BreakerOpenError(UnreachableError):
    """The upstream failed too often; it is asked again in `retry_after` seconds."""

    def __init__(self, upstream: str, retry_after: float) -> None:
        super().__init__(
            f"the large model {upstream!r} has failed repeatedly and is being left alone; "
            f"it is tried again in {max(1, round(retry_after))} s"
        )
        self.retry_after = retry_after


class UpstreamTimeoutError(UnreachableError):
    """No answer, or no further piece of one, within the point's limit."""


@dataclass(frozen=True)
class Refusal:
    """A status, the error object of the body, and headers that go with them."""

    status: int
    message: str
    kind: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> dict[str, str | None]:
        return {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }  # fmt: skip

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"error": self.error})


_NO_RETRY = {"x-should-retry": "false"}
_CLIENTS = frozenset((400, 413, 422))  # statuses by which an upstream refuses what the client asked


def refusal(error: BaseException) -> Refusal:
    """How `error` is told to the client."""
    text = str(error)
    match error:
        case RequestError():
            return Refusal(error.status, text, error.kind, error.code, error.param, error.headers)
        case OverBudgetError(kind="requests"):
            wait = {} if error.retry_after is None else {"retry-after": _whole(error.retry_after)}
            return Refusal(
                429, text, "rate_limit_error", "rate_limit_exceeded", error.kind, headers=wait
            )
        case OverBudgetError():
            return Refusal(
                429, text, "insufficient_quota", "insufficient_quota", error.kind, _NO_RETRY
            )
        case RequestBudgetError():
            return Refusal(400, text, "invalid_request_error", "request_over_budget")
        case BudgetExceededError():
            return Refusal(429, text, "insufficient_quota", "insufficient_quota", headers=_NO_RETRY)
        case LocalOnlyError():
            return Refusal(403, text, "permission_error", "local_only", headers=_NO_RETRY)
        case UnprotectableError():
            return Refusal(
                400, text, "invalid_request_error", "cannot_be_protected", headers=_NO_RETRY
            )
        case PrivacyError():
            return Refusal(503, text, "privacy_error", "privacy_guard_failed", headers=_NO_RETRY)
        case BreakerOpenError():
            headers = {"retry-after": _whole(error.retry_after)}
            return Refusal(503, text, "upstream_error", "upstream_unavailable", headers=headers)
        case UpstreamTimeoutError():
            return Refusal(504, text, "upstream_error", "upstream_timeout")
        case CapabilityError():
            return Refusal(400, text, "invalid_request_error", "not_supported_by_point")
        case UnreachableError(status=429):
            wait = {"retry-after": _whole(error.retry_after)} if error.retry_after else {}
            return Refusal(429, text, "upstream_error", "rate_limit_exceeded", headers=wait)
        case UnreachableError():
            return Refusal(502, text, "upstream_error", "upstream_unreachable")
        case RejectedError(status=status, code=code) if status in _CLIENTS or (
            (status, code) == (404, "model_not_found")
        ):
            # What the large model's owner says of this request; of the gateway's own key it is ours.
            told = code if code not in ("", "error") else "upstream_rejected"
            return Refusal(
                status, text, "invalid_request_error", told, error.param or None, _NO_RETRY
            )
        case ModelError() | UnexpectedReplyError():
            return Refusal(502, text, "upstream_error", "upstream_rejected", headers=_NO_RETRY)
        case StoreError():
            return Refusal(
                503, "the gateway cannot record requests now, so it sends none", "server_error",
                "store_unavailable", headers={"retry-after": "5"},
            )  # fmt: skip
        case CosiloError():
            return Refusal(500, text, "server_error", "internal_error", headers=_NO_RETRY)
        case _:
            return Refusal(
                500, f"an internal error ({type(error).__name__}); see the server's log",
                "server_error", "internal_error", headers=_NO_RETRY,
            )  # fmt: skip


def _whole(seconds: float) -> str:
    return str(max(1, round(seconds + 0.5)))
