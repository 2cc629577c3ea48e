"""The large model labels a pool; the small one learns from the labels, then answers.

Hard-label distillation, the baseline of e.g. Hsieh et al., "Distilling Step-by-Step!" (arXiv
2305.02301). No gold target is used unless asked for: the pool is taken without its targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from cosilo.models.base import Trainable
from cosilo.strategies.base import About, Expected, Forecast, Session, forecast, strategies
from cosilo.strategies.guide import Guide
from cosilo.strategies.labelling import (
    agreed,
    balanced,
    labelled,
    pool_of,
    require_classes,
)
from cosilo.strategies.teaching import Teaching
from cosilo.types import Demonstration


@strategies.register("distil_labels")
@dataclass(frozen=True, kw_only=True)
class DistilLabels(Teaching):
    """Train the small model on the large one's labels, then go on with another strategy.

    Attributes:
        pool: what the LM labels: the owner's private pool, or the task's public questions.
        items: how many of them, in their order; all when unset.
        agree: drop labels that the small model, trained on the others, takes for mistakes: the LM's
            own, or those of somebody who tampers with its replies.
        balance: weigh the LM's labels so that each label counts the same, however often the LM says
            it: right where the labels are about equally frequent and the LM prefers some.
        gold: also train on the owner's own examples with their gold targets.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses="the pool's texts, once, while preparing; nothing while answering",
        choose=(
            "the LM labels better than the small model, there are many unlabelled texts, and "
            "answers must stay at home"
        ),
    )

    name: ClassVar[str] = "distil_labels"

    pool: Literal["private", "public"] = "private"
    items: int | None = None
    agree: bool = False
    balance: bool = False
    gold: bool = False

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")

    def forecast(self) -> Forecast:
        after = forecast(self.next())
        plain = all(exchange.plain for exchange in after)
        about: About = "public" if self.pool == "public" else "pool"
        return (Expected(about, items=self.items, plain=plain), *after)

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        pool = pool_of(session.owner, self.pool, by=self.name)[: self.items]
        choices = session.sampling.choices
        labels = await labelled(session, pool)
        require_classes(labels, closed=bool(choices))
        gold = session.owner.private if self.gold else ()
        if self.agree:
            labels = await agreed(labels, model, beside=gold, seed=self.seed)
            require_classes(labels, closed=bool(choices))
        session = session.with_card(labels.card(self.name, choices))
        taught = balanced(labels.examples) if self.balance else labels.examples
        return (*gold, *taught), session
