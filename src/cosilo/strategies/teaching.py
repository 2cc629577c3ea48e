"""What all strategies do that train the small model in `prepare` and leave answering to another one.

lessons (across the boundary, or not) ──▶ small model, trained ──▶ then: any strategy
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from cosilo.boundary.messages import Ask
from cosilo.models.base import Access, TextModel, Trainable, require_trainable
from cosilo.strategies.base import Needs, Session, Strategy, strategies
from cosilo.types import Answer, Chat, Demonstration


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Override `lessons`, and set `name` to what the strategy is registered as.

    Attributes:
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of all that is random while preparing.
    """

    name: ClassVar[str]

    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    @property
    def needs(self) -> Needs:
        after = self.next().needs
        return replace(after, sends=after.sends | {Ask}, small=Access.TEXT, trainable=True)

    def next(self) -> Strategy:
        """The strategy that answers, not prepared."""
        return strategies.create(self.then, **self.then_options)

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        """What to train `model` on, and the session with cards that say how these examples were
        obtained.
        """
        raise NotImplementedError

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require_trainable(session.owner.model, by=self.name)
        lessons, session = await self.lessons(session, model)
        # Others, whom a gateway serves meanwhile, are not kept waiting.
        trained = await asyncio.to_thread(model.fit, lessons, seed=self.seed)
        if not isinstance(trained, TextModel):
            raise TypeError(f"{type(trained).__name__} was trained but cannot answer")
        # Weights are trained on from what they are; a head on an encoder begins anew each time.
        further = session.owner.model.access >= Access.WEIGHTS
        owner = session.owner.taught(trained, lessons, further=further)
        return await self.next().prepare(replace(session, owner=owner))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError(f"{self.name} only prepares: answer with the strategy prepare returns")


def require_weight(weight: float) -> None:
    """Refuse a weight of examples that would take them out, or turn them around.

    Raises:
        ValueError: it is not above 0.
    """
    if not weight > 0:
        raise ValueError(f"weight = {weight!r} is not positive")
