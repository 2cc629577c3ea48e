"""Requests of one client, from their bytes to the bytes of their answers.

    bytes, id ──▶ seen before? ── answered ──▶ the same bytes again
                     │    └────── under way ──▶ wait for it, too
                     │ new
                     ▼
              may it? ▶ set aside, on record ▶ the model works ▶ settled, on record ▶ whoever waits

The work belongs to no connection: one that breaks can be followed by another, for a while, and no
retry makes the model work again. Only what was under way when the host died is worked on once more
when it is asked for again; it is on record, and billed, once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Drawn,
    Message,
    Piece,
    Request,
    decode,
    encode,
)
from cosilo.boundary.meter import Meter, Price, Spent, Totals
from cosilo.boundary.transports.agreed import END, framed
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.transports.refusals import refusal
from cosilo.errors import (
    CapabilityError,
    CosiloError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.host.books import Begun, ClientBooks
from cosilo.host.limits import SHOWN, ClientLimits, Taken
from cosilo.models.base import Shows
from cosilo.types import Delta, assemble, closing


class NotServedError(Exception):
    """A request that is no request of this client's now.

    Attributes:
        status: the HTTP status that says so.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class UnderWay:
    """A request that is worked on.

    Attributes:
        frames: of its answer, as far as it has come.
        ended: there will be no more.
    """

    digest: bytes
    pieces: bool
    frames: list[bytes]
    ended: bool = False

    def __post_init__(self) -> None:
        self._more = asyncio.Event()
        self.readers = 0
        self.may_stop = True  # not while something is put on record
        self.task: asyncio.Task[None] | None = None
        self.failed: NotServedError | None = None

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self._tell()

    def tell(self, message: bytes) -> None:
        """Answer with `message`, and nothing after it."""
        for frame in (framed(message), END) if self.pieces else (message,):
            self.add(frame)

    def end(self) -> None:
        self.ended = True
        self._tell()

    async def read(self, start: int = 0) -> AsyncIterator[bytes]:
        """The frames of the answer from number `start` on, as they come."""
        while True:
            while start < len(self.frames):
                yield self.frames[start]
                start += 1
            if self.failed is not None:
                raise self.failed
            if self.ended:
                return
            await self._more.wait()

    def _tell(self) -> None:
        self._more.set()
        self._more = asyncio.Event()


