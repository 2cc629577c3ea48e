"""The small model as a benchmark uses it: the same question is answered once for all trials.

What the answer took is remembered with it, so that each item is charged for the small model as if
it had run for that item alone. `noting` collects what the small model did for one item.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cosilo.clock import Clock, aside
from cosilo.errors import RejectedError
from cosilo.models.base import (
    Access,
    Array,
    Classifier,
    Cut,
    Embedder,
    NextTokens,
    Past,
    SplitModel,
    StatePast,
    TextModel,
    ThreadModel,
    Tokens,
    Trainable,
    goes_on,
    require,
    splits,
)
from cosilo.models.parts import has_parts
from cosilo.models.plain_llama import has_plain_llama
from cosilo.types import Chat, Demonstration, Generation, Sampling

T = TypeVar("T")


@dataclass
class Note:
    """What was done for one item, most of it by the small model.

    Attributes:
        chat: the item's own question.
        text: the small model's reply to exactly that; empty when it was not asked.
        clock: seconds of all its replies.
        answered: whether it answered anything.
        refusal: what it raised when it refused something for good.
        lied: the LM's reply to something was changed, to measure what that does.
    """

    chat: Chat
    text: str
    clock: Clock
    answered: bool = False
    refusal: RejectedError | None = None
    lied: bool = False


_note: ContextVar[Note | None] = ContextVar("cosilo_note", default=None)


@contextmanager
def noting(chat: Chat) -> Iterator[Note]:
    """A note of what the small model does in here, for the item that asks `chat`."""
    note = Note(chat, "", Clock())
    token = _note.set(note)
    try:
        yield note
    finally:
        _note.reset(token)


def noted() -> Note | None:
    """The note of the item that is under way here."""
    return _note.get()


class AnswerMemory(Protocol):
    """Where answers are remembered."""

    def get(self, chat: Chat, sampling: Sampling) -> Generation | None: ...
    def put(self, chat: Chat, sampling: Sampling, answer: Generation) -> None: ...


class ShortMemory:
    """Remembers as long as the process lives."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Chat, Sampling], Generation] = {}

    def get(self, chat: Chat, sampling: Sampling) -> Generation | None:
        return self._answers.get((chat, sampling))

    def put(self, chat: Chat, sampling: Sampling, answer: Generation) -> None:
        self._answers[chat, sampling] = answer


class Remembering:
    """`model`, asked once per question.

    Its subclasses add what a local model may be able to do besides answering; `remembering` picks
    the one that shows exactly what `model` shows.
    """

    def __init__(self, model: TextModel, memory: AnswerMemory) -> None:
        self.model = model
        self._memory = memory

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def access(self) -> Access:
        return self.model.access

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        note = _note.get()
        try:
            reply = await self._reply(chat, sampling)
        except RejectedError as refusal:
            if note is not None:
                note.refusal = refusal
            raise
        if note is not None:
            note.answered = True
            note.clock.add(reply.seconds, reply.cpu_seconds)
            if chat == note.chat:
                note.text = reply.text
        return reply

    async def _reply(self, chat: Chat, sampling: Sampling) -> Generation:
        """The reply that is remembered, or a new one, which then is."""
        reply = self._memory.get(chat, sampling)
        if reply is None:
            clock = Clock()
            reply = await aside(self.model.generate(chat, sampling), clock)
            reply = msgspec.structs.replace(
                reply,  # a back end with threads of its own states its time; others are timed
                seconds=max(reply.seconds, clock.seconds),
                cpu_seconds=max(reply.cpu_seconds, clock.cpu_seconds),
            )
            self._memory.put(chat, sampling, reply)
        return reply

    async def close(self) -> None:
        await self.model.close()


class _Trainable(Remembering):
    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Remembering:
        """A trained copy, with a memory of its own."""
        model = self.model
        assert isinstance(model, Trainable)
        trained = model.fit(examples, seed=seed)
        assert isinstance(trained, TextModel)
        return remembering(trained)


class _Classifies(Remembering):
    @property
    def labels(self) -> tuple[str, ...]:
        assert isinstance(self.model, Classifier)
        return self.model.labels

    def probabilities(self, texts: Sequence[str]) -> Array:
        assert isinstance(self.model, Classifier)
        return self.model.probabilities(texts)


class _Embeds(Remembering):
    @property
    def encoder(self) -> object:
        """What makes the vectors, where the model says so."""
        return getattr(self.model, "encoder", None)

    def embed(self, texts: Sequence[str]) -> Array:
        assert isinstance(self.model, Embedder)
        return self.model.embed(texts)


