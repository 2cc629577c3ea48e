"""Dates, times and epochs are no phone numbers and no addresses; names that are words are names."""

from __future__ import annotations

import asyncio

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding, Settings
from cosilo.types import user

HIDING = Hiding(
    Settings(
        detectors=("patterns",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
        databases=None, values=(), hints=False, seconds=60.0,
    )
)  # fmt: skip


def hidden(text: str) -> set[str]:
    (spans,) = asyncio.run(HIDING.spans(Ask(chat=user(text))))
    return {text[s.start : s.end] for s in spans}


@pytest.mark.parametrize(
    "text",
    [
        "Current date and time: 2026-11-28 08:51:00",
        "Current time: 2026-11-28T08:51:00Z",
        "Today's date: Saturday, 28 November 2026, 08:51",
        "Date: 28/11/2026 08:51",
        "Datum: 28. November 2026",
        "[2024-01-01 10:00:00,123] ERROR db down",
        "2026-11-03 09:12:44 retry",
        "exp = 1795855933, ms = 1700000000000",
        '{"iat": 1795855933, "exp": 1795859533}',
        "SELECT * FROM t WHERE at > '2024-01-01 10:00:00'",
        "version 4.17.6, build 2026.11.28",
        "see arXiv 1503.02531 and 1908.10084",
        "IEEE Std 1003.1-2008, 2016 Edition",
        "connect to localhost:8080, 127.0.0.1 or 0.0.0.0, mask 255.255.255.0",
        'id = "123e4567-e89b-12d3-a456-426614174000"',
        "0.617 (0.628 [0.585, 0.667])",
        '"low": 0.0627431, "high": 1089630.0',
        "1.6.1 (2020-10-12)",
        "index 5620333..0000000",
        "from April 1 to April 4",
        "signed with HMAC-SHA-256 and RSA-2048",
        "A gateway is closed, The road is free",
        "gibibytes (1024 * 1024 * 1024 = 1073741824)",
        "at most 4294967295 or 10000000000",
    ],
)
def test_times_are_nothing_private(text: str) -> None:
    assert hidden(text) == set()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("call 555-867-5309 today", "555-867-5309"),
        ("call me on 01.84.17.61.18", "01.84.17.61.18"),
        ("my account is 1073741825", "1073741825"),
        ("route add 10.0.99.0/24 by 10.1.1.2", "10.0.99.0/24"),
        ("tell Jenkins to call me", "Jenkins"),
        ("my number is +49 30 123456", "+49 30 123456"),
        ("I live at 12 March Street 4.", "12 March Street 4"),
        ("she was born on 12.03.1980", "12.03.1980"),
        ("My name is Will and I like tea.", "Will"),
        ("I'm May.", "May"),
        ("Dear Grace, thanks", "Grace"),
        ("Hi Mark!", "Mark"),
        ("Regards,\nHope", "Hope"),
    ],
)
def test_and_what_is_private_is_still_found(text: str, value: str) -> None:
    assert value in hidden(text)


@pytest.mark.parametrize("text", ["I will call in May.", "Hope you are well.", "Mark it as done."])
def test_words_are_words(text: str) -> None:
    assert hidden(text) == set()
