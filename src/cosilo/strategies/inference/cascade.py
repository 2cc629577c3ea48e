"""Ask the small model first; ask the large one when it is unsure.

Chen et al., "FrugalGPT" (arXiv 2305.05176). The threshold on the small model's confidence is set on
the tune items, which neither model was trained on and no measure reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cosilo.boundary.messages import Ask
from cosilo.models.base import Access
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, ask, strategies
from cosilo.strategies.calibration import GradedReply, calibration, large_answers, small_answers
from cosilo.strategies.cards import Card
from cosilo.strategies.confidence import confidence, plausibility
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.guarantee import LOADS, Promise, card, divided
from cosilo.types import Answer, Chat, Delta, Generation, assemble, closing, disassemble

ALWAYS = float(np.nextafter(1, 2))
"""The threshold that no confidence reaches: every request goes to the LM."""


@strategies.register("cascade")
@dataclass(frozen=True, kw_only=True)
class Cascade:
    """The small model answers when it is confident, the large one otherwise.

    Attributes:
        threshold: confidence below which the LM is asked, 0 to 1. Unset: chosen in `prepare`.
        calls: the share of requests that may go to the LM, 0 to 1; `prepare` sets the threshold
            to that quantile of the small model's confidence, and asks the LM nothing. Unset as well:
            `prepare` asks the LM about the tune items and takes the threshold with the best
            mean grade there, the one with fewer calls on a tie.
        wrong: the share of the answers kept at home that may be wrong, above 0 and below 1; `prepare`
            finds the threshold that keeps most and for which this holds (`guarantee`), and asks
            the LM nothing. Where none is shown to, every request goes to the LM.
        delta: the probability that `wrong` does not hold all the same.
        ahead: `wrong` is to hold among so many next questions; in the long run when unset.
        right: the grade from which an answer counts as right there.
        distrust: an LM reply that the small model holds less likely than this is flagged as suspect.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="the questions that the small model is unsure of; the tune items, to set its threshold",
        choose="the small model is often right and knows when: fewer calls for the same accuracy",
    )

    threshold: float | None = None
    calls: float | None = None
    wrong: float | None = None
    delta: float = 0.05
    ahead: int | None = None
    right: float = 1.0
    distrust: float = 0.02

    _name: ClassVar[str] = "cascade"
    _of: ClassVar[str] = "confidence"
    """What its scores are called in cards."""

    def __post_init__(self) -> None:
        for name in ("threshold", "calls", "distrust"):
            value = getattr(self, name)
            most = ALWAYS if name == "threshold" else 1
            if value is not None and not 0 <= value <= most:
                raise ValueError(f"{name} = {value!r} is not between 0 and 1")
        if sum(x is not None for x in (self.threshold, self.calls, self.wrong)) > 1:
            raise ValueError("give one of threshold, calls and wrong, not several")
        self._promise()

    def _promise(self) -> Promise | None:
        if self.wrong is None:
            return None
        return Promise(wrong=self.wrong, delta=self.delta, ahead=self.ahead, right=self.right)

    @property
    def needs(self) -> Needs:
        loads = Loads() if self.wrong is None else LOADS
        return Needs(small=Access.LOGPROBS, sends=frozenset({Ask}), loads=loads)

    def forecast(self) -> Forecast:
        learned = self.threshold is None and self.calls is None and self.wrong is None
        share = 1.0 if self.calls is None else self.calls
        answers = Expected("answers", share=share, plain=True)
        return (Expected("tune", plain=True), answers) if learned else (answers,)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        if self.threshold is not None:
            return self, session
        examples = calibration(session, by=self._name)
        small = await small_answers(session, examples)

        async def sure(given: GradedReply) -> float:
            return await self._sure(session, given.example.chat, given.reply)

        scores = await fan_out(sure, small, concurrency=256)
        if (promise := self._promise()) is not None:
            found = divided(np.array(scores), promise.losses(small), promise, seed=0)
            session = session.with_card(card(self._name, promise, found, of=self._of))
            return replace(self, threshold=min(found.threshold, ALWAYS), wrong=None), session
        if self.calls is not None:
            threshold = share_threshold(scores, self.calls)
            told = reached(self._name, self._of, scores, threshold, self.calls)
            session = session if told is None else session.with_card(told)
        else:
            large = await large_answers(session, examples)
            threshold = best_threshold(scores, small, large)
        return replace(self, threshold=threshold, calls=None), session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        draft = await session.owner.model.generate(chat, session.sampling)
        sure = await self._sure(session, chat, draft)
        if not self._escalates(sure):
            return Answer(draft, by="small", confidence=sure)
        return self._judged(draft, (await ask(session, chat)).generation)

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        draft = await session.owner.model.generate(chat, session.sampling)
        sure = await self._sure(session, chat, draft)
        if not self._escalates(sure):
            yield disassemble(draft)
            yield Answer(draft, by="small", confidence=sure)
            return
        pieces = []
        crossing = session.lm.stream(Ask(chat=chat, sampling=session.sampling))
        async with closing(crossing) as deltas:
            async for delta in deltas:
                pieces.append(delta)
                yield delta
        yield self._judged(draft, assemble(pieces))

    async def _sure(self, session: Session, chat: Chat, draft: Generation) -> float:
        """How sure the small model is that `draft` is right, 0 to 1."""
        return confidence(draft, session.sampling)

    def _escalates(self, sure: float) -> bool:
        if self.threshold is None:
            raise ValueError(f"{self._name} has no threshold yet: prepare it first")
        return sure < self.threshold

    def _judged(self, draft: Generation, reply: Generation) -> Answer:
        likely = plausibility(draft, reply.text)
        suspect = likely is not None and likely < self.distrust
        return Answer(reply, by="large", confidence=likely, suspect=suspect)


