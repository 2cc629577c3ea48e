from collections.abc import Sequence

import numpy as np

from cosilo.benchmark.measure import Recalling
from cosilo.models.base import Array


class Counting:
    """Embeds a text as its length and its number of spaces, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Array:
        self.asked += texts
        return np.array([[len(t), t.count(" ")] for t in texts], np.float32).reshape(-1, 2)


def test_every_text_is_embedded_once() -> None:
    inner = Counting()
    encoder = Recalling(inner)
    first = encoder.embed(["one", "two words", "one"])
    again = encoder.embed(["two words", "new", "one"])
    assert first.tolist() == [[3, 0], [9, 1], [3, 0]]
    assert again.tolist() == [[9, 1], [3, 0], [3, 0]]
    assert inner.asked == ["one", "two words", "new"]


def test_no_texts_have_no_vectors() -> None:
    assert Recalling(Counting()).embed([]).shape == (0, 2)


def test_a_lone_surrogate_is_a_text_like_any_other() -> None:
    assert len(Recalling(Counting()).embed(["\ud800"])) == 1
