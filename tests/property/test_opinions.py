"""PublicOpinions of public texts against slow versions: who wins, what is learnt, what crosses."""

from __future__ import annotations

import zlib
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.boundary.wire import opinions
from cosilo.boundary.wire.alignment import Spelling
from cosilo.boundary.wire.logits import TopK
from cosilo.boundary.wire.opinions import PublicOpinions, pack, spoken, unpack
from cosilo.errors import CapabilityError, UnexpectedReplyError
from cosilo.federation.opinions import better, lessons
from cosilo.models.base import Tokens
from mutated import changed

WORDS = [b"", *(bytes([c]) for c in b"abc"), b"ab", b"bc", b"abc", b"ca"]
"""A vocabulary; the first ends a turn."""

TEXTS = st.lists(st.text(alphabet="abc", max_size=8), min_size=1, max_size=4)


def cut(text: str, rng: np.random.Generator) -> list[int]:
    """A way to write `text` in tokens of `WORDS`."""
    left, ids = text.encode(), []
    while left:
        fits = [i for i, word in enumerate(WORDS) if word and left.startswith(word)]
        ids.append(int(rng.choice(fits)))
        left = left[len(WORDS[ids[-1]]) :]
    return [*ids, 0]


def said(
    texts: list[str], k: int, seed: int, *, more: int = 40
) -> tuple[PublicOpinions, list[float]]:
    """PublicOpinions of `texts`, and the losses from the full distributions."""
    rng = np.random.default_rng(seed)
    words = WORDS + [b"<%d>" % i for i in range(more)]
    ids = [cut(text, rng) for text in texts]
    whole = np.array([i for each in ids for i in each], np.int32)
    rows = rng.normal(size=(len(whole), len(words))).astype(np.float32) * 3
    top, own = spoken(rows, k, whole)
    exact = rows - np.log(np.exp(rows.astype(float)).sum(axis=1, keepdims=True))
    each = iter(exact[np.arange(len(whole)), whole])
    losses = [-sum(float(next(each)) for _ in one) for one in ids]
    assert top.ids is not None
    spelt = {int(i): words[int(i)] for i in np.unique(top.ids)}
    pieces = tuple(tuple(words[i] for i in one) for one in ids)
    return PublicOpinions(top, own, pieces, spelt, "v"), losses


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(2, 12))
def test_the_token_that_stands_there_is_among_those_named(seed: int, k: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(5, size)) * 4).astype(np.float32)
    ids = rng.integers(0, size, 5).astype(np.int32)
    top, own = spoken(rows, k, ids)
    assert top.ids is not None
    p = np.exp(rows.astype(float))
    p /= p.sum(axis=1, keepdims=True)
    for i in range(5):
        likeliest = list(np.argsort(-p[i])[: min(k, size)])
        if ids[i] not in likeliest:
            likeliest[-1] = ids[i]
        assert top.ids[i].tolist() == sorted(likeliest)
        assert top.ids[i, own[i]] == ids[i]
        np.testing.assert_allclose(np.exp(top.logprobs[i]), p[i][sorted(likeliest)], rtol=1e-4)
        assert np.exp(top.rest[i]) == pytest.approx(1 - p[i][likeliest].sum(), abs=1e-5)


@settings(max_examples=400)
@given(TEXTS, st.integers(2, 9), st.integers(0, 999))
def test_what_is_packed_comes_back_within_a_step(texts: list[str], k: int, seed: int) -> None:
    there, exact = said(texts, k, seed)
    data = pack(there)
    assert data == pack(there)
    assert len(data) <= opinions.most_bytes(texts, k)
    back = unpack(data, texts, k)
    assert (back.pieces, back.vocabulary) == (there.pieces, "v")
    assert back.spelt == there.spelt
    assert there.top.ids is not None
    assert np.array_equal(back.top.ids, there.top.ids)  # type: ignore[arg-type]
    np.testing.assert_allclose(there.losses(), exact, rtol=1e-4, atol=1e-3)
    room = [0.07 * len(pieces) for pieces in there.pieces]  # a step, and its distribution's
    assert (np.abs(back.losses() - exact) < room).all()
    assert opinions.named_in(data) == len(there.top)


@settings(max_examples=1500)
@given(st.integers(0, 20), st.randoms())
def test_changed_opinions_are_of_these_texts_or_refused(seed: int, random: object) -> None:
    texts = ["abcab", "", "ca"]
    data = changed(pack(said(texts, 4, seed)[0]), (pack(said(["a"], 2, 0)[0]),), random)
    try:
        found = unpack(data, texts, 4)
    except UnexpectedReplyError:
        return
    assert [b"".join(pieces).decode() for pieces in found.pieces] == texts
    assert np.isfinite(found.losses()).all()
    assert found.top.ids is not None
    for (pieces, top, own), _ in zip(found.each(), texts, strict=True):
        for i, piece in enumerate(pieces):
            assert found.spelt[int(top.ids[i, own[i]])].lstrip() == piece.lstrip()  # type: ignore[index]


def taken_apart(data: bytes) -> tuple[bytes, list[object]]:
    size = opinions._HEAD.unpack_from(data)[1]
    front = data[: opinions._HEAD.size + size]
    return front, msgspec.msgpack.decode(zlib.decompress(data[len(front) :]))


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        (3, b"\xff" * 7, "no token that stands there"),
        (3, b"\0" * 7, "spelt otherwise"),  # another token, and likely, is said to stand there
        (1, np.array([7, 0, 0], "<u4").tobytes(), "add up"),
        (2, np.zeros(7, "<u2").tobytes(), "add up"),
        (5, b"", "add up"),
        (0, "x" * 65, "hash is none"),
    ],
)
def test_opinions_that_cannot_be(field: int, value: object, why: str) -> None:
    texts = ["abc", "ca", ""]
    there = next(o for s in range(50) if len((o := said(texts, 4, s)[0]).top) == 7 and o.own.any())
    front, rest = taken_apart(pack(there))
    rest[field] = value
    with pytest.raises(UnexpectedReplyError, match=why):
        unpack(front + zlib.compress(msgspec.msgpack.encode(rest)), texts, 4)


