"""From a request to its answer, over the point's routes, with everything paid for.

    reserve ─▶ first upstream ─(fails)─▶ next ─(fails)─▶ small alone, or refuse ─▶ settle

A route that fails before anything reached the client is followed by the next; a stream that fails
later ends with an error, since what was said cannot be taken back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import msgspec

from cosilo.boundary.messages import Ask, encode
from cosilo.errors import ModelError
from cosilo.gateway.accounts.accounts import Spend
from cosilo.gateway.refusals import RequestError, UpstreamTimeoutError
from cosilo.gateway.serving.fields import fitting
from cosilo.gateway.serving.points import Route, ServedPoint, Serving
from cosilo.gateway.serving.tabs import Tab
from cosilo.gateway.serving.upstreams import DEADLINE
from cosilo.models.base import Access, Shows
from cosilo.strategies.base import Session, stream
from cosilo.types import Answer, Chat, Delta, Sampling, Turn, closing


@dataclass
class Served:
    """Facts about an answer, filled in while it is made: its route, which model gave it, whether it
    was the fallback. They go into headers, metrics and the record. `dropped` are the fields of the
    request that were left out.
    """

    route: str = ""
    by: str = ""
    fallback: bool = False
    suspect: bool = False
    abstained: bool = False
    dropped: tuple[str, ...] = ()


def chat_for(point: ServedPoint, given: Chat) -> Chat:
    """The client's conversation; the point's own system turn before one that has none."""
    if not point.system or any(turn.role == "system" for turn in given):
        return given
    return (Turn("system", point.system), *given)


def sampling_for(point: ServedPoint, given: dict[str, object], index: int = 0) -> Sampling:
    """How the answer is drawn: what the client set, and the point's own for the rest.

    Args:
        index: which of `n` answers; each is drawn with its own seed.
    """
    sampling = msgspec.structs.replace(point.sampling, **given) if given else point.sampling
    if index:
        sampling = msgspec.structs.replace(sampling, seed=sampling.seed + index)
    return sampling


def bound(
    point: ServedPoint, asks: Sequence[tuple[Chat, Sampling]], *, local_only: bool = False
) -> Spend:
    """The most that `asks` can cost when each is sent once, all retries included, and counted as
    one request.
    """
    if local_only or not point.sends:
        return Spend(requests=1)
    price, times = point.price, point.together
    tokens_in = tokens_out = 0
    usd = 0.0
    for chat, sampling in asks:
        most = price.bound(Ask(chat=chat, sampling=sampling))
        tokens_in += times * most.tokens_in
        tokens_out += times * most.tokens_out
        usd += times * most.usd
    return Spend(usd=usd, tokens_in=tokens_in, tokens_out=tokens_out, requests=1)


def require_size(point: ServedPoint, asks: Sequence[tuple[Chat, Sampling]]) -> None:
    """Refuse now what would not be answered in time."""
    if point.most_bytes == math.inf:
        return
    size = sum(len(encode(Ask(chat=chat, sampling=sampling))) for chat, sampling in asks)
    if size > point.most_bytes:
        raise RequestError(
            f"{point.model!r} takes at most {point.most_bytes / 1000:.0f} kB of text, counted once for "
            f"each answer that is asked for; this request has {size / 1000:.0f} kB",
            status=413, code="request_too_large",
        )  # fmt: skip


def require_logprobs(point: ServedPoint, ways: Sequence[Route]) -> None:
    for upstream in (upstream for route in ways for upstream in route.upstreams):
        if Shows.LOGPROBS not in upstream.exposes or upstream.model.access < Access.LOGPROBS:
            raise RequestError(
                f"{point.model!r} shows no log-probabilities",
                param="logprobs", code="not_supported_by_point",
            )  # fmt: skip


async def answer_one(
    point: ServedPoint, chat: Chat, sampling: Sampling, tab: Tab, served: Served
) -> Answer:
    """One chat's answer.

    Raises:
        ModelError: no route gave one; the last route's error.
        BoundaryError: a guard, a budget or the store stopped it; no other route is tried.
    """
    failure: ModelError | None = None
    for number, route in enumerate(point.ways(local_only=tab.local_only)):
        session = _bind(point, route, sampling, tab, served)
        try:
            with Patience(point.serving, whole=True) as patience:
                DEADLINE.set(patience)
                answer = await route.strategy.answer(session, chat)
        except TimeoutError:
            failure = late(point)
        except ModelError as error:
            failure = error
        else:
            _note(served, route, number, answer)
            return answer
        finally:
            # A deadline knows its task, and the task its context: left in there, the two would keep
            # each other, and all that the request held, until garbage is looked for.
            DEADLINE.set(None)
    assert failure is not None
    raise failure


async def stream_one(
    point: ServedPoint, chat: Chat, sampling: Sampling, tab: Tab, served: Served
) -> AsyncGenerator[Delta | Answer, None]:
    """One chat's answer in pieces, the whole `Answer` last.

    Raises:
        ModelError, BoundaryError: as for `answer_one`; or, once a piece has been yielded, whatever
            ended the stream.
    """
    failure: ModelError | None = None
    for number, route in enumerate(point.ways(local_only=tab.local_only)):
        session = _bind(point, route, sampling, tab, served)
        served.route, served.fallback = route.name, number > 0
        begun = False
        try:
            with Patience(point.serving) as patience:
                DEADLINE.set(patience)
                async with closing(stream(route.strategy, session, chat)) as pieces:
                    async for piece in pieces:
                        patience.stop()
                        if isinstance(piece, Answer):
                            _note(served, route, number, piece)
                        elif not begun and (piece.text or piece.tool_calls or piece.other_texts):
                            begun = True
                        yield piece
                        patience.start()
            return
        except TimeoutError:
            failure = late(point)
        except ModelError as error:
            failure = error
        finally:
            DEADLINE.set(None)
        if begun:
            break
    assert failure is not None
    raise failure


class Patience:
    """How long to wait for a `whole` answer, or for each next piece of a stream with one timer for all.

    It runs from `start` to `stop` only: a deadline must not strike while the client is slow. As a
    context it raises TimeoutError in the task that waited too long.
    """

    def __init__(self, serving: Serving, *, whole: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = serving.idle_seconds
        now = self._loop.time()
        self._end = now + (math.inf if whole else serving.stream_seconds)
        self._deadline = min(now + serving.timeout_seconds, self._end)
        self._waiting = True
        self._struck = False

    def __enter__(self) -> Patience:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = self._loop.call_at(self._deadline, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._struck and kind is asyncio.CancelledError and self._task.uncancel() <= 0:
            raise TimeoutError

    def start(self) -> None:
        self._deadline = min(self._loop.time() + self._idle, self._end)
        self._waiting = True

    def stop(self) -> None:
        self._waiting = False

    def expired(self) -> bool:
        return self._struck

    def _look(self) -> None:
        now = self._loop.time()
        if self._waiting and now >= self._deadline:
            self._struck = True
            self._task.cancel()
        else:
            later = self._deadline if self._waiting else now + min(self._idle, 1.0)
            self._timer = self._loop.call_at(later, self._look)


def _bind(
    point: ServedPoint, route: Route, sampling: Sampling, tab: Tab, served: Served
) -> Session:
    if sampling.fields and route is not point.routes[0]:
        fields, dropped = fitting(sampling.fields, route.honours)
        sampling = msgspec.structs.replace(sampling, fields=fields)
        served.dropped = tuple(sorted({*served.dropped, *dropped}))
    session = route.session.bind(tab.request, sampling=sampling, budget=point.budget)
    tab.channels.extend(session.peers.values())
    return session


def late(point: ServedPoint) -> UpstreamTimeoutError:
    """The error for an upstream that did not answer in the point's time."""
    return UpstreamTimeoutError(
        f"{point.model!r} did not answer within its {point.serving.timeout_seconds:g} s "
        f"({point.serving.idle_seconds:g} s between pieces)"
    )


def _note(served: Served, route: Route, number: int, answer: Answer) -> None:
    served.route = route.name
    served.by = answer.by
    served.fallback = number > 0
    served.suspect = served.suspect or answer.suspect
    served.abstained = answer.abstained
