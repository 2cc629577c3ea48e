"""The large model labels a private pool; the small one learns from the labels, then answers.

Hard-label distillation, the baseline of e.g. Hsieh et al., "Distilling Step-by-Step!" (arXiv
2305.02301). No gold target is used unless asked for: the pool is taken without its targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cosilo.boundary.messages import Ask
from cosilo.errors import DataError
from cosilo.models.base import Access, TextModel, require_trainable
from cosilo.strategies.base import (
    Forecast,
    Needs,
    Session,
    Strategy,
    ask,
    forecast,
    strategies,
)
from cosilo.strategies.fanout import fan_out
from cosilo.types import Answer, Chat, Demonstration


@strategies.register("distil_labels")
@dataclass(frozen=True, kw_only=True)
class DistilLabels:
    """Train the small model on the large one's labels, then go on with another strategy.

    Attributes:
        items: how many pool items the LM labels, in the pool's order; all of them when unset.
        gold: also train on the owner's own examples with their gold targets.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    items: int | None = None
    gold: bool = False
    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")

    @property
    def needs(self) -> Needs:
        after = self._next().needs
        return replace(after, sends=after.sends | {Ask}, small=Access.TEXT, trainable=True)

    def forecast(self) -> Forecast:
        after = forecast(self._next())
        return replace(after, pool=self.items, plain=after.plain or not after.answer)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        owner = session.owner
        model = require_trainable(owner.model, by="distil_labels")
        pool = (owner.pool or owner.private)[: self.items]
        labelled = await label(session, pool)
        if len({d.target for d in labelled}) < 2:
            raise DataError(
                f"the large model's usable labels for {len(pool)} pool items name fewer than two "
                "classes, so there is nothing to train on"
            )
        examples = (*owner.private, *labelled) if self.gold else labelled
        trained = model.fit(examples, seed=self.seed)
        if not isinstance(trained, TextModel):
            raise TypeError(f"{type(trained).__name__} was trained but cannot answer")
        return await self._next().prepare(replace(session, owner=replace(owner, model=trained)))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError("distil_labels only prepares: answer with the strategy prepare returns")

    def _next(self) -> Strategy:
        return strategies.create(self.then, **self.then_options)


async def label(session: Session, pool: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
    """`pool` with the LM's replies as targets.

    A reply outside a closed set of answers is dropped: the LM invented that label.
    """
    known = {c.casefold(): c for c in session.sampling.choices}

    async def one(example: Demonstration) -> Demonstration:
        bound = session.bind(f"pool/{example.id}")
        reply = (await ask(bound, example.chat)).generation.text.strip()
        target = known.get(reply.casefold(), "") if known else reply
        return Demonstration(example.id, example.chat, target)

    return tuple(d for d in await fan_out(one, pool) if d.target)
