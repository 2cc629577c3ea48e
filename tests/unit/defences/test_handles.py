"""Names in files, paths, users and small letters; spoken numbers; sums that somebody has."""

from __future__ import annotations

import asyncio
import time

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.anchored import AnchoredText
from cosilo.defences.detection import Span
from cosilo.defences.handles import handles
from cosilo.defences.hiding import Hiding, Settings
from cosilo.types import user

HIDING = Hiding(
    Settings(
        detectors=("patterns",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
        databases=None, values=(), hints=False, seconds=60.0,
    )
)  # fmt: skip


def private(text: str) -> list[Span]:
    (spans,) = asyncio.run(HIDING.spans(Ask(chat=user(text))))
    return spans


def found(text: str) -> list[str]:
    return [text[s.start : s.end] for s in handles(AnchoredText(text)) if s is not None]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Please look at cv_henrik_lindqvist_final.pdf and rate it.", "henrik_lindqvist"),
        ("Lebenslauf_Anneliese_Kranz.pdf", "Anneliese_Kranz"),
        ("scan_passport_oyelaran_emeka.jpg", "oyelaran_emeka"),
        ("see resume-john-smith-2024.docx", "john-smith"),
        ("meeting_with_bruce.pdf", "bruce"),
        ("hi, my user is torvik.b88 and it fails", "torvik.b88"),
        ("My username: quill_77", "quill_77"),
        ("my login is mh-2210, thanks", "mh-2210"),
        ("Letter.Maud.Ottokar.docx", "Maud.Ottokar"),
        ("where rep = 'maria_gonzalez'", "maria_gonzalez"),
        ('assigned("henry.okonkwo")', "henry.okonkwo"),
        ("thanks @maria_gonzalez for it", "maria_gonzalez"),
        ("/home/henrik/projects/app.py", "henrik"),
        ("/Users/anneliese.kranz/Desktop", "anneliese.kranz"),
        (r"C:\Users\mottokar\a.txt", "mottokar"),
        ("Accepted password for ottokar from 10.0.0.7 port 22", "ottokar"),
        ("session opened for user hlindqvist by (uid=0)", "hlindqvist"),
        ("INFO user mottokar logged in", "mottokar"),
        ("[patient] hey bruce so see here my notes", "bruce"),
        ("thanks maria for that", "maria"),
        ("and then patricia told me about it", "patricia"),
        (
            "call me at four one five, five five five, zero one nine two",
            "four one five, five five five, zero one nine two",
        ),
        (
            "it is oh-two-oh seven nine four six, zero nine",
            "oh-two-oh seven nine four six, zero nine",
        ),
        ("dial double seven one two three four five", "double seven one two three four five"),
        ("our client HLN", "HLN"),
        ("the contract with QMS ended", "QMS"),
        ("she works for ZTB", "ZTB"),
        ("My salary is 84,350 a year", "84,350"),
        ("I still owe 12,780 on the car", "12,780"),
        ("she earns $92,000", "$92,000"),
        ("their rent is 1450", "1450"),
    ],
)
def test_what_is_found(text: str, name: str) -> None:
    assert name in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "main_window_final.png and report_q3_2024.pdf",
        "cv_template_final.pdf",
        "invoice_2024_03.pdf",
        '"max_length" and "adam_epsilon" and "bert_model" and "mark_done"',
        "ada_boost(martin_fowler)",
        "my user is angry and my login was slow",
        "user input was wrong, the user has left, invalid user name",
        "/home/ubuntu/app and /home/user/x and /Users/Shared/y",
        "Failed password for root from 10.0.0.7",
        "session opened for user root by (uid=0)",
        "one two three, four",
        "one of five, or two of seven",
        "we work for the EU",
        "the contract with IBM ended",
        "I made 2 mistakes, she makes 12 cakes",
        "our balance is negative",
        "a bill may grant hope, mark it",
    ],
)
def test_what_is_none(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "select * from leads where owner = 'maria_gonzalez'",
        "SELECT id FROM leads\nWHERE rep = 'maria_gonzalez' AND score > 3",
        '{"filename": "cv_maria_gonzalez.pdf", "size": 12}',
        '{"path": "/home/maria_gonzalez/x.py", "status": "open"}',
        "2026-11-03 09:12 WARN upload failed file=cv_maria_gonzalez.pdf attempt=3",
    ],
)
def test_in_structured_and_technical_text(text: str) -> None:
    spans = private(text)
    assert "maria_gonzalez" in {text[s.start : s.end] for s in spans}


@pytest.mark.parametrize(
    "text",
    [
        "randy , date of birth , february 15th , 1979 , is here",
        "born on february 15th , 1979",
        "DOB: February 15 , 1979",
    ],
)
def test_a_date_of_birth_with_spaces_before_its_comma(text: str) -> None:
    spans = private(text)
    assert any(s.kind == "BIRTH" and text[s.start : s.end].endswith("1979") for s in spans)


@pytest.mark.parametrize(
    "piece", ["a_", "one ", "my salary ", "cv_", "/home/", "user x ", "I owe "]
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            list(handles(AnchoredText(text)))
            best = min(best, time.process_time() - began)
        return best

    assert seconds(40_000) < 8 * seconds(10_000) + 0.02
