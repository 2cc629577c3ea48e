"""The large model is tuned where the data are, and it is not there: an emulator of it is.

    LM's owner ── first layers, poorer middle, last layers ──▶ data owner: tunes first and last layers
               ◀── what was tuned: adapters ────────────────── through the frozen middle, on its records
    the LM with these adapters answers, if it beats the LM as it was on the tune items

Xiao, Lin and Han, "Offsite-Tuning: Transfer Learning without Full Model" (arXiv 2302.04870), with LoRA
on the first and last layers. With `rounds` of 2 and more the LM's owner aligns the middle to what came
back and sends it again (Wu et al., "FedBiOT", arXiv 2406.17706). No record crosses; what they taught
does, in the adapters.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cosilo.boundary.messages import Ask, Lend, PlugIn
from cosilo.boundary.messages.lend import PART
from cosilo.boundary.wire.tensors import pack, unpack
from cosilo.errors import DataError
from cosilo.models.base import Access, Tokens, WeightModel, require
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    merged_with,
    trained_adapter,
)
from cosilo.models.white_box.emulator import ends_of, renumbered
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.borrowing import Borrowed, borrow, borrow_aligned
from cosilo.strategies.calibration import GradedReply, calibration, large_answers, small_answers
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.plugged import Again, answered, streamed
from cosilo.strategies.tuned_ends import TunedEnds
from cosilo.types import Answer, Chat, Delta, Demonstration, closing

_DRAWS = 2000  # resamples of an interval


@strategies.register("offsite")
@dataclass(frozen=True, kw_only=True)
class Offsite:
    """The large model answers with adapters that were tuned here, through an emulator of it that its
    owner lends; as it was, where they make it no better on the tune items.

    Attributes:
        rank: of the adapters.
        steps, batch, learning_rate, seed: of each round's training.
        rounds: how often it is tuned; before every round but the first, the LM's owner aligns the
            emulator to what came back.
        most_mb: the largest emulator that is taken, in 10⁶ bytes; a larger one is refused before any
            of it crosses.
        codec: in how many bytes the adapters are sent, see `boundary.wire.codecs`.
        items: the first so many tune items that all are compared on; all of them when unset.
        tuned: what was tuned before; then `prepare` tunes nothing.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "an emulator of the LM comes down; adapters that the records taught go up, then the "
            "questions, whole"
        ),
        choose=(
            "the records may not cross but the questions may, and the LM's owner lends an emulator "
            "and plugs adapters in"
        ),
    )

    rank: int = 8
    steps: int = 100
    batch: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    rounds: int = 1
    most_mb: float = 512.0
    codec: str = "fp16"
    items: int | None = None
    tuned: TunedEnds | None = None

    needs: ClassVar[Needs] = Needs(
        small=Access.WEIGHTS,
        sends=frozenset({Lend, PlugIn, Ask}),
        loads=Loads(packages=torch_files.PACKAGES),
    )

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch", "rounds", "learning_rate", "most_mb"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} = {value!r} is not positive")
        if self.items is not None and self.items < 2:
            raise ValueError(f"items = {self.items!r} is below 2")
        pack({"codec": np.ones((1, 1), np.float32)}, self.codec)  # says that there is none

    def forecast(self) -> Forecast:
        parts = math.ceil(self.most_mb * 1e6 / PART) * self.rounds
        return (
            Expected("once", Lend, total=parts, reads=(1024,), writes=()),
            Expected("once", PlugIn, total=self.rounds, reads=(1024,), writes=()),
            Expected("tune", items=self.items, each=2),
            # Not the LM as others ask it: what is recorded of that is no answer of this one.
            Expected("answers", reads=("question", 1)),
        )

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Borrows, tunes, plugs in, and compares on the tune items.

        Raises:
            DataError: there are no private examples with a target, or too few tune items.
            CapabilityError: the small model has no weights here, or the LM's owner lends no emulator
                of its tokeniser and of this size.
        """
        if self.tuned is not None:
            return self, session
        model = require(session.owner.model, Access.WEIGHTS, by="offsite")
        lessons = [e for e in session.owner.private if e.target and e.weight > 0]
        if not lessons:
            raise DataError(
                "offsite tunes on the owner's own examples ('train'), and there are none with a target"
            )
        items = calibration(session, by="offsite")[: self.items]
        vocabulary = await asyncio.to_thread(lambda: model.vocabulary)
        channel, most = session.lm.bind("emulator"), int(self.most_mb * 1e6)
        lent = await borrow(channel, vocabulary, most=most)
        as_sent = await self._grades(session, model.with_module(lent.module), items)
        sequences = await asyncio.to_thread(
            lambda: [model.tokenize(each.chat, each.target) for each in lessons]
        )
        adapter = first_adapter(ends_of(lent.module, lent.about.ends), self.rank, seed=self.seed)
        sizes, losses = [lent.size], []
        ends: TunedEnds | None = None
        for number in range(self.rounds):
            if ends is not None:
                lent = await borrow_aligned(channel, vocabulary, lent, ends.name, most=most)
                sizes.append(lent.size)
            adapter, loss = await asyncio.to_thread(
                self._trained, lent, adapter, sequences, self.seed + number
            )
            losses.append(loss)
            ends = await self._plugged_in(session, lent, adapter)
        assert ends is not None  # there is a round at least
        home = await asyncio.to_thread(merged_with, lent.module, _arrived(ends, lent))
        at_home = await self._grades(session, model.with_module(home), items)
        before = await large_answers(session, items)
        plugged = await large_answers(session, items, adapter=ends.name)
        found = Comparison(
            before=_of(before), as_sent=_of(as_sent), at_home=_of(at_home), plugged=_of(plugged)
        )
        if not found.better:
            ends = replace(ends, name="")
        card = _card(found, lent, sizes, len(ends.packed), losses, len(lessons))
        return replace(self, tuned=ends), session.with_card(card)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return await answered(session, chat, self._tuned().name, self._again(session))

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        async with closing(
            streamed(session, chat, self._tuned().name, self._again(session))
        ) as pieces:
            async for piece in pieces:
                yield piece

    def _again(self, session: Session) -> Again:
        async def again() -> str:
            await session.lm.send(self._tuned().message(again=True))
            return self._tuned().name

        return again

    def _tuned(self) -> TunedEnds:
        if self.tuned is None:
            raise ValueError("offsite answers with the strategy that prepare returns")
        return self.tuned

    def _trained(
        self, lent: Borrowed, adapter: Adapter, sequences: Sequence[Tokens], seed: int
    ) -> tuple[Adapter, float]:
        """The adapter after a round, and the last step's loss."""
        made, outcome = trained_adapter(
            lent.module,
            adapter,
            sequences,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            warmup=0.1,
            seed=seed,
        )
        return made, outcome.losses[-1]

    async def _plugged_in(self, session: Session, lent: Borrowed, adapter: Adapter) -> TunedEnds:
        there = renumbered(adapter, dict(enumerate(lent.about.kept)))
        packed = await asyncio.to_thread(pack, there.tensors, self.codec)
        ends = TunedEnds("", lent.about.base, there.rank, there.alpha, packed)
        reply = await session.lm.bind("emulator").send(ends.message())
        return replace(ends, name=reply.name)

    async def _grades(
        self, session: Session, model: WeightModel, items: Sequence[Demonstration]
    ) -> list[GradedReply]:
        """What a model at home is worth on the tune items."""
        return await small_answers(
            replace(session, owner=replace(session.owner, model=model)), items
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Grades of the tune items, 0 to 1, each in their order.

    Attributes:
        before: the LM's, as it was.
        as_sent, at_home: the emulator's, and the emulator's with what was tuned.
        plugged: the LM's with what was tuned.
    """

    before: np.ndarray
    as_sent: np.ndarray
    at_home: np.ndarray
    plugged: np.ndarray

    @property
    def better(self) -> bool:
        """Whether the LM is asked with what was tuned."""
        return float(self.plugged.mean()) > float(self.before.mean())

    @property
    def in_order(self) -> bool:
        """Whether the LM with what was tuned beats the emulator with it, which is no worse than the
        emulator as it was sent: else the emulator does by itself what the LM is for."""
        tuned, sent = float(self.at_home.mean()), float(self.as_sent.mean())
        return float(self.plugged.mean()) > tuned >= sent

    def gain(self) -> tuple[float, float, float]:
        """Of the tuned LM over the LM as it was: the mean, and its 95 % interval over items."""
        more = self.plugged - self.before
        rng = np.random.default_rng(0)
        means = more[rng.integers(0, len(more), (_DRAWS, len(more)))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(more.mean()), float(low), float(high)


def _arrived(ends: TunedEnds, lent: Borrowed) -> Adapter:
    """The adapter as the LM's owner has it, for the emulator."""
    there = Adapter(ends.rank, ends.alpha, unpack(ends.packed))
    return renumbered(there, {layer: k for k, layer in enumerate(lent.about.kept)})


def _of(graded: Sequence[GradedReply]) -> np.ndarray:
    return np.array([each.grade for each in graded], np.float64)


def _card(
    found: Comparison,
    lent: Borrowed,
    sizes: Sequence[int],
    up: int,
    losses: Sequence[float],
    lessons: int,
) -> Card:
    gain, low, high = found.gain()
    gap = lent.about.alone - lent.about.whole
    return Card(
        by="offsite",
        title="the large model, tuned through an emulator",
        facts={
            "examples tuned on": lessons,
            "rounds": len(losses),
            "loss at the last step": round(losses[-1], 4),
            "layers of the large model in the emulator": len(lent.about.kept),
            "gap of the emulator alone, nats per token, as its owner says": round(gap, 4),
            "bytes down": sum(sizes),
            "bytes up a round": up,
            "items compared on": len(found.plugged),
            "gain over the large model as it was": round(gain, 4),
            "its 95 % interval": f"{low:.4f} to {high:.4f}",
            "the large model answers": "with what was tuned" if found.better else "as it was",
            "plugged in > emulator tuned ≥ emulator as sent": "yes" if found.in_order else "no",
        },
        tables={
            "grade on the tune items": {
                "large model as it was": round(float(found.before.mean()), 4),
                "emulator as sent": round(float(found.as_sent.mean()), 4),
                "emulator tuned": round(float(found.at_home.mean()), 4),
                "plugged in": round(float(found.plugged.mean()), 4),
            }
        },
    )
