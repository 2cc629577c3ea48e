"""How the two parties work together, whichever way knowledge flows."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Literal, Protocol, TypeGuard, runtime_checkable

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.meter import Budget, Meter, Totals
from cosilo.models.base import Access, Shows
from cosilo.parties.data_owner import DataOwner
from cosilo.privacy.mechanisms import Booking
from cosilo.registry import Loads, Registry
from cosilo.strategies.cards import Card
from cosilo.types import Answer, Chat, Delta, Sampling, disassemble

ONE = "large"
"""What the other side is called where there is only one."""


@dataclass(frozen=True)
class Session:
    """What a strategy may touch: its own party whole, the other ones through channels only.

    Attributes:
        lm: the channel to the LM's owner; to the first, where there are several.
        peers: name → channel, of all LM owners in their order, `lm` the first. Cannot be changed.
        defended: defences stand around the channels, and change what crosses: other than what was sent
            may arrive, and a text in parts is not seen whole.
        sampling: how the answer at hand is wanted (the task's, or the gateway client's).
        cards: what preparing found, in the order it was found.
        account: the owner's records in the book of ε. Whatever messages spent is booked there as they
            leave; a strategy that knows its releases beforehand asks it before it sends anything.
    """

    owner: DataOwner
    lm: Channel
    sampling: Sampling = Sampling()
    cards: tuple[Card, ...] = ()
    account: Booking | None = None
    peers: Mapping[str, Channel] = field(default_factory=dict)
    defended: bool = False

    def __post_init__(self) -> None:
        peers = dict(self.peers) if self.peers else {ONE: self.lm}
        if next(iter(peers.values())) is not self.lm:
            raise ValueError("lm must be the channel to the first of the peers")
        object.__setattr__(self, "peers", MappingProxyType(peers))

    @property
    def totals(self) -> Totals:
        """What has crossed to and from all LM owners together; `peers[name].totals` has each one's."""
        if len(self.peers) == 1:
            return self.lm.totals
        return sum((channel.totals for channel in self.peers.values()), Totals())

    def with_card(self, card: Card) -> Session:
        """The session with one more thing that preparing found."""
        return replace(self, cards=(*self.cards, card))

    def bind(
        self, request: str, *, sampling: Sampling | None = None, budget: Budget | None = None
    ) -> Session:
        """The session for one task item or gateway request; `budget` limits what crosses to all LM
        owners together."""
        if len(self.peers) == 1:
            (name,) = self.peers
            peers = {name: self.lm.bind(request, budget=budget)}
        else:
            whole = Meter(budget, request=True)
            peers = {n: c.bind(request, within=whole) for n, c in self.peers.items()}
        return Session(  # by hand: for each question of a run or a gateway, and `replace` is slow
            self.owner,
            next(iter(peers.values())),
            self.sampling if sampling is None else sampling,
            self.cards,
            self.account,
            peers,
            self.defended,
        )


@dataclass(frozen=True)
class Needs:
    """Stated up front, so that a run that cannot work fails before it costs anything.

    Attributes:
        small: the access level needed of the owner's own model.
        sends: the message classes that may cross; any other is refused.
        trainable: the strategy trains the small model.
        large: what the LM's owner must show beside what these messages need by themselves; each of
            them, where there are several.
        loads: what the strategy loads itself, beside the models and the defences.
        peers: how many other sides it speaks to, the first so many that its point has.
        every: it speaks to all of them, `peers` at least.
        untuned: the small model as it was before it was tuned is needed, too, so that whoever tunes it
            leaves an adapter that can be taken off.
    """

    small: Access = Access.TEXT
    sends: frozenset[type[Message]] = frozenset()
    trainable: bool = False
    large: Shows = Shows.NOTHING
    loads: Loads = Loads()
    peers: int = 1
    every: bool = False
    untuned: bool = False

    @property
    def shown(self) -> Shows:
        """All that the LM's owner must show."""
        return reduce(or_, (message.shows for message in self.sends), self.large)


About = Literal["tune", "pool", "public", "gold", "answers", "labels", "once"]
"""What messages are about: items of that kind, labels of a closed set, or nothing in particular."""

Text = Literal["question", "text", "answer", "target", "request", "instructions"]
"""A text whose length an estimate knows: an item's whole chat, or its last turn; a reply, as long as
the task lets one be; an item's gold reply; the words that ask to rewrite a text; the task's system
turn, with the words that ask for texts of a label."""