def share_threshold(scores: Sequence[float], calls: float) -> float:
    """The threshold below which a share `calls` of `scores` lies, never a larger one.

    Confidence equal to the threshold does not escalate, so ties err on the side of fewer calls.
    """
    ordered = sorted(scores)
    escalated = int(calls * len(ordered))
    return ordered[escalated] if escalated < len(ordered) else ALWAYS


def reached(
    by: str, of: str, scores: Sequence[float], threshold: float, calls: float
) -> Card | None:
    """A card that says why fewer requests will go to the LM than the share `calls`; None where
    about that many will.

    Args:
        of: the name of the scores in that sentence, e.g. "confidence".
    """
    n = len(scores)
    asked = sum(score < threshold for score in scores)
    if asked + 1 > calls * n and (asked or not calls):
        return None
    ties = sum(score == threshold for score in scores)
    why = f"{ties} of {n} tune items have the same {of}, so that none of them is asked about"
    if calls * n < 1:
        why = f"{calls:.3g} of {n} tune items is less than one: more tune items would do"
    facts: dict[str, float | str] = {
        "wanted": calls,
        "reached on tune items": asked / n,
        "why": why,
    }
    return Card(by=by, title="share of calls", facts=facts)


def best_threshold(
    scores: Sequence[float], small: Sequence[GradedReply], large: Sequence[GradedReply]
) -> float:
    """The threshold with the best mean grade; among equals, the one with the fewest calls."""
    order = np.argsort(scores, kind="stable")
    gains = np.array([large[i].grade - small[i].grade for i in order])
    totals = np.concatenate([[0.0], np.cumsum(gains)])  # totals[k]: the k least confident escalate
    ranked = np.array([scores[i] for i in order])
    # A threshold cannot part equal scores: k is possible only where the score rises.
    possible = [0] + [
        k for k in range(1, len(ranked) + 1) if k == len(ranked) or ranked[k] > ranked[k - 1]
    ]
    k = max(possible, key=lambda k: (round(float(totals[k]), 9), -k))
    return float(ranked[k]) if k < len(ranked) else ALWAYS
