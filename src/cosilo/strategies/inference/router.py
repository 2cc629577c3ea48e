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
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies, stream
from cosilo.strategies.calibration import calibration, large_answers, small_answers
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.cascade import reached, share_threshold
from cosilo.strategies.inference.ends import Large, Small
from cosilo.strategies.inference.gain import Floats, GainModel, fit_gain
from cosilo.types import Answer, Chat, Delta, closing, last_user


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
        seed: of the cross-fitting.
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
    seed: int = 0
    model: GainModel | None = None

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}), loads=Loads(packages=("sklearn",)))

    def __post_init__(self) -> None:
        if self.calls is not None and not 0 <= self.calls <= 1:
            raise ValueError(f"calls = {self.calls!r} is not between 0 and 1")
        if self.calls is not None and self.threshold is not None:
            raise ValueError("give threshold or calls, not both")

    def forecast(self) -> Forecast:
        share = 1.0 if self.calls is None else self.calls
        return (Expected("tune", plain=True), Expected("answers", share=share, plain=True))

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        if self.model is not None:
            return self, session
        examples = calibration(session, by="router", least=20)
        small = await small_answers(session, examples)
        large = await large_answers(session, examples)
        gains = np.array([b.grade - a.grade for a, b in zip(small, large, strict=True)])
        texts = [last_user(e.chat) for e in examples]
        model, held_out = await asyncio.to_thread(fit_gain, texts, gains, seed=self.seed)
        threshold = self.threshold if self.threshold is not None else 0.0
        if self.calls is not None:
            losses = [-g for g in held_out]
            least = share_threshold(losses, self.calls)
            told = reached("router", "expected gain", losses, least, self.calls)
            session = session if told is None else session.with_card(told)
            threshold = -least
        return replace(self, model=model, threshold=threshold, calls=None), session

    def expected_gain(self, texts: Sequence[str]) -> Floats:
        """Expected gain of asking the LM about each text, shape (len(texts),), in grades."""
        if self.model is None:
            raise ValueError("router has learned nothing yet: prepare it first")
        return self.model.predict(texts)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return await self._chosen(chat).answer(session, chat)

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        async with closing(stream(self._chosen(chat), session, chat)) as pieces:
            async for piece in pieces:
                yield piece

    def _chosen(self, chat: Chat) -> Strategy:
        gain = float(self.expected_gain([last_user(chat)])[0])
        return Large() if gain > (self.threshold or 0.0) else Small()