class _Logits(Remembering):
    @property
    def vocabulary(self) -> str:
        return require(self.model, Access.LOGITS, by="the small model").vocabulary

    @property
    def vocabulary_size(self) -> int:
        return require(self.model, Access.LOGITS, by="the small model").vocabulary_size

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        return require(self.model, Access.LOGITS, by="the small model").tokenize(chat, reply)

    def piece(self, token: int) -> bytes:
        return require(self.model, Access.LOGITS, by="the small model").piece(token)

    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        return await require(self.model, Access.LOGITS, by="the small model").logits(sequences)


class _GoesOn(Remembering):
    @property
    def _thread_model(self) -> ThreadModel:
        assert goes_on(self.model)
        return self.model

    @property
    def vocabulary(self) -> str:
        return self._thread_model.vocabulary

    @property
    def vocabulary_size(self) -> int:
        return self._thread_model.vocabulary_size

    @property
    def ends(self) -> frozenset[int]:
        return self._thread_model.ends

    def prompt(self, chat: Chat) -> Sequence[int]:
        return self._thread_model.prompt(chat)

    def cut(self, reply: str) -> Cut:
        return self._thread_model.cut(reply)

    def piece(self, token: int) -> bytes:
        return self._thread_model.piece(token)

    def spelt(self, ids: Sequence[int]) -> Sequence[bytes]:
        return self._thread_model.spelt(ids)

    async def read(
        self, past: Past | None, ids: Sequence[int], *, places: int, top: int, each: bool = True
    ) -> tuple[Past, NextTokens]:
        """What the model says; it is not remembered, but charged to the item."""
        past, found = await self._thread_model.read(past, ids, places=places, top=top, each=each)
        note = _note.get()
        if note is not None:
            note.clock.add(found.seconds, found.cpu_seconds)
        return past, found


class _Splits(Remembering):
    """What its layers compute by themselves is not remembered, but charged to the item."""

    @property
    def _split_model(self) -> SplitModel:
        assert splits(self.model)
        return self.model

    @property
    def vocabulary_size(self) -> int:
        return self._split_model.vocabulary_size

    @property
    def layers(self) -> int:
        return self._split_model.layers

    @property
    def width(self) -> int:
        return self._split_model.width

    async def forward(
        self, past: StatePast | None, states: Array, first: int, last: int
    ) -> tuple[StatePast, Array]:
        return await self._charged(self._split_model.forward(past, states, first, last))

    async def predict(self, states: Array, top: int) -> NextTokens:
        return await self._charged(self._split_model.predict(states, top))

    async def backward(self, past: StatePast, gradient: Array, first: int, last: int) -> Array:
        return await self._charged(self._split_model.backward(past, gradient, first, last))

    async def _charged(self, work: Coroutine[Any, Any, T]) -> T:
        clock = Clock()
        found = await aside(work, clock)
        note = _note.get()
        if note is not None:
            note.clock.add(clock.seconds, clock.cpu_seconds)
        return found


class _Activations(Remembering):
    @property
    def layers(self) -> int:
        return require(self.model, Access.ACTIVATIONS, by="the small model").layers

    def plain(self, text: str) -> Tokens:
        return require(self.model, Access.ACTIVATIONS, by="the small model").plain(text)

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        model = require(self.model, Access.ACTIVATIONS, by="the small model")
        return await model.activations(sequences, layer)


class _Weights(Remembering):
    @property
    def module(self) -> Any:
        return require(self.model, Access.WEIGHTS, by="the small model").module

    def with_module(self, module: Any) -> Remembering:
        """The model with other weights, and a memory of its own."""
        changed = require(self.model, Access.WEIGHTS, by="the small model").with_module(module)
        return remembering(changed)

    async def base_digest(self) -> bytes:
        assert has_parts(self.model)
        return await self.model.base_digest()

    def below(self, layers: int) -> str:
        assert has_plain_llama(self.model)
        return self.model.below(layers)

    def save(self, folder: Path | str) -> None:
        require(self.model, Access.WEIGHTS, by="the small model").save(folder)


_BESIDE = ((Trainable, _Trainable), (Classifier, _Classifies), (Embedder, _Embeds))
_RUNGS = (
    (Access.WEIGHTS, _Weights),
    (Access.ACTIVATIONS, _Activations),
    (Access.LOGITS, _Logits),
)


def remembering(model: TextModel, memory: AnswerMemory | None = None) -> Remembering:
    """`model`, asked once per question, able to do all else that `model` can."""
    bases: list[type[Remembering]] = [
        extra for protocol, extra in _BESIDE if isinstance(model, protocol)
    ]
    bases += [_GoesOn] * goes_on(model) + [_Splits] * splits(model)
    bases += [extra for level, extra in _RUNGS if model.access >= level]
    return type("Remembering", (*bases, Remembering), {})(model, memory or ShortMemory())  # type: ignore[no-any-return]
