"""Replies are read in one run each, and what was predicted at their tokens is cut to the likeliest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np

from cosilo.boundary.messages import Score, Scores
from cosilo.boundary.wire.logits import TopK, joined, pack, top_k
from cosilo.models.base import Access, Tokens, require
from cosilo.parties.serving.base import Owner, answering, serves

_VALUES = 1 << 26  # logits held at once: a quarter of a gigabyte


@serves(Score)
async def score(owner: Owner, message: Score) -> Scores:
    asked = await answering(owner, message.adapter)
    model = require(asked, Access.LOGITS, by=f"{owner.name}, asked to score replies,")
    texts = [model.tokenize(item.chat, item.reply) for item in message.items]

    async def one(tokens: Tokens) -> TopK:
        (logits,) = await model.logits([tokens])
        scaled = logits / np.float32(message.temperature)
        return top_k(scaled, message.top, ids=message.ids)  # of V numbers a token, k are kept

    found: list[TopK] = []
    for group in _groups(texts, model.vocabulary_size):
        found += await asyncio.gather(*map(one, group))
    whole = joined(found)
    named = [] if whole.ids is None else np.unique(whole.ids).tolist()
    return Scores(
        packed=pack(whole),
        lengths=tuple(map(len, found)),
        vocabulary=model.vocabulary,
        pieces=tuple(t.pieces for t in texts) if message.pieces else (),
        spelt=tuple(map(model.piece, named)) if message.pieces else (),
        prompt_tokens=sum(map(len, texts)),
    )


def _groups(texts: Sequence[Tokens], size: int) -> Iterator[list[Tokens]]:
    """`texts` in order, in groups whose logits fit into memory together."""
    group: list[Tokens] = []
    values = 0
    for text in texts:
        more = (len(text) - text.start) * size
        if group and values + more > _VALUES:
            yield group
            group, values = [], 0
        group.append(text)
        values += more
    yield group
