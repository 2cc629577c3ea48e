"""What the tagger sees of each word."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.defences.tagger.detector import network
from cosilo.defences.tagger.reading import (
    COLUMNS,
    LANGUAGES,
    LISTED,
    ROWS,
    Lists,
    letters,
    listing,
    read,
    shape,
    tokens,
)

TEXT = "Maud O'Ottokar wohnt\nin Łódź, ul. 12b (seit 1999)."


def test_tokens_are_the_words_and_signs_where_they_stand() -> None:
    found = tokens(TEXT)
    assert [TEXT[start:end] for start, end, _ in found] == [word for *_, word in found]
    assert "".join(word for *_, word in found) == "".join(TEXT.split())


@pytest.mark.parametrize("word", ["", "a", "łódź", "x" * 100_000, "\ud800", "😀", "e\u0301", "İ"])
def test_every_word_has_rows(word: str) -> None:
    assert all(0 < row < ROWS for row in (*letters(word), *([shape(word)] if word else ())))
    assert len(letters(word)) < 60


def test_small_letters_and_capitals_share_the_rows_of_letters() -> None:
    seen = read("Anna anna ANNA", tokens("Anna anna ANNA"), 0, network().lists)
    assert list(seen.words) == [0, 0, 0]
    assert len(seen.rows) == 1
    assert len({tuple(row) for row in seen.forms[:, :1]}) == 3


def test_a_part_of_a_text_is_read_as_it_stands_in_the_whole() -> None:
    found = tokens(TEXT)
    lists = network().lists
    whole = read(TEXT, found, 0, lists)
    for first in range(len(found)):
        part = read(TEXT, found, 0, lists, first=first, last=first + 2)
        assert (part.forms == whole.forms[first : first + 2]).all()
        rows = [part.rows[word] for word in part.words]
        assert rows == [whole.rows[word] for word in whole.words[first : first + 2]]


def test_all_rows_by_number_lie_before_those_by_hash() -> None:
    text = " ".join((TEXT, TEXT.lower(), "A AB ABC McX 1 12345678 1a a1 § ∂ … » _ —", "\n x"))
    for language in range(len(LANGUAGES)):
        forms = read(text, tokens(text), language, network().lists).forms
        assert forms.shape[1] == COLUMNS
        assert forms.min() > 0
        assert forms.max() < 1024


def test_a_filter_holds_all_of_its_words_and_few_others() -> None:
    words = [f"word{i}" for i in range(2_000)]
    table = Lists.table([words[:1000], (), words[500:]], 1 << 13)
    lists = Lists(table, table, table)
    assert all(lists.of(w)[0] & 1 for w in words[:1000])
    assert all(lists.of(w)[0] & 4 for w in words[500:])
    assert not any(lists.of(w)[0] & 2 for w in words)
    assert sum(lists.of(f"other{i}")[0] & 1 for i in range(1000)) < 50


def test_ordinary_words_are_listed_in_their_language() -> None:
    lists = network().lists
    words = {
        "de": "haus",
        "fr": "maison",
        "es": "casa",
        "it": "casa",
        "pl": "dom",
        "nl": "huis",
        "pt": "casa",
    }
    for number, language in enumerate(LANGUAGES):
        common, known, _ = lists.of(words[language])
        assert common >> number & 1
        assert known >> number & 1
        assert listing(lists, words[language], number) != listing(lists, "zzxqwv", number)
    assert LISTED[-1] == "en"


def test_an_empty_text_has_no_words() -> None:
    assert tokens("") == tokens(" \n\t") == []
    assert network().shares(read("", [], 0, network().lists)).shape == (0, 5)
    assert np.isfinite(network().shares(read("a", tokens("a"), 0, network().lists))).all()