class ClientService:
    """What one client is served.

    Args:
        party: the LM's owner, for this client.
        exposes: what it may see.
        price: what it pays.
        at_once: how many of its requests the model works on at the same time; as many as eight times
            that wait, and more are sent away.
        linger_s: how long a request whose connection broke is worked on for a client that comes back.
    """

    def __init__(
        self,
        books: ClientBooks,
        party: Handles,
        *,
        exposes: Shows,
        price: Price,
        at_once: int = 8,
        linger_s: float = 30.0,
    ) -> None:
        self.books = books
        self.exposes = exposes
        self._party = party
        self._meter = Meter(price=price)
        self._slots = asyncio.Semaphore(at_once)
        self._most = at_once * 9
        self._linger_s = linger_s
        self._under_way: dict[str, UnderWay] = {}
        self._closing = False
        books.working = self._under_way

    async def answer(self, name: str, payload: bytes) -> bytes:
        """The encoded reply, or `Refused`, to the request `name`.

        Raises:
            NotServedError: the id is another request's, or there is no room for it now.
        """
        found = self._find(name, payload, pieces=False)
        if isinstance(found, bytes):
            return found
        with self._reading(name, found):
            async for frame in found.read():
                return frame
        raise NotServedError(503, "the host is stopping; try again")

    async def answer_in_pieces(
        self, name: str, payload: bytes, have: tuple[int, str] | None = None
    ) -> AsyncIterator[bytes]:
        """The reply to the request `name` as it goes over the network: framed pieces, and their end.

        Args:
            have: how many pieces the client has of it already, and the SHA-256 of all of them.

        Raises:
            NotServedError: as for `answer`, or the pieces are none of this reply's.
        """
        found = self._find(name, payload, pieces=True)
        start = 0
        if isinstance(found, bytes):
            found = _finished(found)
        if have is not None:
            start = await self._past(found, *have)
        with self._reading(name, found):
            async for frame in found.read(start):
                yield frame

    def limit(self, total: ClientLimits, day: ClientLimits) -> None:
        """Take other limits from now on."""
        self.books.account.limit(total, day)

    async def finish(self, patience_s: float) -> None:
        """Let what is under way finish for so long; what does not is worked on again after a restart,
        when it is asked for."""
        self._closing = True
        tasks = [under_way.task for under_way in self._under_way.values() if under_way.task]
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        self.books.close()

    def _find(self, name: str, payload: bytes, *, pieces: bool) -> UnderWay | bytes:
        """The request `name`, which is begun where it is new; or its answer."""
        under_way = self._under_way.get(name)
        begun = self.books.begun(name) if under_way is None else None
        known = under_way or begun
        if known is not None:
            digest = hashlib.sha256(payload).digest()
            if (known.digest, known.pieces) != (digest, pieces):
                raise NotServedError(409, "this request id belongs to another request")
        if under_way is not None:
            return under_way
        if begun is not None:
            answer = self.books.answer(name)
            if answer is not None:
                return answer
        elif self.books.known(name):
            raise NotServedError(410, "this request was answered, and its answer is kept no longer")
        if self._closing:
            raise NotServedError(503, "the host is stopping; try again")
        if len(self._under_way) >= self._most:
            raise NotServedError(503, "too many requests of this client wait already; try again")
        digest = begun.digest if begun else hashlib.sha256(payload).digest()
        new = self._under_way[name] = UnderWay(digest, pieces, [])
        new.task = asyncio.get_running_loop().create_task(self._work(name, payload, begun, new))
        return new

    async def _work(
        self, name: str, payload: bytes, begun: Begun | None, under_way: UnderWay
    ) -> None:
        try:
            async with self._slots:
                under_way.may_stop = False
                await self._worked(name, payload, begun, under_way)
        except CosiloError as error:
            # Nothing can be put on record, so nothing is said.
            under_way.failed = NotServedError(503, type(error).__name__)
        except Exception as error:
            under_way.failed = NotServedError(500, type(error).__name__)
        finally:
            under_way.end()
            del self._under_way[name]

    async def _worked(
        self, name: str, payload: bytes, begun: Begun | None, under_way: UnderWay
    ) -> None:
        try:
            message = decode(payload)
            if not isinstance(message, Request):
                raise UnexpectedReplyError(f"{type(message).__name__} is no request")
            if under_way.pieces and not isinstance(message, Ask):
                raise UnexpectedReplyError("only an Ask can be answered in pieces")
        except CosiloError as error:
            error.worked = 0
            under_way.tell(encode(refusal(error)))
            return
        if begun is None:
            try:
                held, prompts = self._most_of(message, len(payload))
                self.books.account.hold(held)
            except CosiloError as error:
                error.worked = 0
                refused = encode(refusal(error))
                answer = framed(refused) + END if under_way.pieces else refused
                if self.books.account.fits(Taken(messages=1)):
                    pieces = under_way.pieces
                    await self.books.refused(name, message, payload, answer, pieces=pieces)
                under_way.tell(refused)
                return
            try:
                begun = await self.books.begin(
                    name, message, payload, pieces=under_way.pieces, held=held, prompts=prompts
                )
            except BaseException:
                self.books.account.settle(held, Taken())
                raise
        if isinstance(message, Ask) and under_way.pieces:
            await self._stream(name, message, len(payload), begun, under_way)
        else:
            await self._reply(name, message, len(payload), begun, under_way)

    async def _reply(
        self, name: str, message: Request[Message], size: int, begun: Begun, under_way: UnderWay
    ) -> None:
        reply: Message | None = None
        under_way.may_stop = True
        try:
            reply = _once(await self._party.handle(message))
            answer = encode(reply)
            totals = self._meter.cost(message, size, reply, len(answer))
        except asyncio.CancelledError:
            if self._closing:
                raise
            answer, totals = self._given_up(message, size)
        except Exception as error:
            answer = encode(refusal(error))
            totals = self._meter.lost(message, size, error)
        under_way.may_stop = False
        cost = self._cost(message, totals, begun, reply)
        await self.books.end(name, begun, reply, answer, answer, cost)
        under_way.add(answer)

    async def _stream(
        self, name: str, ask: Ask, size: int, begun: Begun, under_way: UnderWay
    ) -> None:
        received: list[Delta] = []
        last: list[bytes] = []  # said once it is on record
        attempts = 1
        totals: Totals | None = None
        under_way.may_stop = True
        try:
            async with closing(self._party.handle_stream(ask)) as deltas:
                async for delta in deltas:
                    delta = replace(delta, attempts=1) if delta.attempts > 1 else delta
                    received.append(delta)
                    frame = framed(encode(Piece(delta=delta)))
                    if delta.finish_reason is not None or last:
                        last.append(frame)
                    else:
                        under_way.add(frame)
        except asyncio.CancelledError:
            if self._closing:
                raise
            said, totals = self._given_up(ask, size)
            last.append(framed(said))
        except Exception as error:
            last.append(framed(encode(refusal(error))))
            totals = self._meter.lost(ask, size, error)
            attempts = getattr(error, "worked", None) or 1
        under_way.may_stop = False
        whole, encoded = None, b""
        if received or totals is None:
            whole = Completion(generation=assemble(received, attempts=attempts))
            encoded = encode(whole)
            totals = self._meter.cost(ask, size, whole, len(encoded))
        assert totals is not None
        answer = b"".join([*under_way.frames, *last, END])
        cost = self._cost(ask, totals, begun, whole)
        await self.books.end(name, begun, whole if received else None, encoded, answer, cost)
        for frame in (*last, END):
            under_way.add(frame)

    def _most_of(self, message: Request[Message], size: int) -> tuple[Taken, Sequence[bytes]]:
        """The most that a request can take, and those of its prompts that are new.

        Raises:
            CapabilityError: it shows what this client's limits are on, and does not say how much.
        """
        price = self._meter.price.bound(message, size)
        drawn = message.drawn()
        if drawn is None and self.books.account.limits(*SHOWN):
            raise CapabilityError(
                f"{type(message).__name__} does not say how much of the model it shows, and what "
                f"client {self.books.client!r} may see of it is limited"
            )
        drawn = drawn or Drawn()
        if isinstance(message, Ask) and Shows.LOGPROBS not in self.exposes:
            drawn = Drawn()  # none are shown
        limited = self.books.account.limits("prompts")
        prompts = self.books.new_prompts(message.prompts()) if limited else []
        return _taken(price, drawn, len(prompts)), prompts

    def _cost(
        self, message: Request[Message], totals: Totals, begun: Begun, reply: Message | None
    ) -> Taken:
        drawn = (message.drawn(reply) or Drawn()) if reply is not None else Drawn()
        return _taken(totals, drawn, begun.held.prompts)

    def _given_up(self, message: Message, size: int) -> tuple[bytes, Totals]:
        error = UnreachableError("the client gave this request up before it was answered", worked=1)
        return encode(refusal(error)), self._meter.lost(message, size, error)

    def _reading(self, name: str, under_way: UnderWay) -> _Reading:
        return _Reading(self, name, under_way)

    def left(self, under_way: UnderWay) -> None:
        """Nobody reads the answer any more: give the request up, unless somebody comes back."""
        if under_way.task is not None and not under_way.ended:
            loop = asyncio.get_running_loop()
            loop.call_later(self._linger_s, _give_up, under_way)

    async def _past(self, under_way: UnderWay, count: int, digest: str) -> int:
        """How many frames the client has that has `count` pieces."""
        seen = hashlib.sha256()
        number = 0
        async for frame in under_way.read():
            if number == count:
                break
            seen.update(frame[4:])
            number += 1
            if number == count:
                break
        if number != count or seen.hexdigest() != digest:
            raise NotServedError(410, "the pieces that came before are not this reply's")
        return count


