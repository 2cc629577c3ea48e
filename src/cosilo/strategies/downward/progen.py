"""The large model writes in rounds; what helped the small one most is shown to it as good examples.

Ye et al., "ProGen: Progressive Zero-shot Dataset Generation via In-context Feedback" (arXiv
2210.12329).

       ┌───────────────────────────────────────────────────────────────────┐
       ▼                                                                   │
    LM writes ──▶ sieve ──▶ small model ──▶ influence on the owner's ──▶ best texts
                                            validation loss

What goes up besides what ZeroGen sends are texts that the LM wrote itself. Which of them go up was
chosen with the owner's validation examples, which tells a little about these: their texts and labels
never cross, but the choice is theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cosilo.models.base import Trainable
from cosilo.strategies.base import Forecast, Session, forecast, strategies, unshared
from cosilo.strategies.calibration import calibration
from cosilo.strategies.guide import Guide
from cosilo.strategies.influence import influence, most_helpful, readable
from cosilo.strategies.synthesis import (
    Sieve,
    Synthetic,
    WantedTexts,
    card,
    examples,
    usual_words,
    write,
)
from cosilo.strategies.teaching import Teaching, require_weight
from cosilo.types import Demonstration


@strategies.register("progen")
@dataclass(frozen=True, kw_only=True)
class ProGen(Teaching):
    """Train the small model on texts that the large one wrote in rounds, then go on.

    Attributes:
        each: texts asked for of every label, in all rounds together.
        rounds: how many; the first is shown no examples.
        shown: of every label, how many of the most helpful texts are shown in the next round.
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
        crosses=(
            "the labels and the instructions, then texts that the LM wrote itself, picked by the "
            "owner's examples"
        ),
        choose="no unlabelled texts may cross, and what ZeroGen writes is not good enough",
    )

    name: ClassVar[str] = "progen"

    each: int = 50
    rounds: int = 3
    shown: int = 4
    lines: int = 5
    temperature: float = 1.0
    agree: bool = True
    gold: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        self._wanted(words=20)
        require_weight(self.weight)
        if self.rounds < 2 or self.shown < 1:
            raise ValueError("rounds must be 2 or more, and shown 1 or more")

    def forecast(self) -> Forecast:
        wanted = self._wanted(words=20)
        return (wanted.exchange(self.rounds), *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, before = session.owner, session.lm.totals
        choices = session.sampling.choices
        validation = calibration(session, by=self.name)
        least, most, usual = usual_words(owner)
        wanted, sieve = self._wanted(words=usual), Sieve((least, most))
        gold = owner.private if self.gold else ()
        kept: list[Synthetic] = []
        best: dict[str, list[str]] = {}
        for n in range(self.rounds):
            texts = await write(session, wanted, source=f"round {n}", shown=best, seed=self.seed)
            kept += await asyncio.to_thread(sieve, texts)
            sieve.require_labels(kept, choices, by=self.name)
            if n + 1 < self.rounds:
                made = examples(session, kept)
                trained = await asyncio.to_thread(model.fit, (*gold, *made), seed=self.seed)
                judge = readable(trained, by=self.name)
                scores = await asyncio.to_thread(influence, judge, made, validation)
                best = most_helpful(kept, scores, self.shown)
        if self.agree:
            kept = await sieve.agreed(session, kept, model, beside=gold, seed=self.seed)
            sieve.require_labels(kept, choices, by=self.name)
        asked = self.rounds * wanted.calls() * wanted.lines * len(choices)
        found = await card(self.name, session, sieve, kept, asked=asked, before=before)
        return (*gold, *examples(session, kept, weight=self.weight)), session.with_card(found)

    def _wanted(self, *, words: int) -> WantedTexts:
        """What is asked of the LM in one round."""
        each = -(-self.each // max(self.rounds, 1))
        return WantedTexts(each=each, lines=self.lines, temperature=self.temperature, words=words)
