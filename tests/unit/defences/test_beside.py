"""The rest of a name or an address, and a name that is said again."""

from __future__ import annotations

import time

import pytest

from cosilo.defences.beside import beside
from cosilo.defences.detection import Span, resolve
from cosilo.defences.names import listed


def whole(text: str, found: str, kind: str = "PERSON") -> list[str]:
    at = text.index(found)
    spans = [Span(at, at + len(found), kind, 0.85)]
    return [text[s.start : s.end] for s in resolve([*spans, *beside(text, spans)], text)]


@pytest.mark.parametrize(
    ("text", "found", "name"),
    [
        ("The Steffen Mauer version is out.", "Steffen", "Steffen Mauer"),
        ("Has B. Ottokar been here?", "Ottokar", "B. Ottokar"),
        ("Has Mauer-Ottokar been here?", "Ottokar", "Mauer-Ottokar"),
        ("Has Ottokar-Mauer been here?", "Ottokar", "Ottokar-Mauer"),
        ("Has dos Ottokar been here?", "Ottokar", "dos Ottokar"),
        ("Has van der Ottokar been here?", "Ottokar", "van der Ottokar"),
        ("Has J.R. Ottokar been here?", "Ottokar", "J.R. Ottokar"),
        ("TO: MRS. OTTOKAR", "OTTOKAR", "MRS. OTTOKAR"),
        ("I met Halldór Ó Árnþórsson there.", "Halldór", "Halldór Ó Árnþórsson"),
        ("I met Anna van der Berg-Klee.", "Anna", "Anna van der Berg-Klee"),
        ("She was called Dr. Jennifer Holst", "Jennifer Holst", "Dr. Jennifer Holst"),
        ("ask mr. or Mrs Ottokar", "Ottokar", "Mrs Ottokar"),
        ("the codey m ross version", "ross", "codey m ross"),
    ],
)
def test_the_rest_of_a_name(text: str, found: str, name: str) -> None:
    assert whole(text, found) == [name]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Tell Maria Monday is fine.", "Maria"),
        ("Ask Maria. Berlin is far.", "Maria"),
        ("Maria, Berlin is far.", "Maria"),
        ("give a ross", "ross"),
        ("Maria The list is here", "Maria"),
        ("Das Konto von Ottokar ist bei der Bank.", "Ottokar"),
        ("Ich habe es von der Ottokar gehört.", "Ottokar"),
        ("La maison du Ottokar est dans la rue.", "Ottokar"),
    ],
)
def test_what_is_not_part_of_it(text: str, found: str) -> None:
    assert whole(text, found) == [found]


@pytest.mark.parametrize(
    ("text", "found", "again"),
    [
        ("Maud Ottokar called. Later Ottokar's wife wrote.", "Maud Ottokar", "Ottokar"),
        (
            "verses from eric g. samoylova's tales, early samoylova",
            "eric g. samoylova's",
            "samoylova",
        ),
        ("Ada Lindqvist and her son; Lindqvist said so", "Ada Lindqvist", "Lindqvist"),
    ],
)
def test_part_of_a_full_name_again(text: str, found: str, again: str) -> None:
    assert whole(text, found) == [found, again]


def test_words_that_are_also_in_a_name_stay_words() -> None:
    text = "Mark Summer wrote to will. In summer we mark items. Summer came."
    assert whole(text, "Mark Summer") == ["Mark Summer", "Summer"]


@pytest.mark.parametrize(
    ("text", "found", "address"),
    [
        ("to 0912 Box 287, Tallinn now", "Box 287, Tallinn", "0912 Box 287, Tallinn"),
        (
            "is 12 Pärna Lane\n , 13\n 44939\nThanks",
            "12 Pärna Lane",
            "12 Pärna Lane\n , 13\n 44939",
        ),
        (
            "12 Rose Lane\ncyprus (greek) 26933\n",
            "12 Rose Lane",
            "12 Rose Lane\ncyprus (greek) 26933",
        ),
    ],
)
def test_the_rest_of_an_address(text: str, found: str, address: str) -> None:
    assert whole(text, found, "ADDRESS") == [address]


def test_a_place_with_a_number_is_an_address_where_somebody_is_there() -> None:
    assert whole("Please return to Eyrarodda 66 soon.", "Eyrarodda", "ORG") == ["Eyrarodda 66"]
    assert whole("Return it to Feira do Otto, 99 soon.", "Feira do Otto", "PLACE") == [
        "Feira do Otto, 99"
    ]
    assert whole("We flew to Vienna 3 times.", "Vienna", "PLACE") == ["Vienna"]
    assert whole("We flew to Vienna, 3 times.", "Vienna", "PLACE") == ["Vienna"]
    assert whole("It moved to Vienna, 1998.", "Vienna", "PLACE") == ["Vienna"]
    assert whole("We use Windows 11 daily.", "Windows", "ORG") == ["Windows"]


@pytest.mark.parametrize(
    ("text", "found", "town"),
    [
        ("She is in Bad Ottendorf.", "Ottendorf", "Bad Ottendorf"),
        ("Is East Ottokar far?", "Ottokar", "East Ottokar"),
        ("San Ottavio a mare is small.", "San Ottavio", "San Ottavio a mare"),
        ("Ottone nelle Alpi is small.", "Ottone", "Ottone nelle Alpi"),
        ("Call the UPTON TARRANT shop.", "UPTON", "UPTON TARRANT"),
        ("It is around An der Ottoburg.", "Ottoburg", "An der Ottoburg"),
        ("Ship it to Port Ottokar", "Ottokar", "Port Ottokar"),
        ("Velké Otrokovy is small", "Otrokovy", "Velké Otrokovy"),
        ("Ruritania (South) won", "Ruritania", "Ruritania (South)"),
    ],
)
def test_the_rest_of_a_town(text: str, found: str, town: str) -> None:
    assert whole(text, found, "PLACE") == [town]


def test_the_first_of_a_list_in_small_letters() -> None:
    text = "they had 4: silvana, adam, chad and caleb."
    spans = [
        Span(text.index(n), text.index(n) + len(n), "PERSON", 0.4)
        for n in ("adam", "chad", "caleb")
    ]
    assert "silvana" in {text[s.start : s.end] for s in listed(text, spans)}


@pytest.mark.parametrize("piece", ["Anna ", "a b ", "12 A\n", "anna, ", "Dr. A "])
def test_hostile_texts_take_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        spans = [Span(i, i + 4, "PERSON", 0.5) for i in range(0, size - 4, 50)]
        spans += [Span(i, i + 4, "ADDRESS", 0.5) for i in range(0, size - 4, 50)]
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            list(beside(text, spans))
            best = min(best, time.process_time() - began)
        return best

    assert seconds(20_000) < 8 * seconds(5_000) + 0.02
