"""What a trial's small model says of texts, for attacks by whoever gets it: kept while it is at hand.

after prepare: small model ── training texts, and the items ──▶ `SaidByModel` ──▶ the run's file
scoring, any time later: `SaidByModel` ──▶ `published` ──▶ attacks

So a run is attacked again, by another attack, without the model being trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec
import numpy as np

from cosilo.attacks.published import Floats, Reply, Scoring, reply_logprobs
from cosilo.errors import StoreError
from cosilo.models.base import Array, Classifier, TextModel
from cosilo.tasks.base import Example
from cosilo.types import Chat, Value, last_user


class SaidByModel(Value, frozen=True):
    """What a trained small model answers to the texts that attackers may ask it about.

    Attributes:
    learned: ids of the examples that the model was trained on; empty where that is not known.
    labels: of a classifier, in the order of its probabilities.
    probabilities: by digest of the text.
    logprobs: of each token of the target, by digest of the chat and the target; of other models.
    before: the same of the model that it was trained from, where that had learned none of them.
    """

    learned: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    probabilities: dict[bytes, tuple[float, ...]] = msgspec.field(default_factory=dict)
    logprobs: dict[bytes, tuple[float, ...]] = msgspec.field(default_factory=dict)
    before: dict[bytes, tuple[float, ...]] = msgspec.field(default_factory=dict)


async def said_by(
    model: TextModel,
    learned: frozenset[str],
    examples: Sequence[Example],
    *,
    before: TextModel | None = None,
) -> SaidByModel | None:
    """What `model` says of `examples`; None where it shows nothing but text.

    Args:
        before: what it was trained from, where that had learned none of them.
    """
    if isinstance(model, Classifier):
        texts = [last_user(e.chat) for e in examples]
        rows = model.probabilities(texts).astype(float).tolist()
        by_text = dict(zip(map(_digest, texts), map(tuple, rows), strict=True))
        return SaidByModel(learned, model.labels, probabilities=by_text)
    if isinstance(model, Scoring):
        replies = [(e.chat, e.target) for e in examples]
        said = SaidByModel(learned, logprobs=await _scored(model, replies))
        if not isinstance(before, Scoring):
            return said
        return msgspec.structs.replace(said, before=await _scored(before, replies))
    return None


async def _scored(model: Scoring, replies: Sequence[Reply]) -> dict[bytes, tuple[float, ...]]:
    found = [tuple(each.tolist()) for each in await reply_logprobs(model, replies)]
    return dict(zip(map(_digest, replies), found, strict=True))


def published(said: SaidByModel) -> Classifier | Reader:
    """The model as an attacker meets it, as far as it was heard."""
    return KnownLabels(said) if said.labels else Reader(said.logprobs)


def untrained(said: SaidByModel) -> Reader | None:
    """What that model was trained from, as far as it was heard."""
    return Reader(said.before) if said.before else None


class KnownLabels:
    """A classifier that knows the texts it was asked about."""

    def __init__(self, said: SaidByModel) -> None:
        self.labels = said.labels
        self._known = said.probabilities

    def probabilities(self, texts: Sequence[str]) -> Array:
        return np.array([_heard(self._known, text) for text in texts], np.float32)


class Reader:
    """A language model that knows the replies it was asked about."""

    def __init__(self, known: Mapping[bytes, tuple[float, ...]]) -> None:
        self._known = known

    async def logprobs(self, replies: Sequence[Reply]) -> list[Floats]:
        return [np.array(_heard(self._known, reply)) for reply in replies]


def _heard(
    known: Mapping[bytes, tuple[float, ...]], asked: str | tuple[Chat, str]
) -> tuple[float, ...]:
    try:
        return known[_digest(asked)]
    except KeyError:
        raise StoreError(
            "the published model was not asked about a text that an attack needs: the run's folder "
            "and its plan do not belong together; run the plan into a new folder"
        ) from None


def _digest(asked: str | tuple[Chat, str]) -> bytes:
    return sha256(msgspec.msgpack.encode(asked)).digest()
