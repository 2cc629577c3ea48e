"""The large model reads the pool; what its states say and what the small model says label it together.

    gold texts ┐           ┌ states ─▶ linear head, from the gold labels ┐
    pool texts ┴─ Read ─▶ LM                                             ├─▶ soft labels of the pool
                             small model, from the gold labels ──────────┘          │
                                small model, trained again ◀── gold + pool ◀────────┘

An LM that picks the wrong label when it is asked can still tell the texts apart: its state after
"in one word: " sums the text up (Jiang et al., "Scaling Sentence Embeddings with Large Language
Models", arXiv 2307.16645). The labels never cross; the texts do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cosilo.boundary.messages import Read
from cosilo.boundary.wire import states
from cosilo.errors import DataError
from cosilo.models.base import Array, Trainable
from cosilo.models.encoder import head
from cosilo.registry import Loads
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
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.narrowing import LEAST, Floats, arranged, judge_of, views
from cosilo.strategies.teaching import Teaching, require_weight
from cosilo.types import Demonstration, last_user

FRAME = 'Text: "{text}"\nIn one word, it is about: "'
"""What is read; the state of its last token is the text's."""

TOGETHER = 32
"""Texts in one message."""

_WIDTH = 384
"""Directions of the states that are kept, those of the most variance."""


@strategies.register("distil_states")
@dataclass(frozen=True, kw_only=True)
class DistilStates(Teaching):
    """Train the small model on gold examples and on a pool labelled by it and the LM's states together.

    Attributes:
        items: how many pool items are read, in their order; all when unset.
        frame: what the LM reads, with the text in the place of {text}. It says in the task's words
            what the text is to be summed up as.
        layer: after how many layers the states are taken; all, when unset.
        trust: what the states' view counts beside the small model's: probabilities are multiplied,
            the states' raised to this power.
        sharpness: an item's shares of the labels are raised to this power: 1 leaves both views' doubts
            as they are, a high one makes the likeliest label the only one.
        weight: of a pool item beside a gold example.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses=(
            "the pool's texts and the owner's examples without their labels; back comes a vector "
            "for each"
        ),
        choose=(
            "the LM shows hidden states, a few gold examples exist, and the LM itself picks "
            "labels badly"
        ),
    )

    name: ClassVar[str] = "distil_states"

    items: int | None = None
    frame: str = FRAME
    layer: int | None = None
    trust: float = 0.5
    sharpness: float = 3.0
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")
        if self.frame.count("{text}") != 1:
            raise ValueError(f"frame = {self.frame!r} does not hold {{text}} once")
        if self.layer is not None and self.layer < 0:
            raise ValueError(f"layer = {self.layer!r} is negative")
        if self.trust < 0:
            raise ValueError(f"trust = {self.trust!r} is negative")
        if not self.sharpness > 0:
            raise ValueError(f"sharpness = {self.sharpness!r} is not positive")
        require_weight(self.weight)

    @property
    def needs(self) -> Needs:
        after = self.next().needs  # no `Ask` of its own: nothing is answered in words
        loads = after.loads | Loads(packages=head.PACKAGES)
        return replace(super().needs, sends=after.sends | {Read}, loads=loads)

    def forecast(self) -> Forecast:
        return (
            Expected("pool", Read, items=self.items, writes=()),
            Expected("gold", Read, writes=()),
            *unshared(forecast(self.next())),
        )

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, choices = session.owner, session.sampling.choices
        if len(choices) < 2:
            raise DataError(f"{self.name} needs a task with a closed set of labels")
        gold = [e for e in owner.private if e.target]
        pool = owner.pool[: self.items]
        if not gold or not pool:
            missing = "gold examples" if not gold else "pool of texts without labels"
            raise DataError(f"{self.name} needs gold examples and a pool; there is no {missing}")
        judge = await judge_of(owner, model, by=self.name, seed=self.seed)
        own = await asyncio.to_thread(views, judge, pool, choices)
        read = await self._states(session, [*gold, *pool])
        features = await asyncio.to_thread(reduced, read)
        texts = [last_user(e.chat) for e in (*gold, *pool)]
        teacher = await asyncio.to_thread(
            head.train,
            features[: len(gold)],
            texts[: len(gold)],
            [e.target for e in gold],
            weights=[e.weight for e in gold],
            features="embedding",
            seed=self.seed,
        )
        seen = await asyncio.to_thread(
            teacher.probabilities, features[len(gold) :], texts[len(gold) :]
        )
        told = arranged(seen, teacher.labels, choices)
        shares = together(own, told, self.trust, self.sharpness)
        taught = [
            Demonstration(item.id, item.chat, choices[i], self.weight * float(row[i]))
            for item, row in zip(pool, shares, strict=True)
            for i in np.flatnonzero(row)
        ]
        card = Card(
            by=self.name,
            title="labels by two views",
            facts={
                "gold texts read": len(gold),
                "pool texts read": len(pool),
                "both views name the same label": int((own.argmax(1) == told.argmax(1)).sum()),
                "accuracy of the small model on gold, held out": _accuracy(judge),
                "accuracy of the states' head on gold, held out": _accuracy(teacher),
            },
        )
        return (*gold, *taught), session.with_card(card)

    async def _states(self, session: Session, items: Sequence[Demonstration]) -> Array:
        """The LM's state of each text, shape (items, its width)."""
        channel = session.lm.bind("pool")

        async def some(chunk: Sequence[Demonstration]) -> Array:
            texts = tuple(self.frame.replace("{text}", last_user(e.chat)) for e in chunk)
            reply = await channel.send(Read(texts=texts, layer=self.layer))
            return states.unpack(reply.packed, len(chunk))

        chunks = [items[i : i + TOGETHER] for i in range(0, len(items), TOGETHER)]
        found = await fan_out(some, chunks, concurrency=2)
        if len({part.shape[1] for part in found}) != 1:
            raise DataError(f"{self.name} was given states of different widths")
        return np.concatenate(found)


def reduced(found: Array, width: int = _WIDTH) -> Array:
    """Unit vectors of at most `width` directions: every channel counts alike, the rarest left out.

    A few channels of a language model's states are hundreds of times as large as all others.
    """
    centred = found - found.mean(axis=0)
    scaled = centred / np.maximum(centred.std(axis=0), 1e-6)
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    kept = scaled @ vectors[:, ::-1][:, :width]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.asarray(kept / np.maximum(lengths, 1e-9), np.float32)


def together(own: Floats, told: Floats, trust: float, sharpness: float = 1.0) -> Floats:
    """Each row (own · told ** trust) ** sharpness, its least likely labels left out, summing to 1."""
    logs = np.log(np.maximum(own, 1e-6)) + trust * np.log(np.maximum(told, 1e-6))
    logs *= sharpness
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares = odds / odds.sum(axis=1, keepdims=True)
    shares = np.where(shares >= LEAST, shares, 0.0)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float64)


def _accuracy(model: object) -> float | str:
    found = getattr(model, "validation", None)
    return round(float(found.accuracy), 4) if found is not None else "not known"
