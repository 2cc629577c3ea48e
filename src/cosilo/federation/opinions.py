"""Whose opinion of a public text is worth learning, and what a model learns of it.

    opinions of a teacher ─┐
    own losses ────────────┴─ better ─▶ which teacher, of each text ─ lessons ─▶ the student's tokens

The better teacher wins, text by text: the one to whom the whole reply is likeliest, where it is
likelier to it than to the student itself; of other texts nothing is learnt (Fan et al., "FedMKT", arXiv
2406.02224, "DualMinCE"). Losses are sums over a reply: a mean over tokens, as published, is no measure
between models that cut texts into more or fewer of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.alignment import Spelling, same_places
from cosilo.boundary.wire.logits import TopK, joined
from cosilo.boundary.wire.opinions import PublicOpinions, spoken
from cosilo.errors import ModelError
from cosilo.models.base import Array, Tokens
from cosilo.models.mutual import TaughtLesson

Losses = NDArray[np.float64]


def opinions_of(
    predicted: Iterable[Array],
    tokens: Sequence[Tokens],
    piece: Callable[[int], bytes],
    vocabulary: str,
    top: int,
) -> PublicOpinions:
    """What a model would say of public texts.

    Args:
        predicted: of each text the logits that predicted its reply's tokens, (tokens, vocabulary).
        tokens: the texts as the model's.
        piece: what an id stands for.
        vocabulary: the tokeniser's hash.
        top: tokens that are named at a place.

    Raises:
        ModelError: a prediction is no distribution.
    """
    rows: list[tuple[TopK, NDArray[np.int64]]] = []
    for logits, sequence in zip(predicted, tokens, strict=True):
        try:
            rows.append(spoken(logits, top, sequence.ids[sequence.start :]))
        except ValueError as error:
            raise ModelError(
                f"what the model predicts for a public text is of no use: {error}"
            ) from None
    whole = joined([said for said, _ in rows])
    assert whole.ids is not None
    spelt = {i: piece(i) for i in np.unique(whole.ids).tolist()}
    own = np.concatenate([own for _, own in rows])
    return PublicOpinions(whole, own, tuple(each.pieces for each in tokens), spelt, vocabulary)


def better(own: Losses, others: Mapping[str, Losses]) -> list[str | None]:
    """Of each text, the teacher with the smallest loss, where that is below the student's own; None
    where there is none. Of equal ones the first by name.

    Args:
        own: the student's losses, in nats.
        others: teacher → its losses of the same texts.

    Raises:
        ValueError: a teacher's losses are of fewer texts or more.
    """
    if any(losses.shape != own.shape for losses in others.values()):
        raise ValueError("the losses are not of the same texts")
    names = sorted(others)
    if not names:
        return [None] * len(own)
    every = np.stack([others[name] for name in names])
    first, least = every.argmin(axis=0), every.min(axis=0)
    return [
        names[i] if low < mine else None for i, low, mine in zip(first, least, own, strict=True)
    ]


def lessons(
    tokens: Sequence[Tokens],
    chosen: Sequence[str | None],
    others: Mapping[str, PublicOpinions],
    spelling: Spelling,
    vocabulary: str,
    size: int,
) -> list[TaughtLesson]:
    """What a student learns of the texts that a teacher was chosen for, in their order.

    Args:
        tokens: the texts as the student's.
        chosen: of each text, a name in `others` or None.
        spelling: of the student's vocabulary,
        vocabulary: its hash,
        size: and how many tokens it has.

    Raises:
        UnexpectedReplyError: a teacher's opinion is of another text.
    """
    parts = {name: list(others[name].each()) for name in set(chosen) if name is not None}
    found = []
    for at, name in enumerate(chosen):
        if name is None:
            continue
        said, mine = parts[name][at], tokens[at]
        places, top = aligned(said, others[name], mine, spelling, vocabulary, size)
        assert top.ids is not None
        found.append(TaughtLesson(mine, places, top.ids, top.logprobs, top.rest, size))
    return found


def aligned(
    said: tuple[tuple[bytes, ...], TopK, NDArray[np.int64]],
    opinions: PublicOpinions,
    mine: Tokens,
    spelling: Spelling,
    vocabulary: str,
    size: int,
) -> tuple[NDArray[np.int64], TopK]:
    """The student's places at which a teacher has read the same text, and what it says there in the
    student's ids: as they are where both have one tokeniser and cut."""
    pieces, top, own = said
    assert top.ids is not None
    standing = np.take_along_axis(top.ids, own[:, None], axis=1)[:, 0]
    reply = mine.ids[mine.start :]
    if (
        opinions.vocabulary == vocabulary
        and np.array_equal(standing, reply)
        and top.ids.max() < size
    ):
        return np.arange(len(reply)), TopK(top.ids, top.logprobs, top.rest, size)
    theirs, ours = same_places(pieces, mine.pieces)
    return ours, spelling.respelt(top.rows(theirs), opinions.spelt, size)
