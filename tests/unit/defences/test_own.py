"""Patterns and words that a plan calls private."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.own import OwnDetector, OwnPattern
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.defences.restoring import Stream
from cosilo.defences.vault import Vault
from cosilo.errors import ConfigError
from cosilo.tables import convert
from cosilo.types import user


def found(text: str, *patterns: OwnPattern, **words: list[str] | str) -> list[tuple[str, str]]:
    spans = OwnDetector(patterns, words).detect(text)
    return [(s.kind, text[s.start : s.end]) for s in spans]


def test_a_pattern_hides_its_matches_or_its_group() -> None:
    member = OwnPattern("MEMBER", r"M-\d{4}")
    assert found("for M-1234 and M-99.", member) == [("MEMBER", "M-1234")]
    group = OwnPattern("MEMBER", r"member (?P<value>\d{4})")
    assert found("member 1234, house 4321", group) == [("MEMBER", "1234")]


def test_a_pattern_with_context_needs_one_of_its_words_near() -> None:
    case = OwnPattern("CASE", r"\b\d{4}/\d{2}\b", ("case", "Az."))
    assert found("In case 2031/17 it was said.", case) == [("CASE", "2031/17")]
    assert found("Unter Az. 2031/17 steht es.", case) == [("CASE", "2031/17")]
    assert found("the casement 2031/17 of it", case) == []
    assert found("case" + " x" * 60 + " 2031/17", case) == []


def test_words_are_found_whole_and_in_any_case(tmp_path: Path) -> None:
    assert found("BLUE  harbour and blue harbours", SITE=["Blue Harbour"]) == [
        ("SITE", "BLUE  harbour")
    ]
    file = tmp_path / "projects.txt"
    file.write_text("Quokka\n\nRed Finch\n", "utf-8")
    text = "quokka's plan, redfinch and Red Finch"
    assert found(text, PROJECT=str(file)) == [("PROJECT", "quokka"), ("PROJECT", "Red Finch")]


@pytest.mark.parametrize(
    ("regex", "says"),
    [
        ("(", "is none"),
        (r"\d*", "where nothing stands"),
        (r"(\d+)+x", "hostile"),
        (r"(a|a)*b", "hostile"),
        (r"\w+\s*\w+\s*\w+x", "hostile"),
        (r"(?:a?){30}a{30}", "hostile"),
        (r"(\w{1,90})\1x", "hostile"),
    ],
)
def test_a_regex_that_is_wrong_or_too_slow_is_refused_by_its_name(regex: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"patterns\[0\] \(MEMBER\).*" + says):
        OwnDetector([OwnPattern("MEMBER", regex)], {})


@pytest.mark.parametrize(
    "regex",
    [
        r"M-\d{6}",
        r"\d+",
        r"[A-Z]{2,4}-\d{1,8}",
        r"(?:INV|ORD)-\d{4}-\d{1,6}",
        r"case (?P<value>[A-Z\d/]{4,12})",
        r"(?i)ref\.? ?\d{3}(?:-\d{3}){2}",
    ],
)
def test_ordinary_regexes_pass_and_are_quick(regex: str) -> None:
    detector = OwnDetector([OwnPattern("MEMBER", regex)], {})
    began = time.process_time()
    for unit in ("1", "A", "A1-", "case A", "INV-1111-"):
        detector.detect(unit * (20_000 // len(unit)))
    assert time.process_time() - began < 5


def test_they_reach_the_process_that_looks() -> None:
    settings = Settings(
        detectors=("patterns",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
        databases=None, values=(), hints=False, seconds=1.0,
        patterns=(OwnPattern("MEMBER", "M", ("x",)),), words=(("SITE", ("a",)), ("FILE", "b")),
    )  # fmt: skip
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=Settings) == settings
    hash(settings)  # defences of one process are told apart by their settings


@pytest.mark.parametrize("name", ["member", "M", "MEMBER-1", "MEMBER_", "", "A" * 30])
def test_a_kind_has_a_name_of_capitals(name: str) -> None:
    with pytest.raises(ConfigError, match="capital letters"):
        OwnDetector([OwnPattern(name, "x")], {})
    with pytest.raises(ConfigError, match="capital letters"):
        OwnDetector([], {name: ["x"]})


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"words.PROJECT: the file .* cannot be read"):
        OwnDetector([], {"PROJECT": str(tmp_path / "none")})
    (tmp_path / "empty").write_text("\n", "utf-8")
    with pytest.raises(ConfigError, match=r"words.PROJECT: the file .* is empty"):
        OwnDetector([], {"PROJECT": str(tmp_path / "empty")})
    with pytest.raises(ConfigError, match=r"words.PROJECT: '--' holds no word"):
        OwnDetector([], {"PROJECT": ["--"]})


async def test_they_hide_beside_the_detectors_of_a_plan_and_whatever_its_kinds(
    tmp_path: Path,
) -> None:
    patterns = convert([{"name": "MEMBER", "regex": r"M-\d{4}"}], tuple[OwnPattern, ...], where="x")
    defence = Pseudonym(
        detectors=["patterns"],
        kinds=["EMAIL"],
        patterns=patterns,
        words={"SITE": ["Blue Harbour"]},
        key_file=tmp_path / "key",
    )
    assert isinstance(defence.hiding, Hiding)
    text = "M-1234 of Blue Harbour, a@b.example, 10.1.2.3"
    (spans,) = await defence.hiding.spans(Ask(chat=user(text)))
    assert [(s.kind, text[s.start : s.end]) for s in spans] == [
        ("MEMBER", "M-1234"),
        ("SITE", "Blue Harbour"),
        ("EMAIL", "a@b.example"),
    ]


@pytest.mark.parametrize("cut", [1, 3, 7, 1_000])
async def test_a_kind_of_several_words_is_hidden_and_comes_back(cut: int) -> None:
    words = (("CASE_NUMBER", ("zork", "Blue Harbour")), ("CASE", ("quux",)))
    vault = Vault(b"key", "talk")
    text = "zork is no quux, nor is Blue Harbour"
    plan = Settings(
        detectors=("patterns",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
        databases=None, values=(), hints=False, seconds=60.0, words=words,
    )  # fmt: skip
    hidden = await Hiding(plan).hide(Ask(chat=user(text)), vault)
    said = hidden.chat[0].content
    assert re.fullmatch(
        r"CASE_NUMBER_[a-z2-7]{6} is no CASE_[a-z2-7]{6}, nor is CASE_NUMBER_[a-z2-7]{6}", said
    )
    for spelled in (
        said,
        said.lower(),
        said.replace("_", " "),
        said.replace("_", "\\\\_"),
        said.upper(),
    ):
        stream = Stream(vault.restorer)
        pieces = [stream.feed(spelled[at : at + cut]) for at in range(0, len(spelled), cut)]
        assert "".join((*pieces, stream.finish())).lower() == text.lower()
