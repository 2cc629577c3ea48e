"""A large model that cannot be changed forgets records of the owner's: logits are moved from outside.

    question ─┬─▶ small model, taught at home to forget ─▶ z⁺ ─┐
              ├─▶ the same without its adapter ──────────▶ z⁻ ─┼─▶ z + α (z⁺ − z⁻) ─▶ next token
              └─ Step ─▶ LM ─ Steps ─▶ its likeliest ─────▶ z ─┘         │
                   ▲                                                     │
                   └──────────────── the token ◀─────────────────────────┘

Huang et al., "Offset Unlearning for Large Language Models" (arXiv 2404.11045), which has the LM score
the records to forget. Here they never cross: while the adapter is trained, a small model that learned
the same records stands in for the LM, and is dropped afterwards
(docs/decisions/0065-who-stands-in-for-a-large-model.md).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from cosilo.boundary.messages import Step
from cosilo.errors import CapabilityError, DataError
from cosilo.models.base import Access, TextModel, WeightModel, require, require_trainable
from cosilo.models.white_box import files as torch_files
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.proxy import Proxy, has_adapter
from cosilo.strategies.mixing.opening import By, check_options, require_one_vocabulary
from cosilo.strategies.mixing.reading import require_threads
from cosilo.types import Answer, Chat, Delta, Demonstration

VERSION = 4

OnLogits = Literal["ga", "graddiff", "kl", "npo", "simnpo", "dpo", "undial"]


@strategies.register("offset")
@dataclass(frozen=True, kw_only=True)
class Offset:
    """The large model's next-token distribution, moved so that it forgets some of the owner's records.

    Attributes:
        forget: a file with the ids of the training examples to forget, one a line; the other ones are
            kept. Without it, the small model must have such an adapter already.
        method: how the adapter is trained: a loss of `white_box.unlearning` over logits. `undial`
            lowers each true token by itself; `npo` makes wrong replies as unlikely with it.
        alpha: how far logits are moved in training.
        further: so many times as far they are moved in answering, since the LM is surer of what it
            learned than the smaller model that stands in for it; 1 where the LM is no larger.
        epochs, learning_rate, batch: of training, over the examples to forget.
        layers, rank: of the adapter: the small model's last so many layers.
        top, ahead, by: as of `proxy`.
        seed: of the training.
    """

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "every question, and the reply token by token as it is written, never what is to be "
            "forgotten; back come the LM's likeliest tokens and their probabilities at each place"
        ),
        choose=(
            "somebody is to be forgotten whom the LM has learned, and its owner does not unlearn, or "
            "not yet: the LM itself still knows, and whoever asks it elsewhere finds out"
        ),
    )

    forget: Path | None = None
    method: OnLogits = "undial"
    alpha: float = 1.0
    further: float = 1.4
    epochs: float = 3.0
    learning_rate: float = 3e-3
    batch: int = 8
    layers: int = 8
    rank: int = 16
    top: int = 24
    ahead: int = 0
    by: By = "tokens"
    seed: int = 0

    needs: ClassVar[Needs] = Needs(
        small=Access.WEIGHTS,
        sends=frozenset({Step}),
        trainable=True,
        untuned=True,
        loads=Loads(packages=torch_files.PACKAGES),
    )

    def __post_init__(self) -> None:
        for name in ("alpha", "further", "epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not a positive number")
        for name in ("batch", "layers", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is below 1")
        if self.method not in OnLogits.__args__:  # type: ignore[attr-defined]
            raise ValueError(
                f"method = {self.method!r} is none of {', '.join(OnLogits.__args__)}"  # type: ignore[attr-defined]
            )
        check_options(self.top, self.ahead, self.by)

    def forecast(self) -> Forecast:
        steps = Expected(
            "answers", Step, each=1, per="answer", reads=("question", "answer"), writes=()
        )
        return (Expected("once", Step, total=1, reads=(64,), writes=()), steps)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require(session.owner.model, Access.WEIGHTS, by="offset")
        threads = require_threads(model, by="offset")
        adapted = await asyncio.to_thread(has_adapter, model)
        forget: list[Demonstration] = []
        retain: list[Demonstration] = []
        if not adapted:
            forget, retain = self._parted([e for e in session.owner.private if e.target])
        if self.by == "tokens":
            await require_one_vocabulary(session.lm, threads, by="offset")
        if adapted:
            return self, session
        learner = require_trainable(model, by="offset")
        stand_in = await asyncio.to_thread(learner.fit, [*forget, *retain], seed=self.seed)
        if not await asyncio.to_thread(has_adapter, stand_in):
            raise CapabilityError(
                f"offset needs the small model as it was before training too, and training left no "
                f"adapter on {model.name!r} that could be taken off: set method = 'lora' for it"
            )
        assert isinstance(stand_in, TextModel)
        known = require(stand_in, Access.WEIGHTS, by="offset")
        tuned, card = await asyncio.to_thread(self._taught, model, known, forget, retain)
        owner = session.owner.taught(tuned, [*forget, *retain], further=True)
        return self, replace(session, owner=owner).with_card(card)

    def _parted(
        self, examples: Sequence[Demonstration]
    ) -> tuple[list[Demonstration], list[Demonstration]]:
        """What is to be forgotten and what is kept.

        Raises:
            DataError: the file cannot be read, names nothing that is there, or all.
        """
        if self.forget is None:
            raise DataError(
                "offset does not know what to forget: give `forget`, a file with the ids of training "
                "examples, one a line, or a small model with the adapter of an earlier run"
            )
        try:
            lines = Path(self.forget).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise DataError("the file that `forget` names cannot be read as text") from None
        known, gone = {e.id for e in examples}, set()
        for number, line in enumerate(lines, 1):
            if not (name := line.strip()):
                continue
            if name not in known:
                raise DataError(
                    f"line {number} of the file that `forget` names is the id of no training example "
                    "with a target"
                )
            gone.add(name)
        if not gone or len(gone) == len(known):
            raise DataError(
                f"the file that `forget` names has {len(gone)} of {len(known)} training examples with "
                "targets: some are to be forgotten and some kept"
            )
        return [e for e in examples if e.id in gone], [e for e in examples if e.id not in gone]

    def _taught(
        self,
        model: WeightModel,
        stand_in: WeightModel,
        forget: Sequence[Demonstration],
        retain: Sequence[Demonstration],
    ) -> tuple[WeightModel, Card]:
        from cosilo.models.white_box.unlearning.forgetting import Forgetting
        from cosilo.models.white_box.unlearning.offsets import logits_of, offset

        how = Forgetting(
            epochs=self.epochs, batch=self.batch, learning_rate=self.learning_rate,
            layers=self.layers, rank=self.rank, patience=0,
        )  # fmt: skip
        found = offset(
            model, forget, retain, logits_of(stand_in), self.method,
            alpha=self.alpha, how=how, seed=self.seed,
        )  # fmt: skip
        if not found.improved:
            raise DataError(
                "offset came no nearer to a model that never saw the records: nothing would be "
                "forgotten. More epochs, or another learning rate or method, may do"
            )
        facts: dict[str, int | float | str] = {
            "method": self.method,
            "forgotten": found.records,
            "kept": found.kept,
            "steps": found.best_step,
            "distance to one that never saw them, before": round(found.before.whole, 4),
            "after": round(found.after.whole, 4),
        }
        if found.after.too_much:
            facts["forgotten too much"] = (
                "true replies are less likely beside wrong ones than where they were never seen, which "
                "tells who was forgotten: fewer epochs, or a smaller learning rate or alpha, may do"
            )
        return found.model, Card(by="offset", title="what stood in for the LM", facts=facts)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return await self._mixed.answer(session, chat)

    def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        return self._mixed.stream(session, chat)

    @property
    def _mixed(self) -> Proxy:
        return Proxy(alpha=self.alpha * self.further, top=self.top, ahead=self.ahead, by=self.by)
