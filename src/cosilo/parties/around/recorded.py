"""A reply is recorded once and never paid for twice.

message ──▶ key ──▶ recorded? ── yes ──▶ the recorded reply, its recorded seconds and tokens
                        │ no
                        ▼
         under way already? ── yes ──▶ wait for that one
                        │ no
                        ▼
                      inner ──▶ committed to disk ──▶ returned
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping

from msgspec.structs import replace

from cosilo.boundary.messages import Ask, Completion, Message, Refused, Request, decode, encode
from cosilo.boundary.record.ledger import Entry
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.transports.far_end import reply_in
from cosilo.boundary.transports.refusals import raised, refusal
from cosilo.errors import OfflineError, StoreError, UnexpectedReplyError, UnknownThreadError
from cosilo.models.base import Named, former_identity, identity
from cosilo.models.kept.replay import ReplayStore, question_key
from cosilo.types import Delta, assemble, closing, disassemble

_FEW = 16  # tokens that a short label is allowed


class Recorded:
    """`inner`, each of whose replies is recorded in `store` and asked for once.

    A message says itself under what its reply is recorded (`Request.question`), and whether a reply is
    one for good (`Request.lasts`). What has no such key goes on to `inner` each time. No failure is
    recorded, but that a thread is unknown.

    Args:
        store: may be shared; it is not closed.
        of: the model that `inner` answers with; replies are recorded under its identity.
        offline: refuse whatever is not recorded.

    Attributes:
        hits: replies for which `inner` was not asked.
        misses: messages that went to `inner`.
    """

    def __init__(
        self, inner: Handles, store: ReplayStore, *, of: Named, offline: bool = False
    ) -> None:
        self.inner = inner
        self.store = store
        self.offline = offline
        self.hits = 0
        self.misses = 0
        self._of = of
        self._flights: dict[bytes, _Flight] = {}
        self._inherits: dict[tuple[str, str], bool] = {}
        # Then something may be recorded as an earlier version asked it.
        self._older = len(store) > 0

    def holds(self, message: Message) -> bool:
        """Whether the reply is recorded: asking for it would be free.

        Raises:
            StoreError: the store cannot be read.
        """
        if not isinstance(message, Request) or (question := message.question()) is None:
            return False
        return self._recorded(message, question) is not None

    async def handle(self, message: Message) -> Message:
        """The recorded reply, or that of `inner`.

        Raises:
            OfflineError: `offline`, and it is not recorded.
            ModelError: `inner` failed; nothing is recorded then.
            StoreError: the reply could not be read or recorded.
        """
        if not isinstance(message, Request) or (question := message.question()) is None:
            self._missed()
            return await self.inner.handle(message)
        key = self._key(question)
        while True:
            recorded = self._recorded(message, question)
            if recorded is not None:
                self.hits += 1
                await asyncio.sleep(0)  # what is sent at the same time leaves before a reply comes
                return _judged(recorded)
            flight = self._flights.get(key)
            mine = flight is None
            if flight is None:
                flight = self._depart(key)
                flight.task = asyncio.create_task(self._fetch(key, message, flight))
            reply = await flight.join()
            if reply is not None:  # else the call was given up by all who had asked for it
                self.hits += not mine
                return _judged(reply)

    async def handle_stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """The reply in pieces: those of `inner`, or the recorded one as one piece.

        The piece that ends a new reply comes after the reply is recorded. A stream that is closed
        before its end records nothing.

        Raises:
            what `handle` does.
        """
        key = self._key(ask.question())
        if key in self._flights or self.holds(ask):
            reply = await self.handle(ask)
            if not isinstance(reply, Completion):
                raise UnexpectedReplyError(f"Ask was answered with {type(reply).__name__}")
            yield disassemble(reply.generation)
            return
        flight = self._depart(key)
        pieces: list[Delta] = []
        try:
            async with self.store.claims.held(key):
                known = self.store.get(key)  # another process may have asked meanwhile
                if known is not None:
                    flight.land(Completion(generation=known))
                    yield disassemble(known)
                    return
                async with closing(self.inner.handle_stream(ask)) as deltas:
                    async for delta in deltas:
                        pieces.append(delta)
                        if delta.finish_reason is None:
                            yield delta
                flight.land(self._keep(key, ask, Completion(generation=assemble(pieces))))
            for delta in pieces:
                if delta.finish_reason is not None:
                    yield delta
        except Exception as error:
            flight.crash(error)
            raise
        finally:
            flight.land(None)
            self._flights.pop(key, None)

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [f.task for f in self._flights.values() if f.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _missed(self) -> None:
        if self.offline:
            raise OfflineError(
                f"the answer of {self._of.name!r} is not recorded, and new calls are refused "
                "(--offline); run once without it"
            )
        self.misses += 1

    def _depart(self, key: bytes) -> _Flight:
        self._missed()
        flight = self._flights[key] = _Flight()
        return flight

    async def _fetch(self, key: bytes, message: Request[Message], flight: _Flight) -> None:
        try:
            async with self.store.claims.held(key):
                reply = self._read(key, message)  # another process may have asked meanwhile
                if reply is None:
                    reply = await self._asked(message)
                    if not isinstance(reply, Refused) and not message.lasts(reply):
                        flight.land(reply)
                        return
                    # Not in a thread: between being paid for and being on the disk nothing may cut in.
                    reply = self._keep(key, message, reply)
                flight.land(reply)
        except Exception as error:
            flight.crash(error)
        finally:
            flight.land(None)
            self._flights.pop(key, None)

    async def _asked(self, message: Request[Message]) -> Message:
        """The reply of `inner`, or that it knows no such thread.

        When what came before on a thread was replayed, its owner has none of it, and the strategy sends
        the whole. That is recorded, too, so that all of it can be replayed the next time.
        """
        try:
            return _judged(await self.inner.handle(message))
        except UnknownThreadError as error:
            return refusal(error)

    def _key(self, question: Mapping[str, object]) -> bytes:
        return question_key(identity(self._of), question)

    def _recorded(
        self, message: Request[Message], question: Mapping[str, object]
    ) -> Message | None:
        for model in self._known_as:
            if found := self._read(question_key(model, question), message):
                return found
        return self._under_less(message) if self._older and isinstance(message, Ask) else None

    def _read(self, key: bytes, message: Request[Message]) -> Message | None:
        if isinstance(message, Ask):
            generation = self.store.get(key)
            return None if generation is None else Completion(generation=generation)
        found = self.store.get_reply(key)
        return None if found is None else self._decoded(found, message)

    def _keep(self, key: bytes, message: Request[Message], reply: Message) -> Message:
        """Record `reply`; the one that is recorded.

        Raises:
            UnexpectedReplyError: it says what cannot be, or is none to `message`; nothing is recorded.
        """
        model, payload = identity(self._of), encode(reply)
        if not isinstance(reply, Refused):
            reply_in(payload, message, quoted=False)
        if isinstance(reply, Completion) and isinstance(message, Ask):
            return Completion(generation=self.store.put(key, model, reply.generation))
        return self._decoded(self.store.put_reply(key, model, payload), message)

    def _decoded(self, kept: bytes, message: Request[Message]) -> Message:
        try:
            reply = decode(kept)
        except UnexpectedReplyError:
            reply = None
        if not isinstance(reply, (message.reply, Refused)):
            raise StoreError(f"{str(self.store.path)!r} holds a damaged answer")
        return reply

    def _under_less(self, ask: Ask) -> Completion | None:
        """A recorded choice of labels that was asked for with a smaller `max_tokens` and ended by
        itself; None if there is none.

        With a larger limit it would have been the same. Earlier versions allowed a label just as
        many tokens as it is long.
        """
        if not _few_choices(ask):
            return None
        for less in _with_less(ask):
            for model in self._known_as:
                found = self.store.get(question_key(model, less.question()))
                if found is not None and found.finish_reason == "stop" and found.text:
                    return Completion(generation=found)
        return None

    @property
    def _known_as(self) -> tuple[str, ...]:
        """The identities that the model's replies are recorded under: its own and, where it has
        one, its former.
        """
        own, former = identity(self._of), former_identity(self._of)
        if former and (own, former) not in self._inherits:
            self._inherits[own, former] = self.store.inherits(own, former)
        return (own, former) if self._inherits.get((own, former)) else (own,)


def questions(entries: Iterable[Entry], models: Collection[str]) -> set[bytes]:
    """The keys that the replies to what went up may be recorded under.

    Args:
        entries: of a record; those that keep a content count.
        models: the identities of those who may have been asked (`ReplayStore.models`).
    """
    found: set[bytes] = set()
    for entry in entries:
        if entry.direction != "up" or entry.payload is None:
            continue
        message = entry.message
        asked: list[Message] = [message]
        if isinstance(message, Ask) and _few_choices(message):  # what `Recorded` would take for it
            asked += _with_less(message)
        for each in asked:
            if isinstance(each, Request) and (question := each.question()) is not None:
                found |= {question_key(model, question) for model in models}
    return found


def _few_choices(message: Message) -> bool:
    if not isinstance(message, Ask):
        return False
    return bool(message.sampling.choices) and message.sampling.max_tokens <= _FEW


def _judged(reply: Message) -> Message:
    """`reply`; where it is a refusal, what was refused is raised."""
    if isinstance(reply, Refused):
        raise raised(reply, quoted=False)
    return reply


def _with_less(ask: Ask) -> Iterator[Ask]:
    """`ask` with each smaller limit of tokens, the largest first."""
    for most in range(ask.sampling.max_tokens - 1, 0, -1):
        yield replace(ask, sampling=replace(ask.sampling, max_tokens=most))


class _Flight:
    """One message under way and those who wait for its reply; it is cancelled when none waits any
    more.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._result: asyncio.Future[Message | None] = asyncio.Future()
        self._waiting = 0

    async def join(self) -> Message | None:
        """The reply; None when the message was given up."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._result)
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self.task is not None and not self._result.done():
                self.task.cancel()

    def land(self, reply: Message | None) -> None:
        if not self._result.done():
            self._result.set_result(reply)

    def crash(self, error: Exception) -> None:
        if not self._result.done():
            self._result.set_exception(error)
            self._result.exception()  # it is no oversight if nobody waits any more
