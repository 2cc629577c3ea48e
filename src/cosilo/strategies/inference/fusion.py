"""Two models write one reply token by token; only the small one sees the private context.

    question ─┬─ all of it ───────────▶ small model ──────────▶ p at home ─┐
              └─ without its context ─ Step ─▶ LM ─ Steps ─▶ p of the LM ──┴─▶ next token
                                         ▲                                        │
                                         └──────────────── the token ◀────────────┘

Three ways to join the two:

    gate    w p_LM + (1 − w) p_home, w learned or fixed: Zhang et al., "CoGenesis" (arXiv 2403.03129)
    defer   the small model writes, and leaves to the LM the tokens that a linear head says: Shen et
            al., "Learning to Decode Collaboratively" (Co-LLM, arXiv 2403.03870). Only these places are
            asked about; the text in front of them crosses with them
    delta   log p_LM + β (log p_home − log p_home without the context): Lv et al., "CoSteer" (arXiv
            2507.04756), without its iterations

The LM's owner never gets the context, but it gets the reply as it grows, with all that the small model
took from the context into it: where that must not leave, this is not the strategy.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from cosilo.boundary.messages import Step
from cosilo.errors import RejectedError
from cosilo.models.base import Access
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.mixing.gate import AT_HOME, HIDDEN, OF_BOTH, Gate, learned, quantile
from cosilo.strategies.mixing.lessons import lessons
from cosilo.strategies.mixing.mixture import Mixture, Source
from cosilo.strategies.mixing.opening import By, check_options, opened, require_one_vocabulary
from cosilo.strategies.mixing.reading import HomeReader, require_threads
from cosilo.strategies.mixing.rules import Deferred, Difference, Weighed
from cosilo.strategies.mixing.writing import answered, streamed
from cosilo.types import Answer, Chat, Delta, Turn, last_user

Rule = Literal["gate", "defer", "delta"]
Split = Literal["system", "marker"]

LEARNED_FROM = 100
"""Tune items whose replies a gate learns from, unless it is told otherwise."""


@strategies.register("fusion")
@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The small model knows the private context, the large one how to write; each token is of both.

    Attributes:
        rule: "gate", "defer" or "delta", as above.
        split: where the LM's part of a question is: "system": the system turns, all other turns are
            private; "marker": these, and of the last user turn what stands before the first `marker`.
        marker: what parts an instruction from its context.
        weight: of "gate", the LM's share, 0 to 1; unset: a gate learned in `prepare`, for each token.
        beta: of "delta", how much the context counts.
        threshold: of "defer", the LM writes where the head gives it more, 0 to 1.
        calls: of "defer", the share of tokens that the LM writes instead: `prepare` sets the threshold.
        items: tune items to learn from.
        top: how many of the LM's likeliest tokens are sent for each place.
        ahead: of "gate" and "delta", tokens that the small model drafts, to be asked about in one
            crossing; what a draft holds is sent.
        by: "tokens" where both models have one vocabulary, else "bytes" ("delta", and "gate" with a
            weight).
        numbers: what was learned; then `prepare` learns nothing.
    """

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "the question without its private context, and the reply token by token as it is written; "
            "to learn a gate also tune items' right replies; back come the LM's likeliest tokens"
        ),
        choose=(
            "the context must not leave but what is written of it may, the LM shows probabilities, and "
            "the small model knows the facts and writes badly"
        ),
    )

    rule: Rule = "gate"
    split: Split = "system"
    marker: str = "\n\n"
    weight: float | None = None
    beta: float = 1.0
    threshold: float = 0.5
    calls: float | None = None
    items: int = LEARNED_FROM
    top: int = 24
    ahead: int = 0
    by: By = "tokens"
    numbers: tuple[float, ...] = ()

    needs: ClassVar[Needs] = Needs(small=Access.LOGPROBS, sends=frozenset({Step}))

    def __post_init__(self) -> None:
        check_options(self.top, self.ahead, self.by)
        for name in ("weight", "threshold", "calls"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} = {value!r} is not between 0 and 1")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta = {self.beta!r} is not a number from 0 on")
        if self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")
        if not self.marker:
            raise ValueError("marker is empty")
        if self.rule == "defer" and self.ahead:
            raise ValueError("ahead drafts for the LM, which rule = 'defer' asks only now and then")
        if self.by == "bytes" and self._learns:
            raise ValueError(
                "by = 'bytes' goes with rule = 'delta', or with 'gate' and a weight: a gate is learned "
                "from tokens"
            )
        self._gate()  # raises where the numbers are not a gate's

    @property
    def _learns(self) -> bool:
        return self.rule == "defer" or (self.rule == "gate" and self.weight is None)

    def forecast(self) -> Forecast:
        share = self.calls if self.rule == "defer" and self.calls is not None else 1.0
        reply = Expected(
            "answers", Step, share=share, per="answer", reads=("question", "answer"), writes=()
        )
        same = Expected("once", Step, total=1, reads=(64,), writes=())
        taught = Expected("tune", Step, items=self.items, reads=("question", "target"), writes=())
        return (same, taught, reply) if self._learns and not self.numbers else (same, reply)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require_threads(session.owner.model, by="fusion")
        if self.by == "tokens":
            await require_one_vocabulary(session.lm, model, by="fusion")
        if not self._learns or self.numbers:
            return self, session
        defers = self.rule == "defer"
        lesson = await lessons(session, model, self.public, self.items, self.top, at_home=defers)
        gate = await asyncio.to_thread(learned, lesson, 0 if defers else HIDDEN)
        threshold = self.threshold
        if defers and self.calls is not None:
            threshold = quantile(gate, [lesson.seen], self.calls)
        shares = gate(lesson.seen)
        facts: dict[str, int | float | str] = {"tokens learned from": len(shares)}
        facts["share of the LM on these"] = round(float(shares.mean()), 4)
        if defers:
            facts["asked about of these"] = round(float((shares > threshold).mean()), 4)
        prepared = replace(self, numbers=gate.numbers, threshold=threshold, calls=None)
        return prepared, session.with_card(Card(by="fusion", title="gate", facts=facts))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return await answered(await self._opened(session, chat), session.sampling)

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        async for piece in streamed(await self._opened(session, chat), session.sampling):
            yield piece

    async def _opened(self, session: Session, chat: Chat) -> Source:
        model, shown = require_threads(session.owner.model, by="fusion"), self.public(chat)
        readers = [HomeReader(model, chat)]
        if self.rule == "delta":
            readers.append(HomeReader(model, shown))
        return opened(
            self._mixture(), session.lm, shown, readers,
            by=self.by, top=self.top, ahead=self.ahead, name="fusion",
        )  # fmt: skip

    def public(self, chat: Chat) -> Chat:
        """What the LM may see of `chat`: a user turn, of the instruction alone.

        Raises:
            RejectedError: there is no instruction; then nothing is sent.
        """
        parts = [turn.content for turn in chat if turn.role == "system"]
        if self.split == "marker":
            said, mark, _ = last_user(chat).partition(self.marker)
            if not mark:
                raise RejectedError(
                    "the question has no marker between its instruction and its context, so nothing of "
                    "it may leave; see `split` and `marker` of fusion",
                    status=400,
                )
            parts.append(said)
        whole = "\n\n".join(part for part in parts if part.strip())
        if not whole.strip():
            raise RejectedError(
                "the question has no instruction apart from its private context, so nothing of it may "
                "leave; see `split` of fusion",
                status=400,
            )
        return (Turn("user", whole),)

    def _mixture(self) -> Mixture:
        gate = self._gate()
        if self.rule == "delta":
            return Difference(self.beta)
        if self.rule == "gate" and self.weight is not None:
            return Weighed(self.weight)
        if gate is None:
            raise ValueError("fusion was not prepared: it has no gate yet")
        return Weighed(0.0, gate) if self.rule == "gate" else Deferred(gate, self.threshold)

    def _gate(self) -> Gate | None:
        if not self.numbers or not self._learns:
            return None
        defers = self.rule == "defer"
        return Gate(self.numbers, AT_HOME if defers else OF_BOTH, 0 if defers else HIDDEN)
