"""Any endpoint that speaks OpenAI's chat API: vLLM, Ollama, llama.cpp's server, hosted models.

    request ──▶ at most `concurrency` at once ──▶ POST ──▶ reply
                      ▲                             │ refused, reset, timed out, 408, 409, 425, 429, 5xx
                      └──── a while, with jitter ◀──┘

An error names the endpoint, the status and the content type, never the body: it may quote the prompt.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cosilo.errors import ConfigError, RejectedError, UnreachableError
from cosilo.models.base import Access, Vectors, models
from cosilo.models.chat import chat_api, embedding_api
from cosilo.models.chat.tool_pieces import ToolPieces
from cosilo.models.remote.addresses import checked_url, in_clear, key_in
from cosilo.models.remote.calls import Call, CallPool, RetryError, Sent
from cosilo.models.remote.connections import Connection, Connections
from cosilo.models.remote.sse import Events, EventTooLongError
from cosilo.types import Chat, Delta, Generation, Sampling, closing, disassemble

log = logging.getLogger("cosilo.models")

MAX_REPLY_BYTES = 32 << 20
MAX_VECTORS_BYTES = 128 << 20
_LONGEST_WAIT_S = 60.0
_RETRIED = frozenset({408, 409, 425, 429})
_ALWAYS = frozenset({401, 402, 403, 404, 405})  # what refuses one request like this refuses all
_DONE = b"[DONE]"
_NOTHING = Delta()
_WHOLE = frozenset({"application/json", "application/problem+json", "text/html"})
"""Content types of replies that are no stream of events, though one was asked for."""


class OpenAIModel:
    """A model behind a URL. Options: see `openai`, the factory that plans use.

    Without constraint on their side, replies to `Sampling.choices` are mapped to the choice they name,
    where that is clear, and kept as they came where it is not.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        api_key_env: str = "",
        logprobs: bool = False,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        connect_timeout_s: float = 10.0,
        idle_timeout_s: float = 60.0,
        retries: int = 4,
        reasoning: int = 0,
        backoff_s: float = 0.5,
        max_tokens_field: str = "max_tokens",
        omit: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.base_url = checked_url(base_url)
        if in_clear(self.base_url):
            log.warning(
                "model %r is asked over http:// on another machine: whoever is on the way can read "
                "along; use https://, or a tunnel",
                model,
            )
        self.model = model
        self.logprobs = logprobs
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.connect_timeout_s = connect_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.retries = retries
        self.reasoning = reasoning
        self.backoff_s = backoff_s
        self.max_tokens_field = max_tokens_field
        self.omit = tuple(omit)
        self.extra = dict(extra or {})
        self._api_key_env = api_key_env
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._pools: dict[asyncio.AbstractEventLoop, CallPool] = {}
        self._random = random.Random()
        if concurrency < 1 or retries < 0 or min(timeout_s, connect_timeout_s, idle_timeout_s) <= 0:
            raise ConfigError(
                "concurrency and all timeouts must be above 0, and retries at least 0"
            )
        if reasoning < 0:
            raise ConfigError(f"reasoning must be 0 or more, not {reasoning}")

    @property
    def name(self) -> str:
        return self.model

    @property
    def place(self) -> str:
        """The host that it is asked at."""
        return urlsplit(self.base_url).netloc

    @property
    def identity(self) -> str:
        """What decides its answers: where it is, which model, and what is added to or left out."""
        told = [self.base_url, self.model, self.logprobs, sorted(self.omit), self.extra]
        if self.reasoning:  # without it, answers recorded before there was any are still its own
            told.append(self.reasoning)
        return "openai:" + msgspec.json.encode(told, order="deterministic").decode()

    @property
    def access(self) -> Access:
        return Access.LOGPROBS if self.logprobs else Access.TEXT

    def honours(self, field: str) -> bool:
        """Whether a further field is sent on as it is: the endpoint takes it or refuses the request."""
        return field not in self.omit and field not in self.extra

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The reply.

        Raises:
            UnreachableError: the endpoint was down, slow or overloaded, also after the retries.
            RejectedError: it refuses the request, or its reply is none.
        """
        body = self._body(chat, sampling, stream=False)
        with Sent() as sent:
            while True:
                try:
                    return await self._whole(body, sampling, sent)
                except RetryError as failure:
                    await self._wait(failure, sent)

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        """The reply in pieces. Closing it cancels the request.

        A failure is retried until the first piece came; after that it is raised. With
        `Sampling.choices` there is one piece, because only the whole reply tells which choice it is.

        Raises:
            what `generate` does; a stream that ends before its end is an `UnreachableError`.
        """
        if sampling.choices:
            yield disassemble(await self.generate(chat, sampling))
            return
        body = self._body(chat, sampling, stream=True)
        with Sent() as sent:
            while True:
                begun = False
                try:
                    async with closing(self._pieces(body, sent)) as pieces:
                        async for piece in pieces:
                            begun = True
                            yield piece
                    return
                except RetryError as failure:
                    if begun:
                        raise UnreachableError(f"{failure}, in the middle of the reply") from None
                    await self._wait(failure, sent)

    async def vectors(self, texts: Sequence[str], dimensions: int | None = None) -> Vectors:
        """A vector for each text, from the endpoint's `/embeddings`; raises what `generate` does."""
        asked = {"model": self.model, **embedding_api.request(texts, dimensions), **self.extra}
        body = self._encoded(asked)
        with Sent() as sent:
            while True:
                try:
                    async with Call(self, body, self.timeout_s, sent, "/embeddings") as response:
                        data = await _read(response, MAX_VECTORS_BYTES)
                        with self._parsing(response):
                            found = embedding_api.vectors(data, len(texts))
                    return replace(found, attempts=sent.worked)
                except RetryError as failure:
                    await self._wait(failure, sent)

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        for loop, pool in pools.items():
            if loop is asyncio.get_running_loop():
                pool.connections.close()

    def _body(self, chat: Chat, sampling: Sampling, *, stream: bool) -> bytes:
        if sampling.top_logprobs and not self.logprobs:
            raise RejectedError(
                f"{self.name!r} is set up without log-probabilities; if its endpoint has them, set "
                "logprobs = true",
                everything=True,
            )
        body = chat_api.request(
            chat, sampling, logprobs=self.logprobs, reasoning=self.reasoning, written=True
        )
        body["model"] = self.model
        body[self.max_tokens_field] = body.pop("max_tokens")
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= self.extra
        return self._encoded(body)

    def _encoded(self, body: Mapping[str, Any]) -> bytes:
        try:
            return msgspec.json.encode({k: v for k, v in body.items() if k not in self.omit})
        except UnicodeEncodeError:
            raise RejectedError("the request holds characters that are no valid Unicode") from None

    async def _whole(self, body: bytes, sampling: Sampling, sent: Sent) -> Generation:
        started = perf_counter()
        async with Call(self, body, self.timeout_s, sent) as response:
            data = await _read(response)
            with self._parsing(response):
                reply = chat_api.completion(data)
        self._require_logprobs(bool(reply.text), bool(reply.tokens))
        reply = msgspec.structs.replace(
            chat_api.choice_of(reply, sampling.choices),
            tokens=reply.tokens if self.logprobs else (),
            seconds=perf_counter() - started,
            attempts=sent.worked,
        )
        return reply

    async def _pieces(self, body: bytes, sent: Sent) -> AsyncIterator[Delta]:
        started = perf_counter()
        used = Delta()  # what it used, where it says so before the end
        ending: list[Delta] = []
        said = tokens_seen = False
        async with Call(self, body, self.idle_timeout_s, sent) as response:
            if response.content_type in _WHOLE:  # it does not stream
                response.deadline += self.timeout_s - self.idle_timeout_s
                data = await _read(response)
                with self._parsing(response):
                    pieces = [disassemble(chat_api.completion(data))]
                ending, said = pieces, bool(pieces[0].text)
                tokens_seen = bool(pieces[0].tokens)
            else:
                parsing, calls = self._parsing(response), ToolPieces()
                async for events in self._events(response):
                    with parsing:
                        for piece in chat_api.chunks(events, calls):
                            if piece.tokens and not self.logprobs:
                                piece = msgspec.structs.replace(piece, tokens=())
                            said = said or bool(piece.text or piece.other_texts)
                            tokens_seen = tokens_seen or bool(piece.tokens)
                            if ending or piece.finish_reason is not None:
                                ending.append(piece)
                                continue
                            if piece.completion_tokens or piece.prompt_tokens:
                                used = _used(piece)
                                piece = msgspec.structs.replace(
                                    piece,
                                    prompt_tokens=0,
                                    completion_tokens=0,
                                    cached_tokens=0,
                                    reasoning_tokens=0,
                                )
                            if piece != _NOTHING:
                                yield piece
            if not any(piece.finish_reason for piece in ending):
                raise RetryError(f"{self.where(response)}: the stream ended before the reply did")
        self._require_logprobs(said, tokens_seen)
        last = chat_api.last_piece([used, *ending])
        yield msgspec.structs.replace(
            last,
            tokens=last.tokens if self.logprobs else (),
            seconds=perf_counter() - started,
            attempts=sent.worked,
        )

    async def _events(self, response: Connection) -> AsyncIterator[list[bytes]]:
        """The data of the events that came together, up to `[DONE]`; comments that keep a connection
        open are no events."""
        events, total = Events(), 0
        loop = asyncio.get_running_loop()
        response.deadline = loop.time() + self.idle_timeout_s
        while True:
            try:
                piece = await response.piece()
            except TimeoutError:
                raise RetryError(
                    f"{self.where(response)}: nothing came for {self.idle_timeout_s:g} s"
                ) from None
            total += len(piece)
            try:
                found = events.feed(piece) if piece else events.end()
            except EventTooLongError:
                raise RejectedError(f"{self.where(response)}: an event is too long") from None
            if total > MAX_REPLY_BYTES:
                raise RejectedError(f"{self.where(response)}: the reply is too long")
            done = next((i for i, data in enumerate(found) if data.strip() == _DONE), None)
            if done is not None:
                if done:
                    yield found[:done]
                return
            if found:
                yield found
                response.deadline = loop.time() + self.idle_timeout_s
            if not piece:
                return

    async def refused(self, response: Connection) -> None:
        status, where = response.status, self.where(response)
        error = chat_api.ReportedError(0, "")
        with suppress(RejectedError):  # it is too long to be read
            error = chat_api.reported(await _read(response))
        kind, param = error.kind, error.param
        said = where + (f": {kind}" if kind else "") + (f" ({param})" if param else "")
        if (status in _RETRIED or status >= 500) and kind != "insufficient_quota":
            after_s = _retry_after(response.header(b"retry-after"))
            raise RetryError(said, after_s, status)
        always = status in _ALWAYS or 300 <= status < 400 or kind == "insufficient_quota"
        raise RejectedError(
            said + self._advice(status), everything=always, status=status, code=kind, param=param
        )

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            if self._api_key_env:
                return f"; the key in the environment variable {self._api_key_env!r} is refused"
            return "; it wants a key: set api_key_env to the name of the variable that holds it"
        if status == 404:
            return (
                "; is the model's name right, and is base_url what stands before /chat/completions?"
            )
        if 300 <= status < 400:
            return "; redirects are not followed, so that prompts go nowhere else: change base_url"
        return ""

    def _parsing(self, response: Connection) -> _Parsing:
        return _Parsing(self, response)

    def _require_logprobs(self, said: bool, shown: bool) -> None:
        if self.logprobs and said and not shown:
            raise RejectedError(
                f"{self.where()}: it shows no log-probabilities; set logprobs = false for it",
                everything=True,
            )

    async def _wait(self, failure: RetryError, sent: Sent) -> None:
        """Wait before the next try, or give up.

        Exponential backoff with full jitter, and no less than the endpoint asks for.
        """
        sent.failures += 1
        if sent.failures > self.retries or failure.after_s > _LONGEST_WAIT_S:
            tries = f" (tried {sent.failures} times)" if sent.failures > 1 else ""
            raise UnreachableError(
                f"{failure}{tries}", status=failure.status, retry_after=failure.after_s
            ) from None
        most = min(_LONGEST_WAIT_S, self.backoff_s * 2 ** (sent.failures - 1))
        await asyncio.sleep(max(failure.after_s, self._random.uniform(0, most)))

    def where(self, response: Connection | None = None) -> str:
        if response is None:
            return f"{self.model!r} at {self.place}"
        kind = response.content_type
        if not re.fullmatch(r"[a-z]{1,20}/[a-z0-9.+-]{1,40}", kind):
            kind = "an odd content type"  # which may quote
        return f"{self.model!r} at {self.place}: HTTP {response.status}, {kind}"

    def pool(self) -> CallPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            for other in [o for o in self._pools if o.is_closed()]:
                del self._pools[other]
            try:
                connections = Connections(
                    self.base_url, self._headers, connect_timeout_s=self.connect_timeout_s
                )
            except ValueError:
                said = f"{self.where()}: base_url is no URL that can be called"
                raise RejectedError(said, everything=True) from None
            pool = self._pools[loop] = CallPool(connections, asyncio.Semaphore(self.concurrency))
        return pool


