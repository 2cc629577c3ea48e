"""The small model narrows each question down, the large one decides, the small one learns from both.

Active learning asks about what the learner is least sure of (Lewis and Gale, "A Sequential Algorithm
for Training Text Classifiers", 1994); here the teacher is a language model whose choice among a few
labels is better than its choice among all, and whose mistakes the small model's own view tempers.

    pool ──▶ small model, from gold examples ──▶ items it is least sure of, a few labels each ──▶ LM
                                                                                                │
         small model, trained again ◀── gold + items, each label weighed by both views ◀────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import msgspec

from cosilo.boundary.messages import Ask
from cosilo.errors import DataError
from cosilo.models.base import Shows, Trainable
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.guide import Guide
from cosilo.strategies.labelling import pool_of, read_labels, replies
from cosilo.strategies.narrowing import blended, judge_of, least_sure, narrowed, views
from cosilo.strategies.teaching import Teaching, require_weight
from cosilo.types import Demonstration


@strategies.register("narrow_labels")
@dataclass(frozen=True, kw_only=True)
class NarrowLabels(Teaching):
    """Train the small model on gold examples and on pool items that both models labelled together.

    Attributes:
        items: how many of the owner's pool the LM is asked about: those that the small model,
            trained on the gold examples, is least sure of.
        candidates: how many labels the small model leaves to choose from.
        trust: what the LM's view counts beside the small model's: probabilities are multiplied, the
            LM's raised to this power. Without it the LM's choice alone is the label; then no
            log-probabilities are needed of it.
        weight: of an item beside a gold example.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses=(
            "the texts that the small model is least sure of, each with a few labels to choose from"
        ),
        choose=(
            "a few gold examples exist, there are many labels, and a limited number of calls to "
            "the LM"
        ),
    )

    name: ClassVar[str] = "narrow_labels"

    items: int | None = 300
    candidates: int = 5
    trust: float | None = None
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")
        if self.candidates < 2:
            raise ValueError(f"candidates = {self.candidates!r} leave no choice")
        if self.trust is not None and self.trust < 0:
            raise ValueError(f"trust = {self.trust!r} is negative")
        require_weight(self.weight)

    @property
    def needs(self) -> Needs:
        needs = super().needs
        shown = Shows.NOTHING if self.trust is None else Shows.LOGPROBS
        return replace(needs, large=needs.large | shown)

    def forecast(self) -> Forecast:
        return (Expected("pool", items=self.items), *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, choices = session.owner, session.sampling.choices
        if len(choices) < 2:
            raise DataError(f"{self.name} needs a task with a closed set of labels")
        whole = pool_of(owner, "private", by=self.name)
        judge = await judge_of(owner, model, by=self.name, seed=self.seed)
        p = await asyncio.to_thread(views, judge, whole, choices)
        rows = least_sure(p, self.items)
        pool, p = [whole[i] for i in rows], p[rows]
        left = {
            item.id: tuple(choices[i] for i in view.argsort()[::-1][: self.candidates])
            for item, view in zip(pool, p, strict=True)
        }

        def question(item: Demonstration) -> Ask:
            sampling = msgspec.structs.replace(
                session.sampling, choices=left[item.id], top_logprobs=self.candidates
            )
            return Ask(chat=narrowed(item.chat, choices, left[item.id]), sampling=sampling)

        said = await replies(session, pool, question)
        labels = read_labels(pool, [r.text if r else None for r in said], choices)
        taught = []
        for row, example in zip(labels.rows, labels.examples, strict=True):
            reply, item = said[row], pool[row]
            assert reply is not None
            shares = {example.target: 1.0}
            if self.trust is not None:
                shares = blended(p[row], left[item.id], choices, reply, self.trust)
            for label, share in shares.items():
                taught.append(Demonstration(item.id, item.chat, label, self.weight * share))
        firsts = [left[e.id][0] for e in labels.examples]
        agrees = sum(f == e.target for f, e in zip(firsts, labels.examples, strict=True))
        found = labels.card(self.name, choices)
        facts = {**found.facts, "of these, the small model's first choice too": agrees}
        return (*owner.private, *taught), session.with_card(replace(found, facts=facts))
