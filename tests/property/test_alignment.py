"""Two cuts of one text are aligned where they begin at the same byte."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.wire.alignment import Spelling, same_places
from cosilo.boundary.wire.logits import TopK, top_k
from cosilo.errors import UnexpectedReplyError


@st.composite
def two_cuts(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    text = draw(st.text(alphabet="abé ", max_size=12)).encode()

    def cut() -> list[bytes]:
        at = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=6)))
        bounds = [0, *(a for a in at if a < len(text)), len(text)]
        pieces = [text[a:b] for a, b in pairwise(bounds)]
        return [*(p for p in pieces if p), b""]

    return cut(), cut()


@given(two_cuts())
def test_aligned_places_are_all_those_with_the_same_text_before(
    cuts: tuple[list[bytes], list[bytes]],
) -> None:
    teacher, student = cuts
    slow = [
        (i, j)
        for i in range(len(teacher))
        for j in range(len(student))
        if b"".join(teacher[:i]) == b"".join(student[:j])
    ]
    theirs, ours = same_places(teacher, student)
    assert list(zip(theirs.tolist(), ours.tolist(), strict=True)) == slow


def test_pieces_of_another_text_are_refused() -> None:
    with pytest.raises(UnexpectedReplyError):
        same_places([b"ab", b""], [b"ac", b""])


PIECES = st.binary(max_size=3)


@given(st.dictionaries(PIECES, st.integers(0, 30), max_size=8), PIECES)
def test_a_piece_becomes_the_longest_token_it_begins_with(
    vocabulary: dict[bytes, int], piece: bytes
) -> None:
    fits = [v for v in vocabulary if piece.startswith(v) and bool(v) == bool(piece)]
    expected = vocabulary[max(fits, key=len)] if fits else None
    assert Spelling(vocabulary).first(piece) == expected


@given(
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.lists(PIECES, min_size=6, max_size=6),
    st.lists(PIECES, min_size=1, max_size=8, unique=True),
)
def test_respelling_moves_probability_and_loses_none(
    seed: int, k: int, theirs: list[bytes], ours: list[bytes]
) -> None:
    logits = np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
    top = top_k(logits, k)
    spelling = Spelling({piece: i for i, piece in enumerate(ours)})
    found = spelling.respelt(top, dict(enumerate(theirs)), size=12)
    assert found.ids is not None
    assert top.ids is not None
    assert (np.diff(found.ids, axis=1) > 0).all()
    total = np.exp(found.logprobs).sum(axis=1) + np.exp(found.rest)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    for i in range(3):
        slow = dict.fromkeys(range(12), 0.0)
        for id, logprob in zip(top.ids[i], top.logprobs[i], strict=True):
            first = spelling.first(theirs[id])
            if first is not None:
                slow[first] += float(np.exp(logprob))
        for id, logprob in zip(found.ids[i], found.logprobs[i], strict=True):
            assert np.exp(logprob) == pytest.approx(slow.pop(int(id)), abs=1e-6)
        assert not any(slow.values())


def test_no_places_are_no_places() -> None:
    none = TopK(
        np.empty((0, 3), np.int32), np.empty((0, 3), np.float32), np.empty(0, np.float32), 5
    )
    assert len(Spelling({b"a": 0}).respelt(none, {}, 5)) == 0
