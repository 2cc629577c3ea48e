"""The small model judges texts that the large one invents; the large one learns to write what is judged
well, the small one learns from what it writes.

    labels ──▶ LM ──▶ texts ──▶ sieve ──▶ small model, trained on the records: is it of its label?
               ▲                                      │ Tune: texts and scores
               └── writes with what it learned ◀── LM's owner tunes an adapter for this client
    … rounds … ──▶ small model, trained on records and on all texts by their scores ──▶ next strategy

Deng et al., "Mutual Enhancement of Large and Small Language Models with Cross-Silo Knowledge
Transfer" (CrossLM, arXiv 2312.05842). No text of the owner's crosses: the labels, the instructions,
about how long texts are, and what the small model thinks of the LM's own texts, which tells of the
records that it learned from.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import msgspec
import numpy as np

from cosilo.boundary.messages import Tune, Tuned
from cosilo.boundary.messages.tune import MOST, WHOLE
from cosilo.errors import DataError, UnknownAdapterError
from cosilo.models.base import Access, TextModel, Trainable, require
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.synthesis import (
    TONES,
    Sieve,
    Synthetic,
    WantedTexts,
    card,
    description,
    examples,
    question,
    usual_words,
    write,
)
from cosilo.strategies.teaching import Teaching, require_weight
from cosilo.strategies.weak_labels import weak_labels
from cosilo.types import Demonstration


@strategies.register("crosslm")
@dataclass(frozen=True, kw_only=True)
class CrossLM(Teaching):
    """Train the small model on texts that the large one writes, which the small model's judgement has
    taught it to write, then go on.

    Attributes:
        each: texts asked for of every label, in each round.
        rounds: how often the LM writes; before every round but the first its owner tunes it on the
            judged texts of all rounds so far.
        least: a text is worth its score, the probability of its label, where that is no less than this;
            else nothing.
        lines: texts asked for in one call, one a line; 1 where texts have several lines.
        temperature: of the LM.
        rank, steps, batch, learning_rate: of the LM's training; its owner limits them.
        weight: of a text that is certainly of its label, beside a gold example.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the writing and the trainings.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "the labels and the instructions, then texts that the LM wrote itself with the small "
            "model's opinion of each; no text of the owner's"
        ),
        choose=(
            "no text may cross, the LM's owner tunes for clients, and what the LM writes unasked is "
            "not like the owner's texts"
        ),
    )

    name: ClassVar[str] = "crosslm"

    each: int = 20
    rounds: int = 2
    least: float = 0.5
    lines: int = 1
    temperature: float = 1.0
    rank: int = 8
    steps: int = 50
    batch: int = 8
    learning_rate: float = 1e-3
    weight: float = 1.0

    def __post_init__(self) -> None:
        self._wanted(words=20)
        require_weight(self.weight)
        for name in ("rank", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate = {self.learning_rate!r} is not above 0 and at most 1")
        if self.rounds < 2:
            raise ValueError(f"rounds = {self.rounds!r} is below 2: the LM would be taught nothing")
        if not 0 <= self.least < 1:
            raise ValueError(f"least = {self.least!r} is not from 0 to below 1")

    @property
    def needs(self) -> Needs:
        found = super().needs
        return replace(found, sends=found.sends | {Tune}, small=Access.LOGPROBS)

    def forecast(self) -> Forecast:
        wanted = self._wanted(words=20)
        read = self.steps * self.batch * (_PROMPT + 20)
        taught = Expected("once", Tune, total=self.rounds - 1, reads=(read,), writes=())
        return (wanted.exchange(self.rounds), taught, *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, before = session.owner, session.lm.totals
        choices = session.sampling.choices
        gold = [e for e in owner.private if e.target and e.weight > 0]
        if len({e.target for e in gold}) < 2:
            raise DataError(
                "crosslm judges texts by a small model trained on the owner's own examples ('train'), "
                "and these have fewer than two labels"
            )
        description(session)  # refuses what may hold private text, before anything is trained
        judge = await asyncio.to_thread(model.fit, gold, seed=self.seed)
        assert isinstance(judge, TextModel)
        require(judge, Access.LOGPROBS, by=self.name)
        least, most, usual = usual_words(owner)
        wanted, sieve = self._wanted(words=usual), Sieve((least, most))
        judged = _Judged(choices, self.least)
        said: Tuned | None = None
        for number in range(self.rounds):
            if number:
                said = await self._taught(session, judged, wanted)
            source = f"round {number}"
            name = said.name if said is not None else ""
            try:
                texts = await write(session, wanted, source=source, seed=self.seed, adapter=name)
            except UnknownAdapterError:  # on record, from an owner who has forgotten it since
                said = await self._taught(session, judged, wanted, again=True)
                texts = await write(
                    session, wanted, source=source, seed=self.seed, adapter=said.name
                )
            kept = await asyncio.to_thread(sieve, texts)
            items = examples(session, kept)
            judged.add(number, kept, await self._scores(session, judge, items))
            if not judged.texts:
                sieve.require_labels((), choices, by=self.name)
        judged.require(self.name, sieve)
        assert said is not None  # there are two rounds at least
        asked = self.rounds * wanted.calls() * wanted.lines * len(choices)
        found = await card(self.name, session, sieve, judged.texts, asked=asked, before=before)
        session = session.with_card(found).with_card(judged.card(self.name, said))
        made = examples(session, judged.texts, weight=self.weight)
        worth = zip(made, judged.worth(), strict=True)
        again = msgspec.structs.replace
        return (*gold, *(again(e, weight=e.weight * w) for e, w in worth if w > 0)), session

    async def _scores(
        self, session: Session, judge: TextModel, items: Sequence[Demonstration]
    ) -> list[float]:
        """How likely the judge holds each item's label; 0 where it names none."""
        labels = await weak_labels(judge, session.sampling, items)
        choices = session.sampling.choices
        known = {
            item.id: float(row[choices.index(item.target)])
            for item, row in zip(labels.kept, labels.shares, strict=True)
        }
        return [known.get(item.id, 0.0) for item in items]

    async def _taught(
        self, session: Session, judged: _Judged, wanted: WantedTexts, *, again: bool = False
    ) -> Tuned:
        """Have the LM tuned on what was judged so far."""
        about, one = description(session), replace(wanted, lines=1)
        texts, worth = judged.texts[:MOST], judged.worth()[:MOST]
        if not sum(worth) > 0:
            raise DataError(
                f"the small model holds none of the {len(texts)} texts that the large one wrote for "
                f"its label with a probability of {self.least:g} or more, so there is nothing to teach"
            )
        lessons = Tune(
            chats=tuple(
                question(about, text.label, one, tone=TONES[i % len(TONES)])
                for i, text in enumerate(texts)
            ),
            replies=tuple(text.text for text in texts),
            shares=tuple((round(WHOLE * share),) for share in worth),
            steps=self.steps,
            batch=min(self.batch, len(texts)),
            learning_rate=self.learning_rate,
            rank=self.rank,
            seed=self.seed,
        )
        return await session.lm.bind("lessons").send(msgspec.structs.replace(lessons, again=again))

    def _wanted(self, *, words: int) -> WantedTexts:
        return WantedTexts(
            each=self.each, lines=self.lines, temperature=self.temperature, words=words
        )


_PROMPT = 100  # tokens of what asks for a text, about


class _Judged:
    """The texts that the LM wrote so far, and how much of its label each is."""

    def __init__(self, choices: Sequence[str], least: float) -> None:
        self.texts: list[Synthetic] = []
        self.scores: list[float] = []
        self._rounds: list[int] = []
        self._choices, self._least = choices, least

    def add(self, number: int, texts: Sequence[Synthetic], scores: Sequence[float]) -> None:
        self.texts += texts
        self.scores += scores
        self._rounds += [number] * len(texts)

    def worth(self) -> list[float]:
        return [score if score >= self._least else 0.0 for score in self.scores]

    def require(self, by: str, sieve: Sieve) -> None:
        """Refuse texts that leave a label without any that is worth something.

        Raises:
            DataError: there is such a label.
        """
        worth = self.worth()
        sieve.dropped["not of its label, as the small model judges"] = worth.count(0.0)
        kept = [text for text, w in zip(self.texts, worth, strict=True) if w > 0]
        sieve.require_labels(kept, self._choices, by=by)

    def card(self, by: str, said: Tuned) -> Card:
        worth, rounds = np.array(self.worth()), np.array(self._rounds)
        numbers = sorted(set(self._rounds))
        counts = Counter(text.label for text, w in zip(self.texts, worth, strict=True) if w > 0)
        return Card(
            by=by,
            title="texts as the small model judges them",
            facts={
                "worth learning from": int((worth > 0).sum()),
                "loss of the LM at the first step of its last training": round(said.first, 4),
                "loss of the LM at the last step": round(said.last, 4),
            },
            tables={
                "probability of their label, on average": {
                    f"round {n}": round(float(np.array(self.scores)[rounds == n].mean()), 4)
                    for n in numbers
                },
                "share that is worth learning from": {
                    f"round {n}": round(float((worth[rounds == n] > 0).mean()), 4) for n in numbers
                },
                "worth learning from, by label": {c: counts[c] for c in self._choices},
            },
        )
