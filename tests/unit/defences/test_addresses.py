"""Addresses by their forms and by the words around them, and what looks like one and is none."""

from __future__ import annotations

import pytest

from cosilo.defences.patterns import PatternDetector
from cosilo.defences.technical import plausible

DETECTOR = PatternDetector()


def hidden(text: str) -> set[int]:
    return {
        i
        for s in plausible(text, DETECTOR.detect(text))
        if s.score >= 0.3 and s.kind in ("ADDRESS", "PLACE", "PERSON")
        for i in range(s.start, s.end)
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Please return it to 61 Gorsedene by Friday.", "61 Gorsedene"),
        ("The old shop was 14/2 Vlasti Square, next door.", "14/2 Vlasti Square"),
        ("Find me near Wielewaal 33, please.", "Wielewaal 33"),
        ("The party is at Lipka 8b and it is loud.", "Lipka 8b"),
        ("They moved from Mynt torget 3 last week.", "Mynt torget 3"),
        ("A bus stops behind 12 bis cours Lamartine.", "12 bis cours Lamartine"),
        ("It is av. da Ribeira 51, on the left.", "av. da Ribeira 51"),
        ("Look for ul. Ogrodowa 7 on the map.", "ul. Ogrodowa 7"),
        ("We chose Selska cesta 19 in the end.", "Selska cesta 19"),
        ("The hotel, Gül sokak No: 41, was full.", "Gül sokak No: 41"),
        ("My cousin's is 27 W 114th Street.", "27 W 114th Street"),
        ("Parcels for 903 NE Tamarisk go here.", "903 NE Tamarisk"),
        ("Ada and Boris sit at Lipka 90.", "Lipka 90"),
        ("Is Lipka 45 still yours?", "Lipka 45"),
        ("The house number is 418b.", "418b"),
        ("Send it to 047, Barrow Mall today.", "047, Barrow Mall"),
        ("It was 12 Kestrel Cove once.", "12 Kestrel Cove"),
        ("They sold 9 Harrier Knoll.", "9 Harrier Knoll"),
        ("A shop Am Alten Tor 6, in the yard.", "Am Alten Tor 6"),
        ("Hinter der Kirche 14 is empty.", "Hinter der Kirche 14"),
        ("I know Kinizsi Pál utca well.", "Kinizsi Pál utca"),
        ("She grew up in Jókai Mór u.", "Jókai Mór u."),
        ("Look up Lillestr. 9, please.", "Lillestr. 9"),
        ("He met us on Fallow Mews.", "Fallow Mews"),
        ("Trg bana Relkovića 8 is nice", "Trg bana Relkovića 8"),
        ("Look for 5-12-3 Midori there.", "5-12-3 Midori"),
        ("ZIP? 6182", "6182"),
        ("zip: 91-204", "91-204"),
        ("The postcode is 7713 QA", "7713 QA"),
        ("To Postfach 4471, 8811 Arlach", "Postfach 4471, 8811 Arlach"),
        ("Locked Bag 881\nTamwick 2871", "Locked Bag 881\nTamwick 2871"),
        ("Use Casella Postale 92 only", "Casella Postale 92"),
        ("And your zip code? K2P 4M9", "K2P 4M9"),
        ("postal code = D04 X285", "D04 X285"),
        ("Postcode 2918, house 77.", "77"),
        ("Vesterlid 12, 4020 Stavern is the place.", "Vesterlid 12, 4020 Stavern"),
        ("Kornhaus 9\n3011 Thunfeld", "Kornhaus 9\n3011 Thunfeld"),
        ("The office: 2-chome 5 Midori, third floor.", "2-chome 5 Midori"),
        ("A van stood outside 71c Ogden landing all day.", "71c Ogden landing"),
        ("6354 Tarrow Quadrant, opposite the bakery.", "6354 Tarrow Quadrant"),
        ("The sign says Ulica kovačev 80, I think.", "Ulica kovačev 80"),
        ("Keys for Vytenio g. 3 are here.", "Vytenio g. 3"),
        ("Look for ul. gen. Borowskiego 23 there.", "ul. gen. Borowskiego 23"),
        ("The postcode of Wetzikau is 4820.", "4820"),
        ("Does anybody know if 4820 is the right postcode?", "4820"),
        ("We serve the 4820 area.", "4820"),
        ("Our zip has changed from 4820 to 71303.", "4820"),
        ("Our zip has changed from 4820 to 71303.", "71303"),
        ("He lives in 4820.", "4820"),
    ],
)
def test_an_address_is_found_whole(text: str, value: str) -> None:
    start = text.index(value)
    assert set(range(start, start + len(value))) - hidden(text) <= {
        i for i in range(start, start + len(value)) if not text[i].isalnum()
    }


@pytest.mark.parametrize(
    "text",
    [
        "The train leaves from Gate 5 at noon.",
        "We upgraded from Python 3 to Python 4 and it was fine.",
        "See the list on Page 12, near Table 3.",
        "It costs from 20 Euros to 30 Dollars.",
        "Turn to Chapter 7 for more.",
        "He was at 7 AM and is at Level 3 now.",
        "It rained on 3 May 2021 and on June 7.",
        "Please give me a list from 10 to 20 items please.",
        "Look at 3 Users for 2 Weeks.",
        "The house is big, and the number of rooms is 4.",
        "Sales went from Quarter 2 to Quarter 3.",
    ],
)
def test_what_is_numbered_otherwise_is_no_address(text: str) -> None:
    assert not hidden(text), [text[s.start : s.end] for s in DETECTOR.detect(text)]


@pytest.mark.parametrize(
    ("text", "town"),
    [
        ("How do I get from Brno-Lesná to Zvolenec without a car?", "Zvolenec"),
        ("what is there to do around Querbach", "Querbach"),
        ("Next stop: Ullersmo!", "Ullersmo"),
        ("We reached WETZIKAU after dark.", "WETZIKAU"),
        ("Leaving Maribo tomorrow.", "Maribo"),
        ("Weather Maribo this weekend", "Maribo"),
        ("Which is the best school in New Tibbets?", "New Tibbets"),
        ("The flight from Port Ullersmo is late.", "Port Ullersmo"),
        ("It is colder in 't Harde than here.", "'t Harde"),
        ("The Sidi Querbach office is shut.", "Sidi Querbach"),
        ("More tea is drunk in winter; Norway likes coffee.", "Norway"),
        ("Why is MOUNT QUERBACH so far?", "MOUNT QUERBACH"),
    ],
)
def test_a_town_after_a_preposition_is_found(text: str, town: str) -> None:
    at = text.index(town)
    assert set(range(at, at + len(town))) <= hidden(text)


@pytest.mark.parametrize(
    "text",
    [
        "Read it in Section 2.",
        "Moved from Redis to Postgres.",
        "Forward it to Customer Service.",
        "It arrives between Monday and Friday.",
        "Look it up in README.md, or in Docker.",
        "It is sent to New Customer Service.",
        "Take 20 in the morning and 100 is the limit.",
    ],
)
def test_other_capitals_after_a_preposition_stay(text: str) -> None:
    assert not hidden(text), [text[s.start : s.end] for s in DETECTOR.detect(text)]


def test_small_letters_are_not_read_as_addresses_by_a_preposition_alone() -> None:
    assert not hidden("count from 10 apples to the last one and stop at number three")
