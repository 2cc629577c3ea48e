"""Generated data of several sources, each text weighed by what small models of all sources make of it.

Zou et al., "FuseGen: PLM Fusion for Data-generation based Zero-shot Learning" (arXiv 2406.12527).

    source 1 ──▶ texts ──▶ small model 1 ┐            ┌▶ candidates: most and least agreed on
    source 2 ──▶ texts ──▶ small model 2 ├▶ spread of ┤       │ influence
       …                       …         ┘ p(label)   │       ▼
                                                      │  shown to all sources in the next round
    all texts ──▶ weights, lowered where a model trained on the others errs ──▶ small model

In the paper a source is a language model. A session has one, so here a source is a way of asking it: a
temperature and its own share of the tones. What goes up is as in ProGen.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cosilo.models.base import Trainable
from cosilo.strategies.base import Forecast, Session, forecast, strategies, unshared
from cosilo.strategies.calibration import calibration
from cosilo.strategies.crossfit import Floats, out_of_fold
from cosilo.strategies.guide import Guide
from cosilo.strategies.influence import influence, most_helpful, readable
from cosilo.strategies.synthesis import (
    TONES,
    Sieve,
    Synthetic,
    WantedTexts,
    card,
    examples,
    usual_words,
    write,
)
from cosilo.strategies.teaching import Teaching
from cosilo.types import Demonstration, last_user

_CANDIDATES = 10  # per text shown


@strategies.register("fusegen")
@dataclass(frozen=True, kw_only=True)
class FuseGen(Teaching):
    """Train the small model on weighed texts that the large one wrote in several ways, then go on.

    Attributes:
        temperatures: of the sources, two or more; each also has tones of its own.
        each: texts asked for of every label, of all sources in all rounds together.
        rounds: how many; the first is shown no examples.
        shown: of every label, how many texts of all sources are shown in the next round.
        lines: texts asked for in one call, one a line; 1 where texts have several lines.
        boosts: how often the weights are lowered where out-of-fold models err.
        gold: also train on the owner's own examples with their gold targets.
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
        choose="as `progen`, where texts of one way of asking are too much alike",
    )

    name: ClassVar[str] = "fusegen"

    temperatures: tuple[float, ...] = (0.7, 1.0, 1.3)
    each: int = 60
    rounds: int = 2
    shown: int = 4
    lines: int = 5
    boosts: int = 3
    gold: bool = False

    def __post_init__(self) -> None:
        if not 2 <= len(self.temperatures) <= len(TONES):
            raise ValueError(f"temperatures: between 2 and {len(TONES)} sources can be told apart")
        if self.rounds < 1 or self.shown < 1 or self.boosts < 0:
            raise ValueError("rounds and shown must be 1 or more, boosts 0 or more")
        for source in range(len(self.temperatures)):
            self._wanted(source, words=20)

    def forecast(self) -> Forecast:
        times = self.rounds * len(self.temperatures)
        wanted = self._wanted(0, words=20)
        return (wanted.exchange(times), *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, before = session.owner, session.lm.totals
        choices = session.sampling.choices
        validation = calibration(session, by=self.name) if self.rounds > 1 else ()
        least, most, usual = usual_words(owner)
        sieve, kept = Sieve((least, most)), list[Synthetic]()
        best: dict[str, list[str]] = {}
        for n in range(self.rounds):
            for k in range(len(self.temperatures)):
                texts = await write(
                    session,
                    self._wanted(k, words=usual),
                    source=f"{n}/{k}",
                    shown=best,
                    tones=TONES[k :: len(self.temperatures)],
                    seed=self.seed,
                )
                kept += await asyncio.to_thread(sieve, texts)
            sieve.require_labels(kept, choices, by=self.name)
            if n + 1 < self.rounds:
                best = await asyncio.to_thread(self._feedback, session, model, kept, validation)
        made = examples(session, kept)
        gold = owner.private if self.gold else ()
        weights = await asyncio.to_thread(self._weights, model, made, gold)
        asked = len(choices) * sum(
            w.calls() * w.lines
            for w in (self._wanted(k, words=usual) for k in range(len(self.temperatures)))
        )
        found = await card(
            self.name, session, sieve, kept, asked=asked * self.rounds, before=before
        )
        found = replace(found, tables={**found.tables, **self._by_source(kept, weights)})
        weighed = (_weighed(e, float(w)) for e, w in zip(made, weights, strict=True))
        return (*gold, *weighed), session.with_card(found)

    def _wanted(self, source: int, *, words: int) -> WantedTexts:
        """What is asked of one source in one round."""
        each = -(-self.each // max(1, self.rounds * len(self.temperatures)))
        temperature = self.temperatures[source]
        return WantedTexts(each=each, lines=self.lines, temperature=temperature, words=words)

    def _feedback(
        self,
        session: Session,
        model: Trainable,
        kept: Sequence[Synthetic],
        validation: Sequence[Demonstration],
    ) -> dict[str, list[str]]:
        """Of each label, the most helpful of the texts most and least agreed on."""
        made = examples(session, kept)
        judge = readable(model.fit(made, seed=self.seed), by=self.name)
        scores = influence(judge, made, validation)
        spread = self._spread(model, kept, made)
        chosen: list[int] = []
        for label in session.sampling.choices:
            own = [i for i, text in enumerate(kept) if text.label == label]
            ordered = sorted(own, key=lambda i: float(spread[i]))
            half = _CANDIDATES * self.shown // 2
            chosen += dict.fromkeys([*ordered[:half], *ordered[-half:]])
        return most_helpful([kept[i] for i in chosen], scores[chosen], self.shown)

    def _spread(
        self, model: Trainable, kept: Sequence[Synthetic], made: Sequence[Demonstration]
    ) -> Floats:
        """How far the sources' models are apart on each text's label: a standard deviation."""
        own: dict[str, list[Demonstration]] = defaultdict(list)
        for text, example in zip(kept, made, strict=True):
            own[_source(text)].append(example)
        texts = [last_user(e.chat) for e in made]
        views = []
        for learned in own.values():
            if len({e.target for e in learned}) < 2:
                continue  # nothing of this source passed the sieve but one label
            judge = readable(model.fit(learned, seed=self.seed), by=self.name)
            p = judge.probabilities(texts)
            at = {label: i for i, label in enumerate(judge.labels)}
            views.append(
                [p[i, at[e.target]] if e.target in at else 0.0 for i, e in enumerate(made)]
            )
        spread: Floats = np.std(np.array(views), axis=0)
        return spread

    def _weights(
        self, model: Trainable, made: Sequence[Demonstration], gold: Sequence[Demonstration]
    ) -> Floats:
        """Lowered by β^-(1 − p(label)) each time an out-of-fold model errs; their mean is 1.

        β = 1 + √max(1, 2 ln(n / boosts)), as in the authors' code.
        """
        weights = np.ones(len(made))
        if not self.boosts:
            return weights
        beta = 1 + math.sqrt(max(1.0, 2 * math.log(len(made) / self.boosts)))
        for boost in range(self.boosts):
            weighed = [_weighed(e, float(w)) for e, w in zip(made, weights, strict=True)]
            labels, p = out_of_fold(model, weighed, beside=gold, seed=self.seed + boost)
            given = np.array([labels.index(e.target) for e in made])
            wrong = p.argmax(axis=1) != given
            weights *= np.where(wrong, beta ** (p[np.arange(len(made)), given] - 1), 1.0)
            weights *= len(made) / weights.sum()
        return weights

    def _by_source(self, kept: Sequence[Synthetic], weights: Floats) -> dict[str, dict[str, float]]:
        counts = Counter(_source(text) for text in kept)
        sums: dict[str, float] = defaultdict(float)
        for text, weight in zip(kept, weights, strict=True):
            sums[_source(text)] += float(weight)
        named = {str(k): f"temperature {t:g}" for k, t in enumerate(self.temperatures)}
        return {
            "kept, by source": {f"{k}: {named[k]}": n for k, n in sorted(counts.items())},
            "mean weight, by source": {
                f"{k}: {named[k]}": sums[k] / n for k, n in sorted(counts.items())
            },
        }


def _source(text: Synthetic) -> str:
    return text.source.partition("/")[2]


def _weighed(example: Demonstration, weight: float) -> Demonstration:
    return Demonstration(example.id, example.chat, example.target, weight)
