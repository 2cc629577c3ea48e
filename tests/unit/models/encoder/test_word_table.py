"""Words and their vectors, from an encoder's own vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import CatalogError
from cosilo.models.encoder import word_table
from cosilo.models.encoder.encoder import Embedded
from cosilo.models.encoder.word_table import WordTable, words_in

VOCABULARY = [
    "[PAD]",
    "[CLS]",
    "!",
    "1",
    "a",
    "i",
    "b",
    "the",
    "of",
    "##ing",
    "été",
    "1987",
    "card",
]


def test_the_words_of_a_text_have_no_case_accent_or_sign() -> None:
    said = "It's  SEÑOR Müller's 2nd card:\n№ 4711-12, naïve_x!"
    expected = "it s senor muller s 2nd card no 4711 12 naive x"
    assert words_in(said) == expected.split()
    assert words_in("?! \n") == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder whose vectors of the words are 1, 2, … tenths of a radian along a circle."""
    numbers = {word: i for i, word in enumerate(VOCABULARY)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": numbers}}))
    (tmp_path / "model.onnx").touch()

    class Circle:
        def __init__(self, source: Path, *, remember: int) -> None:
            self.folder = source

        def embed(self, texts: Sequence[str]) -> Embedded:
            angles = np.array([VOCABULARY.index(text) / 10 for text in texts])
            rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
            return Embedded(rows, (), (), ())

        def close(self) -> None:
            pass

    monkeypatch.setattr(word_table, "Encoder", Circle)
    return tmp_path


def test_whole_words_come_in_the_order_of_the_vocabulary(folder: Path) -> None:
    found = word_table.word_table(folder, 6)
    assert found.words == ("a", "i", "the", "of", "1987", "card")
    assert found.find(["card", "unheard"], -1) == [5, -1]
    near = np.linalg.norm(found.vectors[:, None] - found.vectors[None], axis=-1)
    np.fill_diagonal(near, np.inf)
    assert np.median(near.min(axis=1)) == pytest.approx(1.0, rel=1e-3), "the unit of distance"
    assert found.frequencies.sum() == pytest.approx(1.0)
    assert (np.diff(found.frequencies) < 0).all()
    assert isinstance(word_table.word_table(folder, 6), WordTable)
    assert word_table.word_table(folder, 6) is found, "made once"


def test_a_vocabulary_that_is_none_is_told(folder: Path) -> None:
    with pytest.raises(CatalogError, match="has 6 whole words in its vocabulary, and 7 are wanted"):
        word_table.word_table(folder, 7)
    for broken in ("{", '{"model": {"vocab": ["a", "b"]}}', "[]"):
        (folder / "tokenizer.json").write_text(broken)
        with pytest.raises(CatalogError, match="no WordPiece vocabulary"):
            word_table.word_table(folder, 5)