def test_what_unpacks_to_more_than_can_be_is_not_unpacked() -> None:
    texts = ["abc"]
    front, rest = taken_apart(pack(said(texts, 4, 1)[0]))
    rest[5] = b"x" * (1 << 26)
    with pytest.raises(UnexpectedReplyError, match="too long"):
        unpack(front + zlib.compress(msgspec.msgpack.encode(rest)), texts, 4)


def test_opinions_of_other_texts_or_of_more_tokens_are_refused() -> None:
    data = pack(said(["abc", "ca"], 4, 1)[0])
    for texts, top in ((["abc"], 4), (["abc", "cb"], 4), (["abc", "ca"], 3)):
        with pytest.raises(UnexpectedReplyError):
            unpack(data, texts, top)


def test_a_tokeniser_that_rewrites_texts_cannot_take_part() -> None:
    there, _ = said(["abc"], 4, 1)
    spelt = {i: piece.upper() for i, piece in there.spelt.items()}
    with pytest.raises(CapabilityError, match="rewrites"):
        pack(PublicOpinions(there.top, there.own, there.pieces, spelt, "v"))


def test_more_opinions_than_a_message_holds_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    there, _ = said(["abc"], 4, 1)
    monkeypatch.setattr(opinions, "MOST_NUMBERS", there.top.logprobs.size - 1)
    with pytest.raises(CapabilityError, match="fewer public texts"):
        pack(there)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 4))
def test_the_better_teacher_wins(seed: int, texts: int, teachers: int) -> None:
    rng = np.random.default_rng(seed)
    own = rng.integers(0, 4, texts).astype(float)
    others = {f"t{i}": rng.integers(0, 4, texts).astype(float) for i in range(teachers)}
    slow: list[str | None] = []
    for at in range(texts):
        best, least = None, own[at]
        for name in sorted(others):
            if others[name][at] < least:
                best, least = name, others[name][at]
        slow.append(best)
    assert better(own, others) == slow


def test_losses_of_other_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="same texts"):
        better(np.zeros(2), {"a": np.zeros(3)})


@given(TEXTS, st.integers(2, 9), st.integers(0, 999), st.integers(0, 999))
def test_lessons_are_of_the_places_that_both_have(
    texts: list[str], k: int, seed: int, other: int
) -> None:
    there, _ = said(texts, k, seed)
    rng = np.random.default_rng(other)
    ids = [cut(text, rng) for text in texts]
    mine = [Tokens(np.array([9, *i], np.int32), 1, tuple(WORDS[j] for j in i)) for i in ids]
    spelling = Spelling({word: i for i, word in enumerate(WORDS)})
    chosen = [None if i % 3 == 2 else "t" for i in range(len(texts))]
    found = lessons(mine, chosen, {"t": there}, spelling, "another", len(WORDS))
    assert [each.tokens for each in found] == [m for m, c in zip(mine, chosen, strict=True) if c]
    parts = [part for part, c in zip(there.each(), chosen, strict=True) if c]
    for lesson, (pieces, top, _) in zip(found, parts, strict=True):
        begins = [len(b"".join(pieces[:i])) for i in range(len(pieces))]
        ours = [len(b"".join(lesson.tokens.pieces[:i])) for i in range(len(lesson.tokens.pieces))]
        assert lesson.places.tolist() == [i for i, start in enumerate(ours) if start in begins]
        for row, place in enumerate(lesson.places):
            at = begins.index(ours[place])
            slow = dict.fromkeys(range(len(WORDS)), 0.0)
            assert top.ids is not None
            for i, p in zip(top.ids[at], np.exp(top.logprobs[at]), strict=True):
                if (first := spelling.first(there.spelt[int(i)])) is not None:
                    slow[first] += float(p)
            named = dict(zip(lesson.ids[row].tolist(), np.exp(lesson.logprobs[row]), strict=True))
            assert all(
                named[i] == pytest.approx(p, abs=1e-6) for i, p in slow.items() if i in named
            )
            assert not any(p for i, p in slow.items() if i not in named)


def test_one_tokeniser_needs_no_spelling() -> None:
    texts = ["abcab"]
    there, _ = said(texts, 5, 3)
    assert there.top.ids is not None
    ids = [int(row[own]) for row, own in zip(there.top.ids, there.own, strict=True)]
    mine = [Tokens(np.array([9, *ids], np.int32), 1, there.pieces[0])]
    (lesson,) = lessons(mine, ["t"], {"t": there}, Spelling({}), "v", 60)
    assert lesson.places.tolist() == list(range(len(ids)))
    assert np.array_equal(lesson.ids, there.top.ids)
    found = TopK(lesson.ids, lesson.logprobs, lesson.rest, lesson.size)
    total = np.exp(found.logprobs).sum(axis=1) + np.exp(found.rest)
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_pairs_of_bounds_are_what_lengths_say() -> None:
    there, _ = said(["abc", "ca"], 3, 5)
    ends = [0, *np.cumsum(there.lengths).tolist()]
    for (_, top, own), (a, b) in zip(there.each(), pairwise(ends), strict=True):
        assert len(top) == len(own) == b - a
