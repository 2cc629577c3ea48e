"""A value is hidden wherever it stands, also in the names of files, users and fields."""

from __future__ import annotations

import pytest

from cosilo.defences.detection import Span
from cosilo.defences.vault import Vault

NAMES = {"Anna-Lena Meyerbeck": "PERSON", "Ottilie Katzenstein": "PERSON", "Ottokar Rye": "ORG"}


def covered(text: str) -> list[str]:
    texts = [", ".join(NAMES), text]
    found = [Span(texts[0].find(n), texts[0].find(n) + len(n), k) for n, k in NAMES.items()]
    return [text[s.start : s.end] for s in Vault(b"k" * 32, "c").cover(texts, [found, []])[1]]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("see ottilie_katzenstein here", ["ottilie_katzenstein"]),
        ("/srv/katzenstein-ottilie.pdf", ["katzenstein-ottilie"]),
        ("cv_katzenstein_ottilie_2.pdf", ["katzenstein_ottilie"]),
        ("OttilieKatzenstein, ottilie.katzenstein", ["OttilieKatzenstein", "ottilie.katzenstein"]),
        ("o.katzenstein or okatzenstein", ["o.katzenstein", "okatzenstein"]),
        ("anna_lena_meyerbeck, meyerbeck.anna", ["anna_lena_meyerbeck", "meyerbeck.anna"]),
        ("ottilie_other_katzenstein, my_katzensteins", ["ottilie", "katzenstein", "katzensteins"]),
        ("ottokar_rye is no person's name", []),
    ],
)
def test_a_full_name_is_found_in_identifiers(text: str, hidden: list[str]) -> None:
    assert covered(text) == hidden


def test_a_short_word_is_no_name_in_one() -> None:
    found = [Span(0, 9, "PERSON")]
    [_, others] = Vault(b"k" * 32, "c").cover(["Art Works", "artworks art_works"], [found, []])
    assert [(s.start, s.end) for s in others] == [(9, 18)]


def test_a_very_long_identifier_is_read_in_time() -> None:
    assert covered("ottilie." * 50_000) == ["ottilie." * 49_999 + "ottilie"]
    assert covered("other." * 50_000) == []


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("and katzenstein said so", ["katzenstein"]),
        ("@ottilie, #katzenstein, KATZENSTEIN99", ["ottilie", "katzenstein", "KATZENSTEIN"]),
        ("ottilie_q.py final-katzenstein.v2.pdf", ["ottilie", "katzenstein"]),
        ("getKatzensteinReport(ottilieId)", ["Katzenstein", "ottilie"]),
        ("KATZENSTEINReport, HTTPOttilie", ["KATZENSTEIN", "Ottilie"]),
        ("https://x.example/u/katzenstein?b=ottilie", ["katzenstein", "ottilie"]),
        ("the meyerbecks; Meyerbeck's", ["meyerbecks", "Meyerbeck"]),
        ("anna, lena and rye", ["anna", "lena"]),
        ("katzensteinig, precatzenstein", []),
        (r"a\nKatzenstein b\\\tOttilie Katzenstein", ["Katzenstein", "Ottilie Katzenstein"]),
        (r"C:\rye\ottilie", ["ottilie"]),
    ],
)
def test_a_part_of_a_full_name_is_found_in_any_case_and_inside_of_words(
    text: str, hidden: list[str]
) -> None:
    assert covered(text) == hidden


def test_a_part_that_is_a_word_as_well_is_left_alone_elsewhere() -> None:
    name = "Grace Walker Baker"
    said = "the baker and the tree_walker wait; with grace, walk; class TreeWalker"
    assert Vault(b"k" * 32, "c").cover([name, said], [[Span(0, len(name), "PERSON")], []])[1] == []
