"""Which language a piece is in."""

from __future__ import annotations

import time

import pytest

from cosilo.defences.languages.guess import language, pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ich wohne seit drei Jahren in Trier und arbeite als Koch.", "de"),
        ("J'habite depuis trois ans à Lyon et je suis cuisinier.", "fr"),
        ("Vivo desde hace tres años en Lugo y soy cocinero.", "es"),
        ("Abito da tre anni a Lodi e sono cuoco.", "it"),
        ("Mieszkam od trzech lat w Opolu i jestem kucharzem.", "pl"),
        ("Ik woon sinds drie jaar in Goes en ben kok.", "nl"),
        ("Moro há três anos em Beja e sou cozinheiro.", "pt"),
        ("I have lived in Kendal for three years and I am a cook.", "en"),
        ("geburtsdatum: 1.2.1970", ""),
        ("x = f(y, 3)", ""),
        ("", ""),
    ],
)
def test_prose_is_told_by_its_words(text, expected):
    assert language(text) == expected


def test_a_mixed_text_is_read_in_both_its_languages():
    text = (
        "Hallo Sabine, ich habe die Unterlagen für dich.\n\nPlease send them by Monday, as you did."
    )
    found = pieces(text)
    assert [p.languages for p in found] == [("de",), ("en",)]
    assert text[found[1].start : found[1].end].startswith("Please")


def test_a_line_that_does_not_tell_is_in_the_language_of_the_whole():
    text = "Die Teilnehmer der Sitzung waren:\n- Elsbeth Kranz\n- Bodo Maurer\nAlle sind gekommen."
    assert {p.languages for p in pieces(text)} == {("de",)}


@pytest.mark.parametrize(
    "text",
    [
        "The patient was seen on Monday.",
        "def run(self) -> None:\n    return None",
        "SELECT name FROM users WHERE id = 3",
        "12.50",
        "Anna Miller, 12 High Street",
    ],
)
def test_english_code_and_numbers_are_english_only(text):
    assert {p.languages for p in pieces(text)} == {("en",)}


def test_a_text_of_few_words_is_read_both_ways():
    (piece,) = pieces("Heute Bartsch")
    assert len(piece.languages) == 2
    assert "en" in piece.languages


def test_pieces_cover_every_word():
    text = "Ich bin da.\n\nJe suis là.\n I am here. " + "Und noch ein Satz, der länger ist. " * 20
    covered = {i for p in pieces(text) for i in range(p.start, p.end)}
    assert all(i in covered or text[i].isspace() for i in range(len(text)))


def test_a_hostile_text_takes_linear_time():
    def seconds(text: str) -> float:
        began = time.process_time()
        pieces(text)
        return time.process_time() - began

    for unit in ("é", "a. B", "ü\n", "d'"):
        seconds(unit * 1_000)
        assert seconds(unit * 20_000) < 2.0


@pytest.mark.parametrize(
    "text", ["I want a refund on a direct debit.", "set a reminder to bring a book"]
)
def test_english_with_the_words_of_others_is_read_as_english_too(text: str) -> None:
    assert all("en" in piece.languages for piece in pieces(text))
