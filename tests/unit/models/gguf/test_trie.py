"""The probabilities of choices are those of constrained decoding, and sum to 1."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cosilo.models.gguf.trie import Piece, probabilities

END = 0


def weight(said: bytes, token: int) -> float:
    """A made-up model: some positive number for each token after each text."""
    digest = hashlib.sha256(said + bytes([token])).digest()
    return 0.01 + digest[0] / 255


def ask(said: bytes, tokens: Sequence[int]) -> list[float]:
    return [weight(said, t) for t in tokens]


def spelt(word: str) -> tuple[Piece, ...]:
    return tuple((ord(c), c.encode()) for c in word)


def slow(words: Sequence[str], said: str = "") -> dict[str, float]:
    """The product over every letter, asked for all that may follow, also where only one may."""
    left = [w for w in words if w.startswith(said)]
    ways = sorted({ord(w[len(said)]) if len(w) > len(said) else END for w in left})
    total = sum(weight(said.encode(), t) for t in ways)
    found: dict[str, float] = {}
    for token in ways:
        share = weight(said.encode(), token) / total
        if token == END:
            found[said] = share
        else:
            below = slow(left, said + chr(token))
            found.update({w: p * share for w, p in below.items()})
    return found


words = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=8, unique=True)


@given(words)
def test_same_as_asking_at_every_letter(several: list[str]) -> None:
    found = probabilities([spelt(w) for w in several], END, ask, least=0.0, most_calls=10_000)
    expected = slow(several)
    for word, p in zip(several, found, strict=True):
        assert abs(p - expected[word]) < 1e-12


@given(words, st.integers(0, 3), st.floats(0, 0.5))
def test_they_sum_to_one_however_little_is_asked(
    several: list[str], calls: int, least: float
) -> None:
    asked: list[bytes] = []

    def counted(said: bytes, tokens: Sequence[int]) -> list[float]:
        asked.append(said)
        return ask(said, tokens)

    found = probabilities([spelt(w) for w in several], END, counted, least=least, most_calls=calls)
    assert abs(sum(found) - 1) < 1e-9
    assert all(p >= 0 for p in found)
    assert len(asked) <= calls


def test_the_model_is_asked_only_where_answers_part() -> None:
    asked: list[bytes] = []

    def counted(said: bytes, tokens: Sequence[int]) -> list[float]:
        asked.append(said)
        return [1.0] * len(tokens)

    found = probabilities([spelt(w) for w in ("refund", "refill", "billing")], END, counted)
    assert asked == [b"", b"ref"]
    assert found == [0.25, 0.25, 0.5]


def test_a_cut_character_is_not_put_to_the_model() -> None:
    a, b = "é".encode(), "è".encode()
    pieces = [((1, a[:1]), (2, a[1:])), ((1, b[:1]), (3, b[1:]))]
    found = probabilities(pieces, END, lambda said, tokens: 1 / 0)  # type: ignore[arg-type, return-value]
    assert found == [0.5, 0.5]


def test_a_model_that_gives_nothing_shares_evenly() -> None:
    found = probabilities([spelt("a"), spelt("b")], END, lambda said, tokens: [0.0, float("-0")])
    assert found == [0.5, 0.5]
