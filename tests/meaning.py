"""An LM whose states say what words mean, which a small model of words cannot know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from cosilo.errors import RejectedError
from cosilo.models.base import Access, Array, Tokens
from cosilo.models.kept.scripted import ScriptedModel

WIDTH = 24


class Meaning(ScriptedModel):
    """A token is a word. Its state after the last layer is noise and what the words so far mean.

    Args:
        means: word → what it means; words that mean the same have the same direction.
    """

    layers = 2

    def __init__(self, means: Mapping[str, str], *, access: Access = Access.ACTIVATIONS) -> None:
        super().__init__(access=access, name="meaning")
        self.means = means
        self.words: list[str] = []
        self.read: list[str] = []

    def plain(self, text: str) -> Tokens:
        words = text.split()
        if not words:
            raise RejectedError("the text is empty, so there is nothing to read")
        self.read.append(text)
        self.words += words
        return Tokens(np.arange(len(self.words) - len(words), len(self.words)), len(words), ())

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        return [
            np.stack([self._state(s.ids[: i + 1], layer) for i in range(len(s))]) for s in sequences
        ]

    def _state(self, ids: Array, layer: int) -> Array:
        words = [self.words[i] for i in ids]
        meant = [direction(self.means[w]) for w in words if w in self.means]
        noise = 0.3 * direction(" ".join(words))
        return noise if layer < self.layers else noise + 3 * np.sum(meant, axis=0)


def direction(of: str) -> Array:
    seed = int.from_bytes(hashlib.sha256(of.encode()).digest()[:8])
    return np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
