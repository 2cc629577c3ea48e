"""The small model learns from a large one whose tokeniser is another.

    pool ─ Ask ─▶ replies ─ Score ─▶ the k likeliest tokens, and how the LM cuts the reply
                                        │ places where both models have read the same bytes
                                        ▼
                     loss = −log p(reply) + weight × distance at these places

Two distances. "aligned": the large model's tokens, respelt as the first token that the small one
would write (in the manner of FuseLLM, arXiv 2401.10491, and FedMKT, arXiv 2406.02224; see
`boundary.wire.alignment`), by forward KL. "uld": sorted probabilities, whatever the tokens (Boizard et
al., arXiv 2402.12030), so that no token ids need to cross; the paper pairs places by number, here they
are aligned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from cosilo.boundary.messages import Ask, Score, Scored
from cosilo.boundary.wire.alignment import Integers, Spelling, same_places, vocabulary_of
from cosilo.boundary.wire.logits import TopK
from cosilo.models.base import Access, Tokens, WeightModel, require
from cosilo.models.white_box import files as torch_files
from cosilo.registry import Loads
from cosilo.strategies.base import Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.downward.learning import Learning
from cosilo.strategies.downward.scoring import Opinion, Question, opinions
from cosilo.strategies.guide import Guide


@dataclass(frozen=True, eq=False)
class AlignedLesson:
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
class DistilAcross(Learning):
    """Train the small model on the large one's replies and next-token probabilities, whatever their
    tokenisers, then go on with another strategy.

    Attributes:
        method: "aligned" compares tokens by their spelling, "uld" sorted probabilities.
        k: how many of the large model's likeliest tokens are sent for each place.
        weight: of the distance beside the reply's own log-likelihood; 0 learns from the words alone,
            and then nothing is scored.

    The others are those of `Learning`.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses=(
            "the pool's texts and the LM's replies to them; back come, for each place of a reply,"
            " the likeliest tokens as spelt"
        ),
        choose=(
            "the LM shows probabilities, the small model can be trained, and their tokenisers "
            "differ"
        ),
    )

    name: ClassVar[str] = "distil_across"

    method: Literal["aligned", "uld"] = "aligned"
    k: int = 64
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k = {self.k!r} is not positive")
        if not self.weight >= 0:
            raise ValueError(f"weight = {self.weight!r} is negative")

    @property
    def needs(self) -> Needs:
        after = self.next().needs
        loads = after.loads | Loads(packages=torch_files.PACKAGES)
        needs = replace(after, small=Access.WEIGHTS, loads=loads)
        if not self.gold:
            needs = replace(needs, sends=needs.sends | {Ask})
        if self.weight:
            needs = replace(needs, sends=needs.sends | {Score})
        return needs

    def forecast(self) -> Forecast:
        return (*((self.scored(),) if self.weight > 0 else ()), *super().forecast())

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require(session.owner.model, Access.WEIGHTS, by=self.name)
        examples, session = await self.replies(session, self.pool(session))
        items = [Scored(example.chat, example.target) for example in examples]
        found: Sequence[Opinion | None] = [None] * len(items)
        if self.weight:
            question = Question(self.k, ids=self.method == "aligned", pieces=True)
            found, _ = await opinions(session, items, question)
        lessons = await asyncio.to_thread(lessons_from, model, items, found)
        return await self.learned(session, model, examples, lessons, self._loss)

    def _loss(self, module: Any, batch: Sequence[AlignedLesson]) -> Any:
        """Means over the batch's places and over its aligned ones: a scalar with its gradient."""
        import torch
        from torch.nn.functional import cross_entropy

        from cosilo.models.white_box.batch import device_of, pad, predict

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

    def _distances(self, rows: Any, lesson: AlignedLesson) -> Any:
        import torch

        from cosilo.models.white_box.losses import Teacher, divergence, sorted_distance

        top = lesson.top
        teacher = Teacher.of(top.ids, top.logprobs, top.rest, top.size, rows.device)
        here = rows[torch.as_tensor(lesson.places, device=rows.device)]
        return divergence(here, teacher) if top.ids is not None else sorted_distance(here, teacher)


def lessons_from(
    model: WeightModel, items: Sequence[Scored], found: Sequence[Opinion | None]
) -> list[AlignedLesson]:
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
            lessons.append(AlignedLesson(tokens, np.zeros(0, np.int64), none))
            continue
        theirs, ours = same_places(opinion.pieces, tokens.pieces)
        top = opinion.top.rows(theirs)
        if top.ids is not None:
            top = spelling.respelt(top, opinion.spelt, model.vocabulary_size)
        lessons.append(AlignedLesson(tokens, ours, top))
    return lessons
