"""The words that a sentence encoder's vocabulary holds whole, commonest first, and a vector for each.

WordPiece vocabularies list their whole words about in the order of how common they are; Zipf's law
turns the order into frequencies. A word's vector is what the encoder makes of it alone. Distances are
counted in the median distance of a word to its nearest other: one unit apart is as near as words
commonly come.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import CatalogError
from cosilo.models.base import Array
from cosilo.models.encoder.encoder import Encoder

_AT_ONCE = 512
_FIRST = ("a", "i")  # common words that stand among the single signs, in front of all words
_ZIPF = 2.7
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class WordTable:
    """A public vocabulary.

    Attributes:
        words: in lower case and without accents, the commonest first.
        vectors: shape (n, width); Euclidean distance between them is in the unit above.
    """

    words: tuple[str, ...]
    vectors: Array

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """word → its place."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """How common each word is, by Zipf's law; their sum is 1."""
        found = 1 / (np.arange(len(self.words)) + _ZIPF)
        found /= found.sum()
        return found

    def find(self, words: Sequence[str], unknown: int) -> list[int]:
        """The place of each word; `unknown` for those that are not here."""
        return [self.numbers.get(word, unknown) for word in words]


def words_in(text: str) -> list[str]:
    """The words and numbers of `text`, as a `WordTable` has them: lower case, no accents. Signs and
    space between them are left out."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


_WORD = re.compile(r"[^\W_]+")


def word_table(source: str | Path, size: int) -> WordTable:
    """The `size` commonest whole words of an encoder's vocabulary. It is made once in a process, at a
    millisecond a word.

    Args:
        source: a name in the catalog, or a folder.

    Raises:
        CatalogError: the encoder is not there, or its vocabulary has not so many words.
        ConfigError: onnxruntime or tokenizers is not installed.
        ModelError: the encoder failed.
    """
    with _lock:
        return _made(source, size)


@lru_cache(maxsize=4)
def _made(source: str | Path, size: int) -> WordTable:
    encoder = Encoder(source, remember=1)
    words = _whole_words(encoder.folder / "tokenizer.json")[:size]
    if len(words) < size:
        raise CatalogError(
            f"the encoder in {str(encoder.folder)!r} has {len(words)} whole words in its vocabulary, "
            f"and {size} are wanted"
        )
    starts = range(0, size, _AT_ONCE)
    vectors = np.concatenate([encoder.embed(words[i : i + _AT_ONCE]).vectors for i in starts])
    encoder.close()
    return WordTable(tuple(words), (vectors / _unit(vectors)).astype(np.float32))


def _whole_words(file: Path) -> list[str]:
    try:
        numbers = json.loads(file.read_text())["model"]["vocab"]
        ordered = sorted(numbers, key=numbers.__getitem__)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = type(error).__name__
        raise CatalogError(f"{str(file)!r} holds no WordPiece vocabulary ({what})") from None
    whole = (w for w in ordered if len(w) > 1 and words_in(w) == [w])
    return [*(w for w in _FIRST if w in numbers), *whole]


def _unit(vectors: Array) -> float:
    """The median distance to the nearest other, of vectors of length 1."""
    nearest = []
    for i in range(0, len(vectors), _AT_ONCE):
        alike = vectors[i : i + _AT_ONCE] @ vectors.T
        alike[np.arange(len(alike)), i + np.arange(len(alike))] = -1
        nearest.append(alike.max(axis=1))
    return float(np.median(np.sqrt(np.maximum(2 - 2 * np.concatenate(nearest), 0))))