class _Reading:
    """A context for whoever waits for an answer."""

    def __init__(self, service: ClientService, name: str, under_way: UnderWay) -> None:
        self._service = service
        self._under_way = under_way

    def __enter__(self) -> None:
        self._under_way.readers += 1

    def __exit__(self, *_: object) -> None:
        self._under_way.readers -= 1
        if not self._under_way.readers:
            self._service.left(self._under_way)


def _give_up(under_way: UnderWay) -> None:
    if under_way.may_stop and not under_way.readers and under_way.task is not None:
        under_way.task.cancel()


def _finished(answer: bytes) -> UnderWay:
    """The answer in pieces that was kept, as frames."""
    frames, start = [], 0
    while start < len(answer):
        end = start + 4 + int.from_bytes(answer[start : start + 4], "big")
        frames.append(answer[start:end])
        start = end
    return UnderWay(b"", True, frames, ended=True)


def _once(reply: Message) -> Message:
    """`reply` as for a client who asked once: how often the owner had to is its own affair."""
    if isinstance(reply, Completion) and reply.generation.attempts > 1:
        return replace(reply, generation=replace(reply.generation, attempts=1))
    return reply


def _taken(totals: Totals | Spent, drawn: Drawn, prompts: int) -> Taken:
    return Taken(
        messages=1,
        tokens_in=totals.tokens_in,
        tokens_out=totals.tokens_out,
        usd=totals.usd,
        logits=drawn.logits,
        states=drawn.states,
        gradients=drawn.gradients,
        prompts=prompts,
    )
