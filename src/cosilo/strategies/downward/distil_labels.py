"""The large model labels a private pool; the small one learns from the labels, then answers.

Hard-label distillation, the baseline of e.g. Hsieh et al., "Distilling Step-by-Step!" (arXiv
2305.02301). No gold target is used unless asked for: the pool is taken without its targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cosilo.boundary.messages import Ask
from cosilo.errors import DataError
from cosilo.models.base import Access, TextModel, require_trainable
from cosilo.strategies.base import (
    Forecast,
    Needs,
    Session,
    Strategy,
    forecast,
    strategies,
)
from cosilo.strategies.labelling import read_labels, replies, require_classes
from cosilo.types import Answer, Chat


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
        if not pool:
            raise DataError("distil_labels has no pool for the large model to label")
        choices = session.sampling.choices
        said = await replies(
            session, pool, lambda item: Ask(chat=item.chat, sampling=session.sampling)
        )
        labels = read_labels(pool, [r.text if r else None for r in said], choices)
        require_classes(labels, closed=bool(choices))
        examples = (*owner.private, *labels.examples) if self.gold else labels.examples
        trained = model.fit(examples, seed=self.seed)
        if not isinstance(trained, TextModel):
            raise TypeError(f"{type(trained).__name__} was trained but cannot answer")
        session = replace(session, owner=replace(owner, model=trained))
        return await self._next().prepare(session.with_card(labels.card("distil_labels", choices)))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError("distil_labels only prepares: answer with the strategy prepare returns")

    def _next(self) -> Strategy:
        return strategies.create(self.then, **self.then_options)
