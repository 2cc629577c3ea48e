"""The large model writes a training set from the labels alone; the small one learns from it.

Ye et al., "ZeroGen: Efficient Zero-shot Learning via Dataset Generation" (arXiv 2202.07922).

    labels, instructions ──▶ LM ──▶ texts per label ──▶ sieve ──▶ small model ──▶ next strategy

No text of the owner's crosses: what goes up is the task's instructions with its labels, a tone to write
in, and about how long a text shall be. The instructions are the questions' system turn, which must be
one and the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cosilo.models.base import Trainable
from cosilo.strategies.base import Forecast, Session, forecast, strategies, unshared
from cosilo.strategies.guide import Guide
from cosilo.strategies.synthesis import Sieve, WantedTexts, card, examples, usual_words, write
from cosilo.strategies.teaching import Teaching, require_weight
from cosilo.types import Demonstration


@strategies.register("zerogen")
@dataclass(frozen=True, kw_only=True)
class ZeroGen(Teaching):
    """Train the small model on texts that the large one wrote for each label, then go on.

    Attributes:
        each: texts asked for of every label.
        lines: texts asked for in one call, one a line; 1 where texts have several lines.
        temperature: of the LM.
        agree: drop texts that the small model, trained on the others, gives to another label.
        gold: also train on the owner's own examples with their gold targets.
        weight: of a generated text beside a gold example.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the writing and the training.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses="the labels and the instructions; no text of the owner's",
        choose="there are no texts at all yet, or none may cross",
    )

    name: ClassVar[str] = "zerogen"

    each: int = 50
    lines: int = 5
    temperature: float = 1.0
    agree: bool = True
    gold: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        WantedTexts(each=self.each, lines=self.lines, temperature=self.temperature)
        require_weight(self.weight)

    def forecast(self) -> Forecast:
        wanted = WantedTexts(each=self.each, lines=self.lines)
        return (wanted.exchange(), *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, before = session.owner, session.lm.totals
        least, most, usual = usual_words(owner)
        wanted = WantedTexts(
            each=self.each, lines=self.lines, temperature=self.temperature, words=usual
        )
        sieve = Sieve((least, most))
        texts = await write(session, wanted, source="zerogen", seed=self.seed)
        kept = await asyncio.to_thread(sieve, texts)
        gold = owner.private if self.gold else ()
        if self.agree:
            kept = await sieve.agreed(session, kept, model, beside=gold, seed=self.seed)
        sieve.require_labels(kept, session.sampling.choices, by=self.name)
        asked = wanted.calls() * wanted.lines * len(session.sampling.choices)
        found = await card(self.name, session, sieve, kept, asked=asked, before=before)
        return (*gold, *examples(session, kept, weight=self.weight)), session.with_card(found)
