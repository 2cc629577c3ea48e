"""The small model labels texts that may cross; the large one learns from its labels, and does better.

    texts that the small model has not learned from ──▶ small model ──▶ how likely each label is
                                                                                │ Tune
    the LM with what it learned answers, if it beats            LM's owner tunes an adapter for this
    the LM as it was on the tune items                   ◀───── client, once

Burns et al., "Weak-to-Strong Generalization" (arXiv 2312.09390). With `confidence` the LM's own opinion
counts in what it learns, so that it need not copy the small model's mistakes. No gold example crosses;
the pool's texts do, with what the small model thinks of them, which tells of what it was trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from cosilo.boundary.messages import Ask, Tune, Tuned
from cosilo.boundary.messages.tune import MOST
from cosilo.errors import DataError
from cosilo.models.base import Access, require
from cosilo.strategies.base import (
    About,
    Expected,
    Forecast,
    Needs,
    Session,
    Strategy,
    Text,
    strategies,
)
from cosilo.strategies.calibration import calibration, large_answers, small_answers
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.labelling import pool_of
from cosilo.strategies.lessons_sent import LessonsSent
from cosilo.strategies.plugged import answered, streamed
from cosilo.strategies.weak_labels import WeakLabels, in_thousandths, weak_labels
from cosilo.types import Answer, Chat, Delta, Demonstration, closing


@strategies.register("weak_to_strong")
@dataclass(frozen=True, kw_only=True)
class WeakToStrong:
    """The large model answers with an adapter that its owner tuned on the small model's labels; as it
    was, where that makes it no better on the tune items.

    Attributes:
        pool: what the small model labels: the owner's private pool, or the task's public questions.
        texts: the first so many of them; all when unset.
        soft: send how likely the small model holds each label, and not the likeliest alone.
        confidence: the share of the LM's own opinion in what it learns, 0 to below 1.
        warmup: the share of the steps over which it rises to that.
        rank, steps, batch, learning_rate, seed: of the training; the LM's owner limits them.
        items: the first so many tune items that the models are compared on; all of them when unset.
        sent: what was sent before; then `prepare` has nothing tuned.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "the pool's texts with the small model's opinion of each, once; then every question, whole"
        ),
        choose=(
            "gold examples may not cross and unlabelled texts may, the LM's owner tunes for clients, "
            "and the LM could do more than the small model can teach"
        ),
    )

    pool: Literal["private", "public"] = "private"
    texts: int | None = None
    soft: bool = True
    confidence: float = 0.5
    warmup: float = 0.2
    rank: int = 8
    steps: int = 100
    batch: int = 8
    learning_rate: float = 1e-3
    seed: int = 0
    items: int | None = None
    sent: LessonsSent | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate = {self.learning_rate!r} is not above 0 and at most 1")
        if not 0 <= self.confidence < 1 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"confidence = {self.confidence!r} must be from 0 to below 1, and warmup = "
                f"{self.warmup!r} a share"
            )
        for name, least in (("texts", 2), ("items", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} = {value!r} is below {least}")

    @property
    def needs(self) -> Needs:
        small = Access.LOGPROBS if self.soft else Access.TEXT
        return Needs(small=small, sends=frozenset({Tune, Ask}))

    def forecast(self) -> Forecast:
        about: About = "public" if self.pool == "public" else "pool"
        question: Text = "question"
        read = (question,) * (self.steps * self.batch)
        return (
            Expected(about, Tune, total=1, reads=read, writes=()),
            Expected("tune", items=self.items, each=2),
            # Not the LM as others ask it: what is recorded of that is no answer of this one.
            Expected("answers", reads=("question", 1)),
        )

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Labels, has an adapter tuned on the labels, and compares on the tune items.

        Raises:
            DataError: no closed set of labels, no texts that the small model has not learned from,
                labels that are all the same, or too few tune items.
            CapabilityError: the small model shows no probabilities, or the LM's owner tunes for nobody.
            RejectedError: it is more than the LM's owner tunes.
        """
        if self.sent is not None:
            return self, session
        choices = session.sampling.choices
        if len(choices) < 2:
            raise DataError(
                "weak_to_strong labels texts with one of a closed set, and none is known"
            )
        require(session.owner.model, Access.LOGPROBS if self.soft else Access.TEXT, by=_NAME)
        items = calibration(session, by=_NAME)[: self.items]
        pool, known = self._unlearned(session)
        labels = await weak_labels(session.owner.model, session.sampling, pool, soft=self.soft)
        labels.require(choices)
        lessons = Tune(
            chats=tuple(item.chat for item in labels.kept),
            choices=choices,
            shares=in_thousandths(labels.shares),
            steps=self.steps,
            batch=min(self.batch, len(labels.kept)),
            learning_rate=self.learning_rate,
            rank=self.rank,
            seed=self.seed,
            confidence=self.confidence,
            warmup=self.warmup,
        )
        weak = await small_answers(session, items)
        said = await session.lm.bind("lessons").send(lessons)
        before = await large_answers(session, items)
        after = await large_answers(session, items, adapter=said.name)
        grades = {
            "small model": [g.grade for g in weak],
            _BEFORE: [g.grade for g in before],
            _AFTER: [g.grade for g in after],
        }
        better = sum(grades[_AFTER]) > sum(grades[_BEFORE])
        sent = LessonsSent(said.name if better else "", lessons)
        card = _card(labels, choices, known, said, grades, better=better)
        return replace(self, sent=sent), session.with_card(card)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        sent = self._sent()
        return await answered(session, chat, sent.called, sent.again(session))

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        sent = self._sent()
        async with closing(streamed(session, chat, sent.called, sent.again(session))) as pieces:
            async for piece in pieces:
                yield piece

    def _unlearned(self, session: Session) -> tuple[Sequence[Demonstration], int]:
        """The texts to label, and how many others the small model had learned from: of those it says
        the gold labels, which shall stay at home."""
        pool = pool_of(session.owner, self.pool, by=_NAME)
        learned = session.owner.learned
        fresh = [item for item in pool if item.id not in learned]
        if not fresh:
            raise DataError(
                f"weak_to_strong has no text to label: the small model has learned from all "
                f"{len(pool)} of the {self.pool} pool, and would say their gold labels"
            )
        return fresh[: min(self.texts or MOST, MOST)], len(pool) - len(fresh)

    def _sent(self) -> LessonsSent:
        if self.sent is None:
            raise ValueError("weak_to_strong answers with the strategy that prepare returns")
        return self.sent


_NAME = "weak_to_strong"
_BEFORE, _AFTER = "large model as it was", "large model tuned on the small one's labels"


def _card(
    labels: WeakLabels,
    choices: Sequence[str],
    known: int,
    said: Tuned,
    grades: Mapping[str, Sequence[float]],
    *,
    better: bool,
) -> Card:
    counts = Counter(int(i) for i in labels.shares.argmax(axis=1))
    return Card(
        by=_NAME,
        title="the large model, tuned on the small one's labels",
        facts={
            "texts labelled": len(labels.kept),
            "left out, the small model had learned from them": known,
            "left out, it named no known label": labels.dropped,
            "sure of the label it names, on average": round(float(labels.shares.max(1).mean()), 4),
            "loss at the first step, as the LM's owner says": round(said.first, 4),
            "loss at the last step": round(said.last, 4),
            "items compared on": len(grades[_AFTER]),
            "the large model answers": "as tuned" if better else "as it was",
        },
        tables={
            "grade on the tune items": {
                name: round(float(np.mean(each)), 4) for name, each in grades.items()
            },
            "labels": {choice: counts[i] for i, choice in enumerate(choices)},
        },
    )
