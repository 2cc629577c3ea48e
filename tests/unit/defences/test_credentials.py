"""Credentials by their form, their place and their name; and what is none."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "pseudonyms"))

from cosilo.defences.anchored import AnchoredText
from cosilo.defences.credentials import credentials


def found(text: str) -> list[str]:
    return [text[s.start : s.end] for s in credentials(AnchoredText(text)) if s is not None]


A, H = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zC", "0123456789abcdef"


@pytest.mark.parametrize(
    "value",
    [
        "AKIAIOSFODNN7EXAMPLE",
        f"ghp_{A}abcd",
        f"glpat-{A[:20]}",
        f"sk-proj-{A}{A}",
        f"sk-ant-api03-{A}{A}-AA",
        f"xoxb-123456789012-1234567890123-{A[:24]}",
        f"sk_live_{A[:24]}",
        f"hf_{A}ab",
        f"npm_{A}abcd",
        f"SG.{A[:22]}.{A}{A[:11]}",
        f"AIza{A}abc",
        f"shpat_{H}{H}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        f"1234567890:AA{A}a",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "key={}", '"{}"', "use {}, please", "https://x.example/?k={}"]
)
def test_forms_of_issuers(value: str, around: str) -> None:
    assert value in " ".join(found(around.format(value)))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("the password is Hunter2!x", "Hunter2!x"),
        ("my passwd: correct-horse-9", "correct-horse-9"),
        ('password = "letmein"', "letmein"),
        ("DB_PASSWORD=s3cr3tvalue\nX=1", "s3cr3tvalue"),
        ('{"client_secret": "9f8e7d6c5b4a39281706"}', "9f8e7d6c5b4a39281706"),
        ("Passwort: Sonne2024!", "Sonne2024!"),
        ("my PIN is 4821", "4821"),
        ("postgres://app:x7Yq9@db.internal/main", "x7Yq9"),
        ("redis://:p4ssw0rd@cache:6379/0", "p4ssw0rd"),
        ("Authorization: Bearer abcdef1234567890", "abcdef1234567890"),
        ("curl -u admin:hunter22 https://x", "hunter22"),
        ("machine h login me password tops3cret", "tops3cret"),
        ("AccountKey=" + "Ab1+" * 21 + "Ab==;", "Ab1+" * 21 + "Ab=="),
        (f"aws_secret_access_key = {A}abcdefgh", f"{A}abcdefgh"),
    ],
)
def test_places_and_names(text: str, secret: str) -> None:
    assert secret in found(text)


def test_a_private_key_is_hidden_as_a_block() -> None:
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\nVJTUt9Us8cKjMzEfYyjiWA4R4"
    for kind in ("PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"):
        assert found(f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----") == [body]
    assert found(f"-----BEGIN PRIVATE KEY-----\n{body}") == [body]  # cut off


@pytest.mark.parametrize(
    "text",
    [
        "I forgot my password, can you reset it?",
        "the token is invalid",
        "password = get_password()",
        "password = os.environ['DB_PASSWORD']",
        "api_key: ${API_KEY}",
        'token = "<your token>"',
        "def login(user, password): ...",
        "max_tokens = 4096",
        "        secrets=secrets,",
        "Across tokenisers: Qwen2.5-Coder-1.5B",
        "*What passes is *read.*",
        "        password=given,",
        "if token is None:",
        "The secret to a good life is friendship.",
        "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "commit 3fa9c47b3aeadabc8b085f0f122c7b623c3a1b2",
        "self.tokens = list(tokens)",
        "https://example.org/path:80/@user",
    ],
)
def test_what_is_none(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "piece", ["ghp_", "password=", "eyJ", "a://b:", "-----BEGIN PRIVATE KEY-----", "aB3"]
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            found(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(20_000) < 12 * seconds(5_000) + 0.05


def test_what_the_benchmark_draws_is_found() -> None:
    from credentials import FORMATS, secret_part  # type: ignore[import-not-found]

    rng = random.Random(7)
    for name, draw in FORMATS.items():
        if name in ("password", "AWS secret", "Atlassian"):  # need more than a form; see the page
            continue
        value = draw(rng)
        assert secret_part(name, value) in " ".join(found(f"here: {value} ok")), name


@pytest.mark.parametrize("before", ["", " ", "key=", '"', "see "])
def test_the_shortest_and_those_with_a_space_are_found(before: str) -> None:
    for secret in ("xoxb-1234567890", f"FlyV1 fm2_{'aB3,' * 15}x"):
        spans = [s for s in credentials(AnchoredText(f"{before}{secret}")) if s is not None]
        found = [f"{before}{secret}"[s.start : s.end] for s in spans]
        assert any(secret in value for value in found), (secret, found)
