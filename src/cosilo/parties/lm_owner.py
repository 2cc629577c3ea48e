"""The party with the large model: it serves messages and keeps its weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from msgspec.structs import replace

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Read,
    Score,
    Scores,
    States,
    decode,
    encode,
)
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import TopK, joined, pack, top_k
from cosilo.errors import CapabilityError
from cosilo.models.base import Access, TextModel, Tokens, require, stream
from cosilo.types import Delta, Generation, closing

Reply = TypeVar("Reply", Generation, Delta)

_VALUES = 1 << 26  # logits held at once: a quarter of a gigabyte


@runtime_checkable
class Record(Protocol):
    """Where scores and states are kept, so that the model reads nothing twice."""

    def recall(self, question: bytes) -> bytes | None: ...
    def keep(self, question: bytes, scores: bytes) -> None: ...


@dataclass(frozen=True)
class LMOwner:
    """Serves `model` up to the access level it `exposes`.

    Attributes:
        exposes: a request for more than this level is refused, and what a back end shows unasked
            (token log-probabilities) is left out of the reply.
        record: of scores and states; without one each is computed when it is asked for.
    """

    model: TextModel
    exposes: Access = Access.TEXT
    name: str = "lm-owner"
    record: Record | None = None

    async def handle(self, message: Message) -> Message:
        """The reply to `message`.

        Raises:
            CapabilityError: this owner does not serve such messages, or not at this level.
        """
        match message:
            case Ask():
                self._permit(message)
                reply = await self.model.generate(message.chat, message.sampling)
                return Completion(generation=self._shown(reply))
            case Score() if self.exposes >= Access.LOGITS:
                return await self._recorded(message)
            case Read() if self.exposes >= Access.ACTIVATIONS:
                return await self._recorded(message)
            case _:
                raise CapabilityError(
                    f"{self.name} exposes {self.exposes.name.lower()} and does not serve "
                    f"{type(message).__name__}"
                )

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        self._permit(ask)
        async with closing(stream(self.model, ask.chat, ask.sampling)) as deltas:
            async for delta in deltas:
                yield self._shown(delta)

    async def _recorded(self, message: Score | Read) -> Message:
        question = encode(message)
        known = self.record.recall(question) if self.record is not None else None
        if known is not None:
            return decode(known)
        found = await (
            self._scored(message) if isinstance(message, Score) else self._states(message)
        )
        if self.record is not None:
            self.record.keep(question, encode(found))
        return found

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

    def _shown(self, reply: Reply) -> Reply:
        if reply.tokens and self.exposes < Access.LOGPROBS:
            return replace(reply, tokens=())
        return reply

    def _permit(self, ask: Ask) -> None:
        if ask.sampling.top_logprobs and self.exposes < Access.LOGPROBS:
            raise CapabilityError(
                f"{self.name} exposes {self.exposes.name.lower()}: log-probabilities were asked for"
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
