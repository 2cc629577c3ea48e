"""One text, cut into tokens by two tokenisers: which places, and which tokens, are the same?

    teacher   |The| weather| is| unkind|
    student   |The| we|ather| is| un|kind|
    same place ↑   ↑         ↑   ↑

Both cut the same bytes, and the cheapest way from one cut to the other, adding and removing bounds,
keeps those they share. So two tokens are aligned where they begin at the same byte: there both
models have read exactly the same text. (Fu et al., arXiv 2301.12726, and FedMKT, arXiv 2406.02224,
align by edit distance between spellings, which can pair tokens that stand at different places.)

A teacher's token becomes the first token the student would write it with: itself where both have
it, else the longest of the student's tokens that it begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.logits import TopK
from cosilo.errors import UnexpectedReplyError
from cosilo.models.base import Tokens
from cosilo.types import Chat

Integers = NDArray[np.int64]


def same_places(teacher: Sequence[bytes], student: Sequence[bytes]) -> tuple[Integers, Integers]:
    """Places of both cuts that begin at the same byte, in order: two arrays of one length.

    Raises:
        UnexpectedReplyError: the pieces are not of one text.
    """
    if b"".join(teacher) != b"".join(student):
        raise UnexpectedReplyError(
            "the large model's tokens are not those of the reply it was sent"
        )
    # An empty piece ends a turn; it is the last to begin where it begins.
    ours = {start: place for place, start in enumerate(_starts(student))}
    theirs = {start: place for place, start in enumerate(_starts(teacher))}
    shared = sorted(ours.keys() & theirs.keys())
    return np.array([theirs[s] for s in shared], int), np.array([ours[s] for s in shared], int)


def _starts(pieces: Sequence[bytes]) -> Integers:
    lengths = np.array([len(p) for p in pieces], np.int64)
    return np.cumsum(lengths) - lengths


class Tokenises(Protocol):
    """A model, as far as its tokens are looked at."""

    @property
    def vocabulary_size(self) -> int: ...
    def piece(self, token: int) -> bytes: ...
    def tokenize(self, chat: Chat, reply: str) -> Tokens: ...


class Spelling:
    """A student's vocabulary, asked which token a teacher's begins with.

    Args:
        vocabulary: piece → the student's id. The empty piece is the end of a turn.
    """

    def __init__(self, vocabulary: Mapping[bytes, int]) -> None:
        self._vocabulary = vocabulary
        self._longest = max(map(len, vocabulary), default=0)

    def first(self, piece: bytes) -> int | None:
        """The student's token for `piece`, or for how it begins; None when it has none."""
        if not piece:
            return self._vocabulary.get(b"")
        for length in range(min(len(piece), self._longest), 0, -1):
            found = self._vocabulary.get(piece[:length])
            if found is not None:
                return found
        return None

    def respelt(self, top: TopK, pieces: Mapping[int, bytes], size: int) -> TopK:
        """`top` in the student's ids: tokens that begin with the same student's token are one, what
        the student cannot write joins the rest.

        Args:
            pieces: what the teacher's ids stand for.
            size: of the student's vocabulary.

        Every row has as many entries as the row with the most; ones that are left over are tokens
        of probability 0.
        """
        assert top.ids is not None
        known = {i: self.first(pieces[i]) for i in np.unique(top.ids).tolist() if i in pieces}
        rows = [
            _merged(row, known, p) for row, p in zip(top.ids, np.exp(top.logprobs), strict=True)
        ]
        k = max((len(row) for row in rows), default=1) or 1
        ids = np.zeros((len(rows), k), np.int32)
        shares = np.zeros((len(rows), k))
        for i, row in enumerate(rows):
            filled = row | dict.fromkeys(_unused(row, k - len(row)), 0.0)
            order = sorted(filled)
            ids[i], shares[i] = order, [filled[j] for j in order]
        with np.errstate(divide="ignore"):
            logprobs = np.log(shares).astype(np.float32)
            rest = np.log(np.clip(1 - shares.sum(axis=1), 0, 1)).astype(np.float32)
        return TopK(ids, logprobs, rest, size)


def vocabulary_of(model: Tokenises, chat: Chat) -> dict[bytes, int]:
    """What `model`'s tokens stand for → their ids; the empty piece is the end of a turn.

    Args:
        chat: any chat that the model takes.
    """
    found = {model.piece(token): token for token in reversed(range(model.vocabulary_size))}
    return found | {b"": int(model.tokenize(chat, "").ids[-1])}


def _merged(
    row: Iterable[int], known: Mapping[int, int | None], probabilities: Iterable[float]
) -> dict[int, float]:
    found: dict[int, float] = {}
    for id, p in zip(row, probabilities, strict=True):
        ours = known.get(int(id))
        if ours is not None:
            found[ours] = found.get(ours, 0.0) + float(p)
    return found


def _unused(row: Mapping[int, float], count: int) -> list[int]:
    found = (i for i in range(len(row) + count) if i not in row)
    return [next(found) for _ in range(count)]
