"""The gateway: an ASGI application that answers requests in several shapes, over prepared points.

    /v1/chat/completions  /v1/completions  … (`dialects`)     with a key, and without /v1
    /v1/embeddings  /v1/models                                with a key, and without /v1
    /healthz  /readyz  /metrics                               without one
    /ui                                                       when one is given

Every request takes the same way, streamed or not:

    key ─▶ body ─▶ dialect.read ─▶ point ─▶ reserve ─▶ answer ─▶ settle ─▶ count, log
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cosilo.errors import CosiloError, StoreError
from cosilo.gateway.accounts.accounts import AccountStore, Key, Spend
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.refusals import Refusal, RequestError, refusal
from cosilo.gateway.serving import counting, embedding
from cosilo.gateway.serving.answering import (
    answer_one,
    bound,
    chat_for,
    require_logprobs,
    require_size,
    sampling_for,
    stream_one,
)
from cosilo.gateway.serving.booking import RequestBooks
from cosilo.gateway.serving.exchange import Exchange, Setup
from cosilo.gateway.serving.files.reader import FileReader
from cosilo.gateway.serving.points import ServedPoint, find
from cosilo.gateway.serving.tabs import Tab
from cosilo.gateway.web.cors import CrossOrigin
from cosilo.gateway.web.dialects import DIALECTS
from cosilo.gateway.web.dialects.anthropic import AnthropicShape
from cosilo.gateway.web.dialects.base import AnswerEvents, Continuation, Dialect, Envelope, Shape
from cosilo.gateway.web.dialects.files import headed, placed
from cosilo.gateway.web.dialects.openai import OpenAIShape
from cosilo.gateway.web.embeddings import embedding_answer, read_embedding
from cosilo.gateway.web.http import (
    App,
    Bodies,
    ClientLeftError,
    ClientWatch,
    Headers,
    Receive,
    Scope,
    Send,
    begin_events,
    encode_headers,
    end,
    header,
    no_content,
    piece,
    respond,
    to_json,
)
from cosilo.gateway.web.local_only import said_in_body, said_in_header
from cosilo.gateway.web.model_list import model_fields, model_list
from cosilo.gateway.web.paths import documented, nothing_at
from cosilo.strategies.fanout import fan_out
from cosilo.types import Answer, Chat, Sampling, closing

_LARGE = 1_000_000  # bytes of a body that takes some milliseconds to read

Handle = Callable[[Exchange, Scope, bytes, Receive, Send], Awaitable[None]]

_OPENAI = OpenAIShape()
_ANTHROPIC = AnthropicShape()


@dataclass(frozen=True)
class _Post:
    """What a path that takes requests with a key does with one, and how it refuses it."""

    endpoint: str
    handle: Handle
    shape: Shape


class Gateway:
    """The ASGI application.

    Args:
        setup: points and upstreams; replaced by `adopt` when the configuration is read again.
        store: keys, budgets and the record.
        tabs: shared with the guards of the points.
        most_at_once: requests being answered; more are told to come back.
        access_log: whether a line per request goes to standard error.
        ui: an ASGI application for `/ui`.
        cors: the origins of web pages that may call the API from a browser; "*" for all.
        reader: turns files that clients send into text.
    """

    def __init__(
        self,
        setup: Setup,
        store: AccountStore,
        *,
        metrics: Metrics,
        bodies: Bodies,
        tabs: dict[str, Tab],
        most_at_once: int = 512,
        access_log: bool = False,
        ui: App | None = None,
        cors: Sequence[str] = (),
        reader: FileReader | None = None,
    ) -> None:
        self.setup = setup
        self.store = store
        self.metrics = metrics
        self.bodies = bodies
        self.tabs = tabs
        self.most_at_once = most_at_once
        self.access_log = access_log
        self.ui = ui
        self.cors = CrossOrigin(cors)
        self.reader = reader or FileReader()
        self.draining = False
        self.booking = RequestBooks(store, tabs)
        self._keyed: dict[str, _Post] = {
            "/v1/embeddings": _Post("embeddings", self._embeddings, _OPENAI),
            "/v1/messages/count_tokens": _Post("count_tokens", _count_tokens, _ANTHROPIC),
        }
        for dialect in DIALECTS:
            answer = partial(self._continue, dialect)
            self._keyed[dialect.path] = _Post(dialect.endpoint, answer, dialect)
        self._open: dict[str, Callable[[Send], Awaitable[None]]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        with contextlib.suppress(ClientLeftError):
            await self._route(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        if path not in self._keyed:
            path = documented(path)
        if (post := self._keyed.get(path)) is not None:
            if self.cors:
                send = self.cors.around(scope, send)
            if method == "POST":
                await self._exchange(post, scope, receive, send)
            else:
                await self._not_sent(scope, send, "POST", post.shape)
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            if self.cors:
                send = self.cors.around(scope, send)
            if method in ("GET", "HEAD"):
                await self._models(scope, path[len("/v1/models/") :], send)
            else:
                await self._not_sent(scope, send, "GET, HEAD")
        elif (plain := self._open.get(path)) is not None:
            if method not in ("GET", "HEAD"):
                await _refuse(send, _method_not_allowed("GET, HEAD"))
                return
            await plain(send)
        elif self.ui is not None and (path == "/ui" or path.startswith("/ui/")):
            with contextlib.suppress(TimeoutError):  # a form that does not come is not waited for
                async with asyncio.timeout(self.bodies.seconds):
                    await self.ui(scope, receive, send)
        else:
            shape: Shape = _ANTHROPIC if header(scope, b"anthropic-version") else _OPENAI
            await _refuse(send, nothing_at(path), shape)

    async def _not_sent(
        self, scope: Scope, send: Send, allowed: str, shape: Shape = _OPENAI
    ) -> None:
        """What an endpoint takes, to whoever asks (OPTIONS), or tries another method (405)."""
        if scope["method"] != "OPTIONS":
            await _refuse(send, _method_not_allowed(allowed), shape)
            return
        methods = f"{allowed}, OPTIONS".encode()
        asked_first = self.cors.preflight(scope, methods) or []
        await no_content(send, [(b"allow", methods), *asked_first])

    async def adopt(self, setup: Setup) -> None:
        """Answer new requests with `setup`; the one before is closed after its last request."""
        before, self.setup = self.setup, setup
        before.retired = True
        if not before.in_flight:
            await before.close()

    async def close(self) -> None:
        """Finish what is still being settled, if it can be within seconds, and close the points."""
        await self.booking.close()
        await self.setup.close()

    # One request.

    async def _exchange(
        self,
        post: _Post,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        x = Exchange(post.endpoint, _new_id(), time.time(), self.setup, time.perf_counter())
        body, answering = None, False
        try:
            self._require_room()
            x.key = await self._authenticate(scope)
            x.local_only = x.key.local_only or said_in_header(scope)
            body = await self.bodies.read(scope, receive)
            # Only now it takes a place: a client that is slow to send its body keeps nobody out.
            self._require_room()
            x.setup = self.setup
            x.setup.in_flight += 1
            answering = True
            await post.handle(x, scope, body, receive, send)
        except ClientLeftError:
            x.left = True
        except asyncio.CancelledError:
            if not x.left:  # the server is shutting down
                raise
        except Exception as error:
            await self._failed(x, error, post.shape, send)
        finally:
            if body is not None:
                self.bodies.release(body)
            if answering:
                x.setup.in_flight -= 1
                if x.setup.retired and not x.setup.in_flight:
                    self.booking.later(x.setup.close())
            seconds = time.perf_counter() - x.clock
            counting.count(self.metrics, x, seconds)
            if self.access_log:
                os.write(2, counting.line(x, seconds))

    def _require_room(self) -> None:
        if self.setup.in_flight >= self.most_at_once:
            raise RequestError(
                "too many requests at once; try again",
                status=503, kind="server_error", code="overloaded", headers={"retry-after": "1"},
            )  # fmt: skip

    async def _authenticate(self, scope: Scope) -> Key:
        scheme, _, bearer = header(scope, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not bearer.strip():
            bearer = header(scope, b"x-api-key")  # Anthropic's clients
        if not bearer.strip():
            raise RequestError(
                "no key: send one that `cosilo keys create` made as 'Authorization: Bearer …' or "
                "'x-api-key: …'",
                status=401, code="missing_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        key = await self.store.accounts.authenticate(bearer.strip().decode("latin-1"))
        if key is None:
            raise RequestError(
                "this key is not known or was revoked",
                status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        return key

    def _continue(
        self,
        dialect: Dialect,
        x: Exchange,
        scope: Scope,
        body: bytes,
        receive: Receive,
        send: Send,
    ) -> Awaitable[None]:
        wanted = dialect.read(body, partial(header, scope))
        return self._answer(x, dialect, wanted, len(body), receive, send)

    async def _answer(
        self,
        x: Exchange,
        dialect: Dialect,
        wanted: Continuation,
        size: int,
        receive: Receive,
        send: Send,
    ) -> None:
        """The only way from what a client wants to its answers, whatever shape it speaks."""
        x.point = point = self._permitted(x, wanted.model)
        x.stream = wanted.stream
        if size > _LARGE:
            await asyncio.sleep(0)  # others have their turn between reading it and sending it
        forbidden, others = said_in_body(wanted.others)
        x.local_only = x.local_only or forbidden or point.serving.local_only
        ways = point.ways(local_only=x.local_only)
        if wanted.logprobs is not None:
            require_logprobs(point, ways)
        fields, x.served.dropped = point.sorted(others, local_only=x.local_only)
        given = {**wanted.sampling, "fields": fields} if fields else wanted.sampling
        if wanted.files:
            wanted, asks = await self._with_files(x, wanted, given, receive)
        else:
            asks = _asks(point, wanted, given)
            most = bound(point, asks, local_only=x.local_only)
            await self.booking.reserve(x, most, wanted.user)
        watch = self._watch(x, receive)
        envelope = Envelope(x.id, int(x.started), point.model, wanted)
        events = dialect.events(envelope) if wanted.stream else None
        tail = b""
        answers: list[Answer] = []
        try:
            if events is not None:
                x.error_event = events.error
                tail = await self._stream(x, dialect, events, asks, answers, send)
            else:
                answers += await self._whole(x, asks)
        except BaseException as error:
            await self._settle(x, error)
            raise
        finally:
            watch.cancel()
            del self.tabs[x.id]
        await self.booking.settle(x)
        generations = [a.generation for a in answers]
        if events is not None:
            await end(send, tail + events.end(generations, x.facts))
        else:
            told = dialect.whole(envelope, generations)
            await respond(send, 200, told, _headers(x, dialect))

    async def _with_files(
        self, x: Exchange, wanted: Continuation, given: dict[str, Any], receive: Receive
    ) -> tuple[Continuation, list[tuple[Chat, Sampling]]]:
        """`wanted` with the text of its files in their places, and what is asked, paid for as else.

        The request is booked before a file is read, so that whoever may ask no more keeps nobody busy.
        """
        assert x.point is not None
        tab = await self.booking.reserve(x, Spend(requests=1), wanted.user)
        watch = self._watch(x, receive)
        try:
            texts: dict[str, str] = {}
            for file in wanted.files:
                read = (
                    self.reader.pdf(file.data, file.where)
                    if file.kind == "pdf"
                    else self.reader.image(file.data, file.kind, file.where)
                )
                texts[file.mark] = headed(file.name, await read)
            watch.cancel()
            wanted = replace(wanted, chats=placed(wanted.chats, texts), files=())
            asks = _asks(x.point, wanted, given)
            most = bound(x.point, asks, local_only=x.local_only)
            await tab.reserve(most + Spend(requests=-1))
        except BaseException as error:
            watch.cancel()
            del self.tabs[x.id]
            await self._settle(x, error)
            raise
        return wanted, asks

    async def _whole(self, x: Exchange, asks: Sequence[tuple[Chat, Sampling]]) -> list[Answer]:
        assert x.point is not None
        assert x.tab is not None
        point, tab = x.point, x.tab

        async def one(ask: tuple[Chat, Sampling]) -> Answer:
            return await answer_one(point, *ask, tab, x.served)

        if len(asks) == 1:  # as most are: without tasks
            return [await one(asks[0])]
        return await fan_out(one, asks)

    async def _stream(
        self,
        x: Exchange,
        dialect: Dialect,
        events: AnswerEvents,
        asks: Sequence[tuple[Chat, Sampling]],
        answers: list[Answer],
        send: Send,
    ) -> bytes:
        """Send the pieces of all answers, one after the other; returns what ends the stream."""
        assert x.point is not None
        assert x.tab is not None
        tail = b""
        for index, (chat, sampling) in enumerate(asks):
            tail += events.first(index)
            async with closing(stream_one(x.point, chat, sampling, x.tab, x.served)) as pieces:
                async for part in pieces:
                    if isinstance(part, Answer):
                        answers.append(part)
                        continue
                    data = events.piece(index, part)
                    if not data:
                        continue
                    if not x.begun:
                        await self._begin(x, dialect, send)
                    await piece(send, tail + data if tail else data)
                    tail = b""
            tail += events.last(index, answers[-1].generation)
        if not x.begun:
            await self._begin(x, dialect, send)
        return tail

    async def _begin(self, x: Exchange, dialect: Dialect, send: Send) -> None:
        x.begun = True
        x.status = 200
        await begin_events(send, _headers(x, dialect))

    async def _embeddings(
        self, x: Exchange, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        wanted = read_embedding(body)
        x.point = point = self._permitted(x, wanted.model)
        x.local_only = x.local_only or wanted.local_only or point.serving.local_only
        x.served.dropped = wanted.dropped
        most = embedding.most(point, wanted.message, local_only=x.local_only)
        tab = await self.booking.reserve(x, most, wanted.user)
        watch = self._watch(x, receive)
        try:
            found = await embedding.embed(point, wanted.message, tab, x.served)
        except BaseException as error:
            await self._settle(x, error)
            raise
        finally:
            watch.cancel()
            del self.tabs[x.id]
        await self.booking.settle(x)
        answer = embedding_answer(point.model, found, base64_wanted=wanted.base64)
        await respond(send, 200, to_json(answer), _headers(x, _OPENAI))

    async def _settle(self, x: Exchange, error: BaseException) -> None:
        x.left = x.left or isinstance(error, ClientLeftError)
        await self.booking.settle(x, error)

    # Around it.

    def _watch(self, x: Exchange, receive: Receive) -> ClientWatch:
        """Cancels this request's work when its client goes."""
        task = asyncio.current_task()
        assert task is not None

        def gone() -> None:
            x.left = True
            task.cancel()

        return ClientWatch(receive, gone)

    async def _failed(self, x: Exchange, error: Exception, shape: Shape, send: Send) -> None:
        told = refusal(error)
        if x.left:
            return
        if told.status >= 500:
            counting.log_failure(x, error)
        if told.status in (401, 403, 413, 429) or told.code == "overloaded":
            self.metrics.add("cosilo_refused_total", reason=told.code or str(told.status))
        if x.begun and x.error_event is not None:
            await end(send, x.error_event(told))
            return
        x.status = await _refuse(send, told, shape, _headers(x, shape))

    # What needs no key, and the list of models.

    async def _healthz(self, send: Send) -> None:
        await respond(send, 200, b'{"status":"ok"}', [])

    async def _readyz(self, send: Send) -> None:
        """200 when a request would be served now."""
        try:
            if self.draining:
                raise StoreError("shutting down")
            await self.store.check()
        except StoreError:
            await respond(send, 503, b'{"status":"not ready"}', [])
            return
        breakers = {name: u.breaker.state for name, u in self.setup.upstreams.items()}
        await respond(send, 200, to_json({"status": "ready", "upstreams": breakers}), [])

    async def _metrics(self, send: Send) -> None:
        self.metrics.set("cosilo_in_flight", self.setup.in_flight)
        for name, upstream in self.setup.upstreams.items():
            is_open = upstream.breaker.state != "closed"
            self.metrics.set("cosilo_breaker_open", float(is_open), upstream=name)
        text = self.metrics.exposition().encode()
        kind = b"text/plain; version=0.0.4; charset=utf-8"
        await respond(send, 200, text, [], content_type=kind)

    async def _models(self, scope: Scope, name: str, send: Send) -> None:
        anthropic = bool(header(scope, b"anthropic-version"))
        try:
            key = await self._authenticate(scope)
            points = self.setup.points
            if name:
                body = model_fields(find(points, name), anthropic=anthropic)
            else:
                body = model_list(
                    [p for p in points.values() if key.may_use(p.name, p.model)],
                    anthropic=anthropic,
                )
        except CosiloError as error:
            await _refuse(send, error, _ANTHROPIC if anthropic else _OPENAI)
            return
        await respond(send, 200, to_json(body), [])

    def _permitted(self, x: Exchange, model: str) -> ServedPoint:
        point = find(x.setup.points, model)
        assert x.key is not None
        if not x.key.may_use(point.name, point.model):
            raise RequestError(
                f"this key may not use {point.model!r}",
                status=403, param="model", code="model_not_allowed", kind="permission_error",
            )  # fmt: skip
        return point


