"""Words of programs are no names; what a string or a comment says may be one."""

from __future__ import annotations

import pytest

from cosilo.defences.detection import Span
from cosilo.defences.technical import plausible


def kept(text: str, *words: str, kind: str = "PERSON", score: float = 0.85) -> list[str]:
    spans = [Span(text.index(w), text.index(w) + len(w), kind, score) for w in words]
    return [text[s.start : s.end] for s in plausible(text, spans)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n",
            "LogisticRegression",
        ),
        ("SELECT name FROM users WHERE id = 5 AND Age > 3", "Age"),
        ("def get_user(self, Owner):\n    return Session.query(User).first()", "Owner"),
        ("Explain TCP vs. UDP and SWOT", "TCP"),
        ("Search GitHub issues and open a pull request.", "GitHub"),
        ("const Total = items.reduce((a, b) => a + b, 0);\nreturn Total;", "Total"),
    ],
)
def test_words_of_programs(text: str, word: str) -> None:
    assert kept(text, word) == []
    assert kept(text, word, kind="ORG") == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('x = compute(a)\nname = "Maud Ottokar"\nreturn name', "Maud Ottokar"),
        ("total = a + b  # asked for by Ada Lindqvist\nreturn total", "Ada Lindqvist"),
        ("Dear Maud Ottokar, thank you for your letter.", "Maud Ottokar"),
        ("follow up with patricia desrosiers in a couple of months.", "patricia desrosiers"),
        ("Please update the address to 27534 Kiannonkatu 63, MOSS", "Kiannonkatu"),
    ],
)
def test_names_stay_names(text: str, word: str) -> None:
    assert kept(text, word) == [word]


def test_what_has_a_form_of_its_own_counts_in_code_too() -> None:
    text = "send(to=maud@post.org, retries=3)\nsend(to=otto@post.org)\n"
    assert kept(text, "maud@post.org", kind="EMAIL") == ["maud@post.org"]


@pytest.mark.parametrize("word", ["ModuleNotFoundError", "LoadBalancer", "Kubernetes Ingress"])
def test_words_of_programs_in_prose(word: str) -> None:
    assert kept(f"Please explain {word} to me.", word) == []


@pytest.mark.parametrize("word", ["McDonald", "DeShawn", "LaToya", "MacKenzie", "FitzGerald"])
def test_names_with_two_capitals(word: str) -> None:
    assert kept(f"I met {word} today.", word) == [word]
