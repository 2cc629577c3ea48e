"""What the LM thinks of replies, word by word, fetched across the boundary.

(chat, reply) … ─ Score ─▶ LM ─ Scores ─▶ one `Opinion` each
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.messages import Score, Scored, Scores
from cosilo.boundary.wire.logits import TopK, unpack
from cosilo.errors import UnexpectedReplyError
from cosilo.strategies.base import Session
from cosilo.strategies.fanout import fan_out

TOGETHER = 8
"""Replies in one message: what packing learns from one helps with the next."""


@dataclass(frozen=True, eq=False)
class Opinion:
    """What the LM would have said in place of each token of a reply, as the LM cuts it.

    Attributes:
        pieces: the tokens in UTF-8, where they were asked for.
        spelt: what the ids stand for, where pieces were asked for.
    """

    top: TopK
    pieces: tuple[bytes, ...] = ()
    spelt: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """How replies are to be scored; see `Score`."""

    top: int
    temperature: float = 1.0
    ids: bool = True
    pieces: bool = False

    def about(self, items: Sequence[Scored]) -> Score:
        return Score(
            items=tuple(items),
            top=self.top,
            temperature=self.temperature,
            ids=self.ids,
            pieces=self.pieces,
        )


async def opinions(
    session: Session, items: Sequence[Scored], question: Question
) -> tuple[list[Opinion], str]:
    """The LM's opinion of each of `items` (at least one), and the hash of its vocabulary.

    Messages are bound to "pool": each holds several items.

    Raises:
        UnexpectedReplyError: what came back is not about what was sent.
    """
    channel = session.lm.bind("pool")

    async def some(chunk: Sequence[Scored]) -> Scores:
        return await channel.send(question.about(chunk))

    chunks = [items[i : i + TOGETHER] for i in range(0, len(items), TOGETHER)]
    found: list[Opinion] = []
    vocabularies = set()
    for chunk, scores in zip(chunks, await fan_out(some, chunks, concurrency=2), strict=True):
        found += read(scores, question.about(chunk))
        vocabularies.add(scores.vocabulary)
    if len(vocabularies) != 1:
        raise UnexpectedReplyError("the large model's vocabulary changed while it was asked")
    return found, vocabularies.pop()


def read(scores: Scores, question: Score) -> Iterator[Opinion]:
    """The opinions in the reply to `question`.

    Raises:
        UnexpectedReplyError: they are not about these.
    """
    top = unpack(scores.packed, most=question.places_bound() * question.top)
    named = top.ids is not None
    if len(scores.lengths) != len(question.items) or named != question.ids:
        raise UnexpectedReplyError("the scores are not those of the replies that were sent")
    if not question.pieces:
        yield from (Opinion(part) for part in top.parts(scores.lengths))
        return
    if tuple(map(len, scores.pieces)) != scores.lengths:
        raise UnexpectedReplyError("the large model's tokens are not as many as their scores")
    spelt = {}
    if top.ids is not None:
        known = _named(top.ids, len(scores.spelt))
        if len(known) != len(scores.spelt):
            raise UnexpectedReplyError("the large model did not spell every token that it named")
        spelt = dict(zip(known, scores.spelt, strict=True))
    for part, pieces in zip(top.parts(scores.lengths), scores.pieces, strict=True):
        yield Opinion(part, pieces, spelt)


def _named(ids: NDArray[np.int32], most: int) -> list[int]:
    """The different ones of `ids`, in order; some of them where there are more than `most`."""
    known: NDArray[np.int32] = np.empty(0, np.int32)
    for start in range(0, ids.size, _AT_ONCE):
        known = np.union1d(known, ids.reshape(-1)[start : start + _AT_ONCE])
        if len(known) > most:
            break
    return [int(i) for i in known]


_AT_ONCE = 1 << 14  # ids, so that sorting takes little memory
