"""Names in seven languages, by the network that ships."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from cosilo.defences.detection import Span, run
from cosilo.defences.tagger.detector import TaggerDetector, _spans
from cosilo.defences.tagger.reading import LANGUAGES, tokens

BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks" / "pseudonyms"

TAGGER = TaggerDetector()

SENTENCES = {
    "de": ("Guten Tag, mein Name ist Wiebke Hollenstedt und ich wohne seit 2011 in Buxtehude.",
           ["Wiebke Hollenstedt", "Buxtehude"]),
    "fr": ("Bonjour, je m'appelle Clothilde Marchandeau et j'habite à Montbéliard depuis 2011.",
           ["Clothilde Marchandeau", "Montbéliard"]),
    "es": ("Hola, me llamo Casilda Bracamonte y vivo en Ponferrada desde 2011.",
           ["Casilda Bracamonte", "Ponferrada"]),
    "it": ("Buongiorno, mi chiamo Ludovica Scaramella e abito a Pordenone dal 2011.",
           ["Ludovica Scaramella", "Pordenone"]),
    "pl": ("Dzień dobry, nazywam się Bronisława Wędrychowska i mieszkam w Sandomierzu od 2011 roku.",
           ["Bronisława Wędrychowska", "Sandomierzu"]),
    "nl": ("Goedemorgen, mijn naam is Liesbeth Oosterwegel en ik woon sinds 2011 in Zaltbommel.",
           ["Liesbeth Oosterwegel", "Zaltbommel"]),
    "pt": ("Bom dia, o meu nome é Leopoldina Carrapatoso e moro em Alcobaça desde 2011.",
           ["Leopoldina Carrapatoso", "Alcobaça"]),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_found_and_nothing_else(language: str) -> None:
    text, names = SENTENCES[language]
    spans = TAGGER.detect(text)
    assert [text[s.start : s.end] for s in sorted(spans, key=lambda s: s.start)] == names
    assert [s.kind for s in sorted(spans, key=lambda s: s.start)] == ["PERSON", "PLACE"]
    assert all(0.3 < s.score < 1 for s in spans)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_text_has_the_same_names(language: str) -> None:
    text, _ = SENTENCES[language]
    assert TAGGER.detect(text) == TAGGER.detect(text) == TaggerDetector().detect(text)


def test_a_long_text_is_read_in_pieces_as_it_would_be_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = " ".join(SENTENCES["de"][0] for _ in range(60))
    in_pieces = run(TAGGER.named(text, "de"))
    monkeypatch.setattr("cosilo.defences.tagger.detector._PIECE", 100_000)
    at_once = run(TAGGER.named(text, "de"))
    covered = [{i for s in spans for i in range(s.start, s.end)} for spans in (in_pieces, at_once)]
    assert covered[0] == covered[1]


def test_english_is_left_to_others() -> None:
    assert TAGGER.detect("My name is Gwendolyn Pemberton and I live in Abingdon.") == []


def test_each_piece_is_read_in_its_language() -> None:
    text = f"{SENTENCES['de'][0]}\n\n{SENTENCES['pl'][0]}\n\nThe meeting with Bob is on Monday."
    found = {text[s.start : s.end] for s in TAGGER.detect(text)}
    assert found == {*SENTENCES["de"][1], *SENTENCES["pl"][1]}


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "\n", "\x00", "\ud800 wohnt in \udfff", "ich wohne in " + "x" * 15_000, "und " * 4_000,
        "ich heiße 😀😀 und e\u0301e\u0301", "İstanbul und ich", "\u202eich heiße anna",
        "." * 15_000,
        "ich wohne in\u2028Trier\u2029und", "ﬁ und ﬀ ich bin", "١٢٣ und ich", "ich " + "a-" * 7_000,
    ],
)  # fmt: skip
def test_any_text_can_be_read(text: str) -> None:
    for span in (*TAGGER.detect(text), *run(TAGGER.named(text, "de"))):
        assert 0 <= span.start < span.end <= len(text)
        assert any(c.isalnum() for c in text[span.start : span.end])


def test_neighbours_of_one_kind_are_one_span_without_signs_around_it() -> None:
    text = "von ( Ada B. Ey ) aus Ulm"
    kinds = [0, 1, 1, 1, 1, 1, 1, 0, 2]
    shares = np.eye(5, dtype=np.float32)[kinds]
    spans = list(_spans(tokens(text), shares))
    assert [(text[s.start : s.end], s.kind) for s in spans] == [
        ("Ada B. Ey", "PERSON"),
        ("Ulm", "PLACE"),
    ]
    assert not list(_spans(tokens("( )"), np.eye(5, dtype=np.float32)[[1, 1]]))
    assert isinstance(spans[0], Span)


ORDINARY = """
strasse zimmer herbst meer europa don el en buenos sala central real docteur les gare stade noël italia
gentile mercato oude burgemeester markt po nowy lot rynek são escola portugal brasil
"""
"""Words of the test's streets and towns that are words of any text as well."""


def test_no_name_of_the_test_set_is_in_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from language_texts import held_out_words

    held_out = held_out_words()
    for file in sorted((BENCHMARKS / "naming" / "frames").glob("*.txt")):
        lines = [line for line in file.read_text("utf-8").splitlines() if line[:1] != "#"]
        written = tokens(re.sub(r"\{[^}]*\}", " ", "\n".join(lines)))
        capitals = {word.casefold() for *_, word in written if word[0].isupper()}
        assert capitals & held_out <= set(ORDINARY.split())
    for name in ("language_texts", "language_numbers", "polish"):
        sys.modules.pop(name, None)
