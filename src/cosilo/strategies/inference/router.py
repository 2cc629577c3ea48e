"""Decide from the question alone which model answers, by the gain expected of the large one.

What is predicted is the *gain* (the LM's grade minus the small model's), not the difficulty: a
question both models fail is not worth a call. Ding et al., "Hybrid LLM" (arXiv 2404.14618), route
on such a gap; Ong et al., "RouteLLM" (arXiv 2406.18665), define the APGR routers are compared by.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cosilo.boundary.messages import Ask
from cosilo.errors import CapabilityError
from cosilo.models.base import Access
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies, stream
from cosilo.strategies.calibration import (
    GradedReply,
    calibration,
    large_answers,
    small_answers,
)
from cosilo.strategies.cards import Card
from cosilo.strategies.confidence import confidence
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.cascade import reached, share_threshold
from cosilo.strategies.inference.certainty import certainty, view_of
from cosilo.strategies.inference.ends import Large, Small
from cosilo.strategies.inference.gain import Floats, GainModel, fit_gain
from cosilo.strategies.inference.guarantee import (
    LOADS,
    Promise,
    SafeThreshold,
    card,
    safe_threshold,
    steps_from,
)
from cosilo.types import Answer, Chat, Delta, Generation, closing, disassemble, last_user

NOTHING_KEPT = -1e9
"""The threshold that every expected gain is above: every request goes to the LM."""


@strategies.register("router")
@dataclass(frozen=True, kw_only=True)
class Router:
    """Sends a request to the LM when the gain expected of it is large enough.

    `prepare` asks both models about the tune items and learns the gain from the question.

    Attributes:
        calls: the share of requests that may go to the LM, 0 to 1: the threshold is that quantile
            of the (cross-fitted) expected gain on the tune items.
        threshold: expected gain above which the LM is asked, instead of `calls`. With neither, the
            LM is asked when the expected gain is above 0.
        wrong: the share of the answers kept at home that may be wrong, above 0 and below 1. Then
            what is learned is how likely the small model is wrong, from one half of the tune items; the
            other half finds the threshold that keeps most and for which this holds
            (`guarantee`); the LM is asked nothing in `prepare`. Where no threshold is shown to hold
            it, every request goes to the LM.
        delta: the probability that `wrong` does not hold all the same.
        ahead: `wrong` is to hold among so many next questions; in the long run when unset.
        right: the grade from which an answer counts as right there.
        certainty: whether the gain may also be told from how sure the small model is of its own
            answer: of a closed set of answers, by their probabilities. `prepare` keeps that view where
            held-out questions are ranked better with it; then each question is first put to the small
            model, at home.
        seed: of the cross-fitting, and of the halves.
        model: what was learned before; then `prepare` learns nothing.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="the questions that the LM is expected to gain on; the tune items, to learn which",
        choose=(
            "waiting for the small model's answer first costs too much, or its confidence says "
            "nothing"
        ),
    )

    calls: float | None = None
    threshold: float | None = None
    wrong: float | None = None
    delta: float = 0.05
    ahead: int | None = None
    right: float = 1.0
    certainty: bool = False
    seed: int = 0
    model: GainModel | None = None

    def __post_init__(self) -> None:
        if self.calls is not None and not 0 <= self.calls <= 1:
            raise ValueError(f"calls = {self.calls!r} is not between 0 and 1")
        if sum(x is not None for x in (self.threshold, self.calls, self.wrong)) > 1:
            raise ValueError("give one of threshold, calls and wrong, not several")
        self._promise()

    def _promise(self) -> Promise | None:
        if self.wrong is None:
            return None
        return Promise(wrong=self.wrong, delta=self.delta, ahead=self.ahead, right=self.right)

    @property
    def needs(self) -> Needs:
        loads = Loads(packages=("sklearn",))
        return Needs(
            small=Access.LOGPROBS if self.certainty else Access.TEXT,
            sends=frozenset({Ask}),
            loads=loads if self.wrong is None else loads | LOADS,
        )

    def forecast(self) -> Forecast:
        if self.wrong is not None:
            return (Expected("answers", plain=True),)
        share = 1.0 if self.calls is None else self.calls
        return (Expected("tune", plain=True), Expected("answers", share=share, plain=True))

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        if self.model is not None:
            return self, session
        if self.certainty and not session.sampling.choices:
            raise CapabilityError(
                "router with certainty = true needs a closed set of answers, which this task has not"
            )
        examples = calibration(session, by="router", least=20)
        small = await small_answers(session, examples)
        if (promise := self._promise()) is not None:
            return await self._promised(session, small, promise)
        large = await large_answers(session, examples)
        gains = np.array([b.grade - a.grade for a, b in zip(small, large, strict=True)])
        texts = [last_user(e.chat) for e in examples]
        sure = self._sure([reply.reply for reply in small], session)
        model, held_out = await asyncio.to_thread(
            fit_gain, texts, gains, seed=self.seed, certainty=sure
        )
        session = self._told(session, model)
        threshold = self.threshold if self.threshold is not None else 0.0
        if self.calls is not None:
            losses = (-held_out).tolist()
            least = share_threshold(losses, self.calls)
            told = reached("router", "expected gain", losses, least, self.calls)
            session = session if told is None else session.with_card(told)
            threshold = -least
        return replace(self, model=model, threshold=threshold, calls=None), session

    async def _promised(
        self, session: Session, small: Sequence[GradedReply], promise: Promise
    ) -> tuple[Strategy, Session]:
        """Learns how likely the small model is wrong, and the threshold that holds `promise`.

        What would be gained if the LM were always right is that likelihood, so it stands where the
        expected gain does: a question is kept at home when it is at most the threshold.
        """
        texts = [last_user(reply.example.chat) for reply in small]
        losses = promise.losses(small)
        sure = self._sure([reply.reply for reply in small], session)
        order = np.random.default_rng(self.seed).permutation(len(small))
        learned, tested = np.array_split(order, 2)

        def find() -> tuple[GainModel, SafeThreshold]:
            targets = losses[learned].astype(np.float64)
            some = [texts[i] for i in learned]
            own, others = (None, None) if sure is None else (sure[learned], sure[tested])
            model, held_out = fit_gain(some, targets, seed=self.seed, certainty=own)
            steps = steps_from(-held_out, losses[learned], promise, len(tested))
            scores = -model.predict([texts[i] for i in tested], others)
            return model, safe_threshold(scores, losses[tested], promise, steps=steps)

        model, found = await asyncio.to_thread(find)
        session = self._told(session, model)
        session = session.with_card(card("router", promise, found, of="question's text"))
        return replace(
            self, model=model, threshold=max(-found.threshold, NOTHING_KEPT), wrong=None
        ), session

    def _sure(self, replies: Sequence[Generation], session: Session) -> Floats | None:
        """How sure the small model is of `replies`, where that may be read."""
        if not self.certainty:
            return None
        return certainty([view_of(reply, session.sampling.choices) for reply in replies])

    def _told(self, session: Session, model: GainModel) -> Session:
        if not self.certainty:
            return session
        facts: dict[str, float | str] = {
            "the small model's certainty": "is read" if model.reads_certainty else "was of no use"
        }
        return session.with_card(Card(by="router", title="views", facts=facts))

    def expected_gain(self, texts: Sequence[str], sure: Floats | None = None) -> Floats:
        """Expected gain of asking the LM about each text, shape (len(texts),), in grades.

        Args:
            sure: what `certainty` says of the small model's answers, where that is read.
        """
        return self._learned().predict(texts, sure)

    def _learned(self) -> GainModel:
        if self.model is None:
            raise ValueError("router has learned nothing yet: prepare it first")
        return self.model

    async def answer(self, session: Session, chat: Chat) -> Answer:
        kept, reply = await self._kept(session, chat)
        if kept and reply is not None:
            return Answer(reply, by="small", confidence=confidence(reply, session.sampling))
        return await (Small() if kept else Large()).answer(session, chat)

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        kept, reply = await self._kept(session, chat)
        if kept and reply is not None:
            yield disassemble(reply)
            yield Answer(reply, by="small", confidence=confidence(reply, session.sampling))
            return
        async with closing(stream(Small() if kept else Large(), session, chat)) as pieces:
            async for piece in pieces:
                yield piece

    async def _kept(self, session: Session, chat: Chat) -> tuple[bool, Generation | None]:
        """Whether the small model answers, and its answer where it had to be asked to know."""
        reply = sure = None
        if self._learned().reads_certainty:
            reply = await session.owner.model.generate(chat, session.sampling)
            sure = self._sure([reply], session)
        gain = float(self.expected_gain([last_user(chat)], sure)[0])
        return gain <= (self.threshold or 0.0), reply