class _Parsing:
    """A context that turns the errors of parsing a reply into a `ModelError` which names the
    endpoint.
    """

    def __init__(self, model: OpenAIModel, response: Connection) -> None:
        self._model = model
        self._response = response

    @property
    def _where(self) -> str:
        return self._model.where(self._response)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        match error:
            case chat_api.MalformedReplyError():
                raise RejectedError(f"{self._where}: {error}") from None
            case chat_api.ReportedError(code=code) if code in _RETRIED or code >= 500:
                raise RetryError(f"{self._where}: {error.kind}", status=code) from None
            case chat_api.ReportedError(code=code, kind=name, param=param):
                raise RejectedError(
                    f"{self._where}: {name}", status=code, code=name, param=param
                ) from None


async def _read(response: Connection, most: int = 0) -> bytes:
    most = most or MAX_REPLY_BYTES
    data = await response.piece()
    if not response.at_end:
        whole = bytearray(data)
        while len(whole) <= most and (piece := await response.piece()):
            whole += piece
        data = bytes(whole)
    if len(data) > most:
        raise RejectedError(f"HTTP {response.status}: the reply is longer than {most >> 20} MB")
    return data


def _used(piece: Delta) -> Delta:
    return Delta(
        prompt_tokens=piece.prompt_tokens,
        completion_tokens=piece.completion_tokens,
        cached_tokens=piece.cached_tokens,
        reasoning_tokens=piece.reasoning_tokens,
    )


