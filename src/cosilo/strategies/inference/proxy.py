"""The large model is tuned from outside: what training changed in a small one is added to its logits.

    question ─┬─▶ small model, tuned at home ───────▶ z⁺ ─┐
              ├─▶ the same without its adapter ─────▶ z⁻ ─┼─▶ z + α (z⁺ − z⁻) ─▶ next token
              └─ Step ─▶ LM ─ Steps ─▶ its likeliest ▶ z ─┘         │
                   ▲                                                │
                   └──────────────── the token ◀────────────────────┘

Liu et al., "Tuning Language Models by Proxy" (arXiv 2401.08565). The LM's owner shows the
`top` likeliest tokens and what all others have together; these are taken to be spread as the untuned
small model spreads them (what that costs is measured, docs/results.md). Neither the adapter nor the
training data crosses; the questions and the replies do, the latter token by token.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import ClassVar
from weakref import WeakKeyDictionary

from cosilo.boundary.messages import Step
from cosilo.errors import CapabilityError, DataError
from cosilo.models.base import Access, TextModel, WeightModel, require, require_trainable
from cosilo.models.white_box import files as torch_files
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.guide import Guide
from cosilo.strategies.mixing.mixture import Source
from cosilo.strategies.mixing.opening import By, check_options, opened, require_one_vocabulary
from cosilo.strategies.mixing.reading import HomeReader, require_threads
from cosilo.strategies.mixing.rules import Difference
from cosilo.strategies.mixing.writing import answered, streamed
from cosilo.types import Answer, Chat, Delta

_untuned: WeakKeyDictionary[WeightModel, WeightModel] = WeakKeyDictionary()


@strategies.register("proxy")
@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The large model's next-token distribution, moved as training moved the small model's.

    Attributes:
        alpha: how far; 0 is the large model alone.
        top: how many of the large model's likeliest tokens are sent for each place.
        ahead: tokens that the tuned small model drafts, to be asked about in one crossing; what a draft
            holds is sent, whether it becomes part of the reply or not.
        by: "tokens" where both models have one vocabulary, else "bytes".
        seed: of the training, where the small model has no adapter yet.
    """

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "every question, and the reply token by token as it is written; back come the LM's "
            "likeliest tokens and their probabilities at each place"
        ),
        choose=(
            "you have examples that must stay at home, the LM shows probabilities and is not yours to "
            "tune, and a small model tuned alone is not good enough"
        ),
    )

    alpha: float = 1.0
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
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha = {self.alpha!r} is not a number from 0 on")
        check_options(self.top, self.ahead, self.by)

    def forecast(self) -> Forecast:
        steps = Expected(
            "answers", Step, each=1, per="answer", reads=("question", "answer"), writes=()
        )
        return (Expected("once", Step, total=1, reads=(64,), writes=()), steps)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require(session.owner.model, Access.WEIGHTS, by="proxy")
        threads = require_threads(model, by="proxy")
        adapted = await asyncio.to_thread(has_adapter, model)
        examples = [e for e in session.owner.private if e.target]
        if not (adapted or examples):
            raise DataError(
                "proxy has nothing to tune the small model on: give it training examples with targets, "
                "or a small model with an adapter"
            )
        if self.by == "tokens":
            await require_one_vocabulary(session.lm, threads, by="proxy")
        if adapted:
            return self, session
        learner = require_trainable(model, by="proxy")
        tuned = await asyncio.to_thread(learner.fit, examples, seed=self.seed)
        if not await asyncio.to_thread(has_adapter, tuned):
            raise CapabilityError(
                f"proxy needs the small model as it was before training too, and training left no "
                f"adapter on {model.name!r} that could be taken off: set method = 'lora' for it"
            )
        assert isinstance(tuned, TextModel)
        owner = session.owner.taught(tuned, examples, further=True)
        return self, replace(session, owner=owner)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return await answered(await self._opened(session, chat), session.sampling)

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        async for piece in streamed(await self._opened(session, chat), session.sampling):
            yield piece

    async def _opened(self, session: Session, chat: Chat) -> Source:
        tuned = require(session.owner.model, Access.WEIGHTS, by="proxy")
        base = await asyncio.to_thread(untuned, tuned)
        readers = [HomeReader(require_threads(m, by="proxy"), chat) for m in (tuned, base)]
        return opened(
            Difference(self.alpha), session.lm, chat, readers,
            by=self.by, top=self.top, ahead=self.ahead, name="proxy",
        )  # fmt: skip


def untuned(model: WeightModel) -> WeightModel:
    """`model` as it was before it was trained; the weights that training left alone are shared.

    Raises:
        CapabilityError: it has no adapter that could be taken off.
    """
    from cosilo.models.white_box.tuning import without_adapter

    if not has_adapter(model):
        raise CapabilityError(f"proxy was not prepared: {model.name!r} has no adapter")
    if model not in _untuned:
        _untuned[model] = model.with_module(without_adapter(model.module))
    return _untuned[model]


def has_adapter(model: object) -> bool:
    from cosilo.models.white_box.layers import is_adapted

    return is_adapted(getattr(model, "module", None))
