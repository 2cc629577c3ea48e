"""The large model says the owner's examples in other words; the small one learns from both.

Dai et al., "AugGPT: Leveraging ChatGPT for Text Data Augmentation" (arXiv 2302.13007).

    private example ──▶ guards ──▶ LM: in other words ──▶ rewrites ──▶ sieve ──▶ small model
                                                             its label is the example's own

The example's text crosses, its label does not: an LM that knows no better than the small model which
label a text has can still say it in other words.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from cosilo.boundary.messages import Ask
from cosilo.errors import DataError
from cosilo.models.base import Trainable
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Session,
    Text,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.guide import Guide
from cosilo.strategies.labelling import replies
from cosilo.strategies.synthesis import (
    Sieve,
    Synthetic,
    card,
    examples,
    read_texts,
    usual_words,
)
from cosilo.strategies.teaching import Teaching, require_weight
from cosilo.types import Chat, Demonstration, Sampling, Turn, last_user

_SYSTEM = "You rewrite texts. You never answer them."
_ASKED = (
    "Say the text below in {count} other ways. Each keeps its meaning and differs from the others in "
    "its words and its form.\nOne per line. No numbers, no quotation marks, nothing else.\n\n"
    "Text: {text}"
)


@strategies.register("paraphrase")
@dataclass(frozen=True, kw_only=True)
class Paraphrase(Teaching):
    """Train the small model on the owner's examples and on what the large one made of each, then go on.

    Attributes:
        each: rewrites asked for of every example, in one call.
        items: how many of the owner's examples are rewritten, in their order; all when unset.
        temperature: of the LM.
        agree: drop rewrites that the small model, trained on the others, gives to another label.
        weight: of a rewrite beside a gold example.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the writing and the training.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses="the owner's examples without their labels, once, while preparing",
        choose=(
            "a few gold examples exist and the LM knows the labels no better than the small model"
        ),
    )

    name: ClassVar[str] = "paraphrase"

    each: int = 4
    items: int | None = None
    temperature: float = 0.7
    agree: bool = False
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.each < 1:
            raise ValueError(f"each = {self.each!r} is not positive")
        if self.items is not None and self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature = {self.temperature!r} is not between 0 and 2")
        require_weight(self.weight)

    def forecast(self) -> Forecast:
        text: Text = "text"
        rewrites = Expected(
            "gold", items=self.items, reads=("text", "request"), writes=(text,) * self.each
        )
        return (rewrites, *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, before = session.owner, session.lm.totals
        gold = [e for e in owner.private if e.target]
        chosen = gold[: self.items]
        if not chosen:
            raise DataError(f"{self.name} has no example of the owner's to rewrite")
        least, most, _ = usual_words(owner)
        known = [last_user(e.chat) for e in gold]
        sieve = await asyncio.to_thread(Sieve, (least, most), known)
        said = await replies(session, chosen, self.question)
        texts = [
            Synthetic(text, item.target, self.name)
            for item, reply in zip(chosen, said, strict=True)
            if reply is not None
            for text in read_texts(reply.text, self.each, whole=reply.finish_reason != "length")
        ]
        kept = await asyncio.to_thread(sieve, texts)
        if self.agree:
            kept = await sieve.agreed(session, kept, model, beside=gold, seed=self.seed)
        asked = self.each * len(chosen)
        found = await card(self.name, session, sieve, kept, asked=asked, before=before)
        found = replace(found, examples=())  # rewrites tell what the owner's texts say
        return (*gold, *examples(session, kept, weight=self.weight)), session.with_card(found)

    def question(self, item: Demonstration) -> Ask:
        """What the LM is asked about one example."""
        text = last_user(item.chat)
        chat: Chat = (
            Turn("system", _SYSTEM),
            Turn("user", _ASKED.format(count=self.each, text=text)),
        )
        seed = random.Random(f"{self.seed} {item.id}").randrange(1 << 31)
        room = 32 + 2 * self.each * (len(text) // 3 + 8)
        return Ask(
            chat=chat,
            sampling=Sampling(max_tokens=room, temperature=self.temperature, top_p=0.95, seed=seed),
        )