async def _count_tokens(
    x: Exchange, scope: Scope, body: bytes, receive: Receive, send: Send
) -> None:
    raise RequestError(
        "only the large model's owner knows how many tokens a text is to it, and asking would send the "
        "text; `usage` of an answer says how many its request had",
        status=404, code="not_found",
    )  # fmt: skip


def _method_not_allowed(allowed: str) -> RequestError:
    return RequestError(
        f"use {allowed} here", status=405, code="method_not_allowed", headers={"allow": allowed}
    )


def _headers(x: Exchange, shape: Shape) -> Headers:
    return encode_headers([*x.headers, *shape.headers(x.id)])


def _asks(
    point: ServedPoint, wanted: Continuation, given: dict[str, Any]
) -> list[tuple[Chat, Sampling]]:
    """What is asked for: each chat `n` times, drawn by what is `given` and else as the point says.

    Raises:
        RequestError: it is more text than the point takes.
    """
    asks = [
        (chat_for(point, chat), sampling_for(point, given, i))
        for chat in wanted.chats
        for i in range(wanted.n)
    ]
    require_size(point, asks)
    return asks


async def _refuse(
    send: Send, error: Exception | Refusal, shape: Shape = _OPENAI, headers: Headers | None = None
) -> int:
    """Refuse a request, with `headers` and those of the refusal; the status that was sent."""
    told = error if isinstance(error, Refusal) else refusal(error)
    status, body = shape.error(told)
    await respond(send, status, body, [*(headers or ()), *encode_headers(told.headers.items())])
    return status


def _new_id() -> str:
    """A new request id: the time in milliseconds, then 64 random bits, both in hexadecimal.

    Ids made later sort later, so the rows of requests that came together lie together in the
    database's index, and writing them touches fewer pages.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"