def _retry_after(text: str) -> float:
    """Seconds: the header holds a number of them, or a date."""
    with suppress(ValueError):
        return max(0.0, float(text))
    with suppress(ValueError, TypeError):
        when = parsedate_to_datetime(text)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return 0.0


@models.register("openai")
def openai(
    base_url: str,
    model: str,
    api_key_env: str = "",
    logprobs: bool = False,
    concurrency: int = 8,
    timeout_s: float = 120.0,
    connect_timeout_s: float = 10.0,
    idle_timeout_s: float = 60.0,
    retries: int = 4,
    reasoning: int = 0,
    max_tokens_field: str = "max_tokens",
    omit: Sequence[str] = (),
    extra: Mapping[str, object] | None = None,
) -> OpenAIModel:
    """A model behind any URL that speaks OpenAI's chat API.

    Args:
        base_url: up to and including `/v1`.
        model: its name there.
        api_key_env: the environment variable that holds the key; never the key itself.
        logprobs: the endpoint shows log-probabilities, and strategies may use them.
        concurrency: requests under way at once.
        timeout_s: seconds for a whole reply.
        connect_timeout_s: seconds for the connection.
        idle_timeout_s: seconds between two pieces of a stream.
        retries: after the first try, of what is worth retrying; a budget sets aside what all can cost.
        reasoning: tokens the model may think of before it answers, on top of the answer's; inside the
            estimate and every budget.
        max_tokens_field: what the endpoint calls it ("max_completion_tokens" for some).
        omit: fields of the request that the endpoint does not accept.
        extra: fields to add to each request.

    Raises:
        ConfigError: the URL is none, or the environment variable is not set.
    """
    return OpenAIModel(
        base_url,
        model,
        api_key=key_in(api_key_env),
        api_key_env=api_key_env,
        logprobs=logprobs,
        concurrency=concurrency,
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
        idle_timeout_s=idle_timeout_s,
        retries=retries,
        reasoning=reasoning,
        max_tokens_field=max_tokens_field,
        omit=omit,
        extra=extra,
    )