@dataclass(frozen=True)
class Expected:
    """Messages of one kind that a strategy sends, at most: what a run's cost is estimated from.

    Attributes:
        about: "tune", "pool", "public" or "gold" (the owner's own examples) items in `prepare`,
            "answers" for items that are answered; in `prepare` also each of the "labels", or "once".
        message: what is sent.
        items: the first so many of these items only; None for all.
        share: of these, the share that is asked about.
        each: messages for one of them.
        total: so many messages about any of these items instead.
        reads, writes: what the LM reads and writes for one message, as texts and numbers of tokens.
        plain: strategies behind the same defences that send the same share their answers.
        to: the first of the strategy's peers, or each of them.
        per: so many messages for each token of this text, where they go token by token.
        size: bytes of one message and its reply, at most, where these are no texts.
    """

    about: About
    message: type[Message] = Ask
    _: KW_ONLY
    items: int | None = None
    share: float = 1.0
    each: int = 1
    total: int | None = None
    reads: tuple[Text | int, ...] = ("question",)
    writes: tuple[Text | int, ...] = ("answer",)
    plain: bool = False
    to: Literal["first", "each"] = "first"
    per: Text | None = None
    size: int | None = None

    @property
    def asks_questions(self) -> bool:
        """The items' own questions are asked, so that the very messages are known beforehand."""
        known = self.reads == ("question",) and self.writes == ("answer",)
        return known and self.message is Ask and self.each == 1 and self.total is None

    def count(self, there: int) -> int:
        """Messages where there are so many items to send some about."""
        if self.total is not None:
            return self.total
        chosen = there if self.items is None else min(self.items, there)
        return math.ceil(self.share * chosen) * self.each


Forecast = tuple[Expected, ...]
"""All that a strategy sends, at most, from `prepare` to the last answer."""

USUAL: Forecast = (Expected("tune"), Expected("answers"))
"""What is expected of a strategy that does not say."""


def unshared(expected: Forecast) -> Forecast:
    """`expected` of a strategy that a newly trained small model answers with: it may ask about other
    items than its like, so nobody shares its answers."""
    return tuple(replace(exchange, plain=False) for exchange in expected)


class Strategy(Protocol):
    """Answers chats with the two models together.

    Instances are immutable; what `prepare` learns lives in the strategy it returns, so one
    strategy can be prepared for many sessions. One that leaves processes or runs behind is `Closes`.
    """

    @property
    def needs(self) -> Needs: ...

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Train, transfer or calibrate once, metered like all else.

        Returns:
            The strategy and the session to answer with; the given ones stay as they were.
        """

    async def answer(self, session: Session, chat: Chat) -> Answer:
        """Answer one chat, over a session bound to it."""


@runtime_checkable
class ForecastingStrategy(Strategy, Protocol):
    def forecast(self) -> Forecast:
        """What to expect; without it, `USUAL`."""


def forecast(strategy: Strategy) -> Forecast:
    """What to expect of `strategy`, at most as it states or as any would send."""
    if not strategy.needs.sends:
        return ()
    return strategy.forecast() if isinstance(strategy, ForecastingStrategy) else USUAL


@runtime_checkable
class StreamingStrategy(Strategy, Protocol):
    def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        """The answer in pieces, then the whole `Answer` as the last item."""


class Closes(Protocol):
    """A strategy that, once it is prepared, holds what ends with it: processes here, runs elsewhere."""

    async def close(self, session: Session) -> None:
        """End that, on both sides; `session` is one that the strategy was prepared for. Calling it
        twice is harmless."""


async def close(strategy: Strategy, session: Session) -> None:
    """End what the prepared `strategy` holds, if anything. Whoever prepares one calls it at last."""
    if _closes(strategy):
        await strategy.close(session)


def _closes(strategy: object) -> TypeGuard[Closes]:
    return hasattr(strategy, "close")


def _streams(strategy: Strategy) -> TypeGuard[StreamingStrategy]:
    # isinstance of a Protocol looks at every member, which costs more than a short stream.
    return hasattr(strategy, "stream")


def stream(strategy: Strategy, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
    """`strategy`'s answer in pieces, the whole `Answer` last; one piece if it cannot stream."""
    if _streams(strategy):
        return strategy.stream(session, chat)
    return _in_one_piece(strategy, session, chat)


async def _in_one_piece(
    strategy: Strategy, session: Session, chat: Chat
) -> AsyncIterator[Delta | Answer]:
    answer = await strategy.answer(session, chat)
    yield disassemble(answer.generation)
    yield answer


async def ask(session: Session, chat: Chat, *, adapter: str = "") -> Completion:
    """The LM's reply to `chat`, sampled as the session says; with the adapter of that name, where one
    was plugged in."""
    return await session.lm.send(Ask(chat=chat, sampling=session.sampling, adapter=adapter))


strategies: Registry[Strategy] = Registry("strategy")
