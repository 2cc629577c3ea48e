"""How the two parties work together, whichever way knowledge flows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, runtime_checkable

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.meter import Budget
from cosilo.models.base import Access
from cosilo.parties.data_owner import DataOwner
from cosilo.registry import Loads, Registry
from cosilo.strategies.cards import Card
from cosilo.types import Answer, Chat, Delta, Sampling, disassemble


@dataclass(frozen=True)
class Session:
    """What a strategy may touch: its own party whole, the other one through `lm` only.

    Attributes:
        sampling: how the answer at hand is wanted (the task's, or the gateway client's).
        cards: what preparing found, in the order it was found.
    """

    owner: DataOwner
    lm: Channel
    sampling: Sampling = Sampling()
    cards: tuple[Card, ...] = ()

    def with_card(self, card: Card) -> Session:
        """The session with one more thing that preparing found."""
        return replace(self, cards=(*self.cards, card))

    def bind(
        self, request: str, *, sampling: Sampling | None = None, budget: Budget | None = None
    ) -> Session:
        """The session for one task item or gateway request."""
        return replace(
            self,
            lm=self.lm.bind(request, budget=budget),
            sampling=self.sampling if sampling is None else sampling,
        )


@dataclass(frozen=True)
class Needs:
    """Stated up front, so that a run that cannot work fails before it costs anything.

    Attributes:
        small: the access level needed of the owner's own model.
        sends: the message classes that may cross; any other is refused.
        trainable: the strategy trains the small model.
        large: the access level the LM's owner must expose.
        loads: what the strategy loads itself, beside the models and the defences.
    """

    small: Access = Access.TEXT
    sends: frozenset[type[Message]] = frozenset()
    trainable: bool = False
    large: Access = Access.TEXT
    loads: Loads = Loads()


@dataclass(frozen=True)
class Forecast:
    """How often a strategy will ask the LM, at most: what a run's cost is estimated from.

    Attributes:
        tune: share of the tune items asked about in `prepare`.
        pool, public: how many of the pool's and of the public items are asked about there; None
            for all.
        per_label: calls there for each label of a closed set with prompts made of the task's system
            turn, and the tokens of their replies, about.
        own: calls there with prompts of the strategy's own, and the tokens of all of them, in and
            out, about.
        answer: calls per item that is answered.
        scored, scored_gold: how many replies to pool items, and targets of the owner's own examples,
            the LM is asked to score in `prepare`; None for all.
        sampled: how many replies there that the small model writes in training are scored.
        read, read_gold: how many pool items and examples of the owner's own the LM reads there without
            an answer in words; None for all.
        rewritten: of how many of the owner's own examples it is asked for rewrites; None for all.
        rewrites: of each, about as long as the example.
        plain: it asks the items' own questions, so strategies behind the same defences share them.
    """

    tune: float = 1.0
    pool: int | None = 0
    public: int | None = 0
    per_label: tuple[int, int] = (0, 0)
    own: tuple[int, int, int] = (0, 0, 0)
    answer: float = 1.0
    scored: int | None = 0
    scored_gold: int | None = 0
    sampled: int = 0
    read: int | None = 0
    read_gold: int | None = 0
    rewritten: int | None = 0
    rewrites: int = 0
    plain: bool = False


class Strategy(Protocol):
    """Answers chats with the two models together.

    Instances are immutable; what `prepare` learns lives in the strategy it returns, so one
    strategy can be prepared for many sessions.
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
        """The LM calls to expect; without it, one per tune item and one per answer."""


def forecast(strategy: Strategy) -> Forecast:
    """The LM calls to expect of `strategy`, at most as it states or as any would make."""
    if not strategy.needs.sends:
        return Forecast(tune=0, answer=0)
    return strategy.forecast() if isinstance(strategy, ForecastingStrategy) else Forecast()


@runtime_checkable
class StreamingStrategy(Strategy, Protocol):
    def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        """The answer in pieces, then the whole `Answer` as the last item."""


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


async def ask(session: Session, chat: Chat) -> Completion:
    """The LM's reply to `chat`, sampled as the session says."""
    return await session.lm.send(Ask(chat=chat, sampling=session.sampling))


strategies: Registry[Strategy] = Registry("strategy")
