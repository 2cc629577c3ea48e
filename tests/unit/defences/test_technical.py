"""Words of programs are no names; what a string or a comment says may be one."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize(
    "word",
    ["SCHED_FIFO", "AddKeysToAgent", "CheckHostIP", "CASignatureAlgorithms", "printf(3)", "-1"],
)
def test_what_only_programs_write_so(word: str) -> None:
    assert kept(f"Then it says {word} for that.", word) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Explain Kubernetes Ingress, Helm charts and Terraform.", "Helm"),
        ("How do I write a map in Julia or Ruby?", "Julia"),
        ("How do I write a map in Julia or Ruby?", "Ruby"),
        ("Is Cassandra faster than Postgres?", "Cassandra"),
        ("Use Jenkins, Jupyter and Maven.", "Jenkins"),
        ("Upgrade to Ruby 3.2 first.", "Ruby"),
        ("The Hugo templates are broken.", "Hugo"),
    ],
)
def test_a_tool_with_a_name_of_people(text: str, word: str) -> None:
    assert kept(text, word) == []


@pytest.mark.parametrize(
    "text",
    [
        "Patroni promoted the replica and Envoy restarted.",
        "What is the difference between Redux Saga and MobX?",
        "Is Qdrant or Weaviate better than Milvus?",
        "See ISO/IEC 7812 and IEEE.",
    ],
)
def test_names_of_products(text: str) -> None:
    words = [
        w for w in re.findall(r"[A-Z][\w/]+(?: Saga)?", text) if w not in ("What", "Is", "See")
    ]
    assert kept(text, *words) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Julia called me yesterday about the rent.", "Julia"),
        ("Julia and Max went home.", "Julia"),
        ("I met Ruby at the station.", "Ruby"),
        ("Tell Jenkins to call me back.", "Jenkins"),
        ("Please ask Julia from the Kubernetes team.", "Julia"),
        ("Cassandra Lopez asked for the Kafka logs.", "Cassandra Lopez"),
        ("Ruby Jenkins deploys the docker image.", "Ruby Jenkins"),
        ("Ruby 34 years old, was admitted.", "Ruby"),
    ],
)
def test_people_with_the_name_of_a_tool(text: str, word: str) -> None:
    assert kept(text, word) == [word]


MANUAL = """
       -g, --listed-incremental=FILE
              Handle GNU-format backups (--dump, -l). {0} the options --mtime and TAR_SUFFIX.
              {1} of --format=posix, see tar(1) and /etc/default/tar.
"""


@pytest.mark.parametrize("word", ["Multibyte", "Getline", "Initially"])
def test_a_word_that_begins_a_sentence_of_technical_prose(word: str) -> None:
    assert kept(MANUAL.format(f"{word} characters in", "Part"), word) == []


@pytest.mark.parametrize("words", ["Maud Ottokar wrote", "Bruce wrote", "Lindqvist added"])
def test_a_person_that_begins_a_sentence_of_technical_prose(words: str) -> None:
    name = words.rpartition(" ")[0]
    assert kept(MANUAL.format(words, "Part"), name) == [name]
