"""One call of an endpoint: the connection that it takes, and what its failures become.

at most `concurrency` at once ──▶ POST ──▶ 200: the reply, read in the call's context
                                    └─▶ else: `RetryError`, or one of our errors
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Protocol

from cosilo.errors import ModelError, RejectedError
from cosilo.models.remote.connections import (
    BrokenError,
    Connection,
    Connections,
    UnconnectedError,
)

_WORKED = frozenset({408, 499})  # of 400 to 499, those where the work may have been begun


@dataclass
class CallPool:
    """The connections and the limit on calls at once, which belong to one event loop."""

    connections: Connections
    slots: asyncio.Semaphore


class RetryError(Exception):
    """Worth trying again: what went wrong, and the seconds the endpoint asks to wait."""

    def __init__(self, why: str, after_s: float = 0.0, status: int = 0) -> None:
        super().__init__(why)
        self.after_s = after_s
        self.status = status


@dataclass
class Sent:
    """How often the request left, how often it was refused without work, and how often that failed.

    As a context it writes on the error that leaves it how many requests the model may have worked on.
    """

    times: int = 0
    refused: int = 0
    failures: int = 0

    @property
    def worked(self) -> int:
        """How many of the requests that left may have been worked on, and billed."""
        return self.times - self.refused

    def __enter__(self) -> Sent:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModelError | asyncio.CancelledError):
            error.worked = self.worked  # type: ignore[union-attr]


class Endpoint(Protocol):
    """Whom a call goes to."""

    @property
    def connect_timeout_s(self) -> float: ...
    def pool(self) -> CallPool: ...
    def where(self, response: Connection | None = None) -> str:
        """How errors call it."""

    async def refused(self, response: Connection) -> None:
        """Raise the error that a response of another status than 200 is."""


class Call:
    """A context in which a response with status 200 is read; whatever fails in it becomes one of our
    errors, and leaving it before the response's end ends the request.

    Args:
        seconds: how long the reply may take: the whole of it, or its head where the reader sets
            another deadline then.
    """

    def __init__(
        self,
        model: Endpoint,
        body: bytes,
        seconds: float,
        sent: Sent,
        path: str = "/chat/completions",
    ) -> None:
        self._model = model
        self._body = body
        self._seconds = seconds
        self._sent = sent
        self._path = path
        self._response: Connection | None = None

    async def __aenter__(self) -> Connection:
        pool = self._model.pool()
        await pool.slots.acquire()
        self._slots = pool.slots
        self._sent.times += 1
        try:
            self._response = response = await pool.connections.post(
                self._path, self._body, self._seconds
            )
            if response.status != 200:
                self._sent.refused += _was_refused(response.status)
                await self._model.refused(response)
        except BaseException as error:
            self._end(error)
            raise
        return response

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._response is not None:
            self._response.release()
        self._slots.release()
        model = self._model
        match error:
            case None:
                return
            case UnconnectedError():
                self._sent.times -= 1  # no request without a connection
                raise _unconnected(model, error.__cause__) from None
            case TimeoutError():
                where, seconds = model.where(), self._seconds
                raise RetryError(f"{where}: no reply within {seconds:g} s") from None
            case ssl.SSLError():
                raise RejectedError(f"{model.where()}: TLS failed", everything=True) from None
            case BrokenError() | OSError():
                said = f"{model.where()}: the connection broke ({error or type(error).__name__})"
                raise RetryError(said) from None


def _unconnected(model: Endpoint, error: BaseException | None) -> Exception:
    where = model.where()
    if isinstance(error, TimeoutError):
        return RetryError(f"{where}: no connection within {model.connect_timeout_s:g} s")
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return RejectedError(f"{where}: its TLS certificate is not accepted", everything=True)
    return RetryError(f"{where}: it cannot be reached ({_reason(error)})")


def _was_refused(status: int) -> bool:
    """Whether an answer of this status says that the model was not asked at all."""
    return (300 <= status < 500 and status not in _WORKED) or status in (503, 529)


def _reason(error: BaseException | None) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
