"""A large model that writes texts when asked to, and a sentence encoder that goes by words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from cosilo.models.base import Array
from cosilo.types import Chat

SUBJECTS = ("red", "blue", "green", "brown", "grey", "white", "black", "pink")
_CATEGORY = re.compile(r'Category: "([^"]+)"')
_BLANK = re.compile(r"(?<!\w)_(?!\w)")


def writes(chat: Chat) -> str:
    """Texts of the category asked for, one a line; variations keep a word of the text varied."""
    asked = chat[0].content
    found = _CATEGORY.search(asked)
    assert found is not None, "the prompt names no category"
    label = found[1]
    if len(chat) == 1:
        return "\n".join(f"{s} text about {label}" for s in SUBJECTS)
    first = _BLANK.sub("something", chat[-1].content).split()[0]
    made = [hashlib.sha256(f"{chat[-1].content} {i}".encode()).hexdigest() for i in range(3)]
    return "\n".join(f"{first} {m[:6]} {m[6:12]} about {label}" for m in made)


class WordEmbedder:
    """Unit vectors by the words in a text; texts that share words are near each other."""

    def __init__(self, dimension: int = 64) -> None:
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> Array:
        found = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                digest = hashlib.sha256(word.encode()).digest()
                found[row, digest[0] % self.dimension] += 1 if digest[1] % 2 else -1
            if not found[row].any():
                found[row, 0] = 1.0
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
