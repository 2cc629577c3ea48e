"""The party with the large model: it serves messages and keeps its weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Read,
    Score,
    Scores,
    States,
)
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import TopK, joined, pack, top_k
from cosilo.errors import CapabilityError
from cosilo.models.base import Access, TextModel, Tokens, require, stream
from cosilo.parties.exposure import permit, shown, shown_words
from cosilo.types import Delta, closing

_VALUES = 1 << 26  # logits held at once: a quarter of a gigabyte


@dataclass(frozen=True)
class LMOwner:
    """Serves `model` up to the access level it `exposes`.

    Attributes:
        exposes: a request for more than this level is refused, and what a back end shows unasked
            (token log-probabilities) is left out of the reply.
    """

    model: TextModel
    exposes: Access = Access.TEXT
    name: str = "lm-owner"

    async def handle(self, message: Message) -> Message:
        """The reply to `message`.

        Raises:
            CapabilityError: this owner does not serve such messages, or not at this level.
        """
        permit(message, self.exposes, by=self.name)
        match message:
            case Ask():
                reply = await self.model.generate(message.chat, message.sampling)
                return shown(Completion(generation=reply), self.exposes)
            case Score():
                return await self._scored(message)
            case Read():
                return await self._states(message)
            case _:
                raise CapabilityError(
                    f"{self.name} exposes {self.exposes.name.lower()} and does not serve "
                    f"{type(message).__name__}"
                )

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        permit(ask, self.exposes, by=self.name)
        async with closing(stream(self.model, ask.chat, ask.sampling)) as deltas:
            async for delta in deltas:
                yield shown_words(delta, self.exposes)

    async def _states(self, read: Read) -> States:
        model = require(self.model, Access.ACTIVATIONS, by=f"{self.name}, asked to read texts,")
        texts = [model.plain(text) for text in read.texts]
        layer = model.layers if read.layer is None else read.layer
        last = [state[-1] for state in await model.activations(texts, layer)]
        return States(packed=states.pack(np.stack(last)), prompt_tokens=sum(map(len, texts)))

    async def _scored(self, score: Score) -> Scores:
        model = require(self.model, Access.LOGITS, by=f"{self.name}, asked to score replies,")
        texts = [model.tokenize(item.chat, item.reply) for item in score.items]

        async def one(tokens: Tokens) -> TopK:
            (logits,) = await model.logits([tokens])
            scaled = logits / np.float32(score.temperature)
            return top_k(scaled, score.top, ids=score.ids)  # of V numbers a token, k are kept

        found: list[TopK] = []
        for group in _groups(texts, model.vocabulary_size):
            found += await asyncio.gather(*map(one, group))
        whole = joined(found)
        named = [] if whole.ids is None else np.unique(whole.ids).tolist()
        return Scores(
            packed=pack(whole),
            lengths=tuple(map(len, found)),
            vocabulary=model.vocabulary,
            pieces=tuple(t.pieces for t in texts) if score.pieces else (),
            spelt=tuple(map(model.piece, named)) if score.pieces else (),
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
