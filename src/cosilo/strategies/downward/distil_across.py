"""The small model learns from a large one whose tokeniser is another.

    pool ─ Ask ─▶ replies ─ Score ─▶ the k likeliest tokens, and how the LM cuts the reply
                                        │ places where both models have read the same bytes
                                        ▼
                     loss = −log p(reply) + weight × distance at these places

Two distances. "aligned": the large model's tokens, respelt as the first token that the small one
would write (in the manner of FuseLLM, arXiv 2401.10491, and FedMKT, arXiv 2406.02224; see `alignment`),
by forward KL. "uld": sorted probabilities, whatever the tokens (Boizard et al., arXiv 2402.12030), so
that no token ids need to cross; the paper pairs places by number, here they are aligned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cosilo.boundary.logits import TopK
from cosilo.boundary.messages import Ask, Score, Scored
from cosilo.errors import DataError
from cosilo.models.base import Access, Tokens, WeightModel, require
from cosilo.strategies.base import Forecast, Needs, Session, Strategy, forecast, strategies
from cosilo.strategies.downward.alignment import Integers, Spelling, same_places
from cosilo.strategies.downward.learning import Learning, learn
from cosilo.strategies.downward.scoring import Opinion, Question, opinions
from cosilo.strategies.labelling import labelled
from cosilo.types import Answer, Chat


@dataclass(frozen=True, eq=False)
class Lesson:
    """A reply as the small model's tokens, and what the large one would have said at some of them.

    Attributes:
        places: of the reply's tokens, those that `top` is about, shape (m,).
        top: in the small model's ids, or without ids.
    """

    tokens: Tokens
    places: Integers
    top: TopK


@strategies.register("distil_across")
@dataclass(frozen=True, kw_only=True)
class DistilAcross:
    """Train the small model on the large one's replies and next-token probabilities, whatever their
    tokenisers, then go on with another strategy.

    Attributes:
        method: "aligned" compares tokens by their spelling, "uld" sorted probabilities.
        k: how many of the large model's likeliest tokens are sent for each place.
        weight: of the distance beside the reply's own log-likelihood; 0 learns from the words alone,
            and then nothing is scored.
        items: how many pool items are learned from, in the pool's order; all of them when unset.
        gold: learn from the owner's own examples and their targets; no reply of the LM is asked for.
        steps, batch, learning_rate: of the training.
        rank: of the LoRA matrices; 0 trains all weights.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    method: Literal["aligned", "uld"] = "aligned"
    k: int = 64
    weight: float = 1.0
    items: int | None = None
    gold: bool = False
    steps: int = 200
    batch: int = 8
    learning_rate: float = 2e-4
    rank: int = 8
    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or (self.items is not None and self.items < 1):
            raise ValueError(f"k = {self.k!r} and items = {self.items!r} must be positive")
        if not self.weight >= 0:
            raise ValueError(f"weight = {self.weight!r} is negative")
        self._learning()

    @property
    def needs(self) -> Needs:
        after = self._next().needs
        needs = replace(after, small=Access.WEIGHTS)
        if not self.gold:
            needs = replace(needs, sends=needs.sends | {Ask})
        if self.weight:
            needs = replace(needs, sends=needs.sends | {Score}, large=Access.LOGITS)
        return needs

    def forecast(self) -> Forecast:
        after = replace(forecast(self._next()), plain=False)
        scored = self.items if self.weight else 0
        if self.gold:
            return replace(after, scored_gold=scored)
        return replace(after, pool=self.items, scored=scored)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        owner = session.owner
        model = require(owner.model, Access.WEIGHTS, by="distil_across")
        pool = (owner.private if self.gold else owner.pool or owner.private)[: self.items]
        if not pool:
            raise DataError("distil_across has no pool to learn from")
        if not self.gold:
            labels = await labelled(session, pool)
            card = labels.card("distil_across", session.sampling.choices)
            pool, session = labels.examples, session.with_card(card)
        if not pool:
            raise DataError("distil_across got no reply from the large model that could be learned")
        items = [Scored(d.chat, d.target) for d in pool]
        found: Sequence[Opinion | None] = [None] * len(items)
        if self.weight:
            question = Question(self.k, ids=self.method == "aligned", pieces=True)
            found, _ = await opinions(session, items, question)
        lessons = lessons_from(model, items, found)
        trained, card = await learn(model, lessons, self._loss, self._loss, self._learning())
        session = replace(session, owner=replace(owner, model=trained))
        return await self._next().prepare(session.with_card(card))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError("distil_across only prepares: answer with the strategy prepare returns")

    def _loss(self, module: Any, batch: Sequence[Lesson]) -> Any:
        """Means over the batch's places and over its aligned ones: a scalar with its gradient."""
        import torch
        from torch.nn.functional import cross_entropy

        from cosilo.models.torch_batch import device_of, pad, predict

        padded = pad([lesson.tokens for lesson in batch], device_of(module))
        logits = predict(module, padded)[padded.counted].float()
        loss = cross_entropy(logits, padded.targets[padded.counted])
        at, distances = 0, []
        for lesson in batch:
            rows = logits[at : at + len(lesson.tokens) - lesson.tokens.start]
            at += len(rows)
            if len(lesson.places):
                distances.append(self._distances(rows, lesson))
        return loss + self.weight * torch.cat(distances).mean() if distances else loss

    def _distances(self, rows: Any, lesson: Lesson) -> Any:
        import torch

        from cosilo.models.torch_losses import Teacher, divergence, sorted_distance

        top = lesson.top
        teacher = Teacher.of(top.ids, top.logprobs, top.rest, top.size, rows.device)
        here = rows[torch.as_tensor(lesson.places, device=rows.device)]
        return divergence(here, teacher) if top.ids is not None else sorted_distance(here, teacher)

    def _learning(self) -> Learning:
        return Learning(
            by="distil_across",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            rank=self.rank,
            seed=self.seed,
        )

    def _next(self) -> Strategy:
        return strategies.create(self.then, **self.then_options)


def lessons_from(
    model: WeightModel, items: Sequence[Scored], found: Sequence[Opinion | None]
) -> list[Lesson]:
    """`items` as `model`'s tokens, each with the opinion of it where there is one.

    Raises:
        UnexpectedReplyError: an opinion is about another text.
    """
    spelling = Spelling(vocabulary_of(model, items[0].chat))
    lessons = []
    for item, opinion in zip(items, found, strict=True):
        tokens = model.tokenize(item.chat, item.reply)
        if opinion is None:
            none = TopK(None, np.zeros((0, 1), np.float32), np.zeros(0, np.float32), 1)
            lessons.append(Lesson(tokens, np.zeros(0, np.int64), none))
            continue
        theirs, ours = same_places(opinion.pieces, tokens.pieces)
        top = opinion.top.rows(theirs)
        if top.ids is not None:
            top = spelling.respelt(top, opinion.spelt, model.vocabulary_size)
        lessons.append(Lesson(tokens, ours, top))
    return lessons


def vocabulary_of(model: WeightModel, chat: Chat) -> dict[bytes, int]:
    """What `model`'s tokens stand for → their ids; the empty piece is the end of a turn.

    Args:
        chat: any chat that the model takes.
    """
    found = {model.piece(token): token for token in reversed(range(model.vocabulary_size))}
    return found | {b"": int(model.tokenize(chat, "").ids[-1])}
