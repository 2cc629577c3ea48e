"""Forms that are asked only where they can match find what they find anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from re import _casefix  # type: ignore[attr-defined]

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.defences import anchored, credentials, handles, names, patterns
from cosilo.defences.anchored import AnchoredForm, AnchoredText
from cosilo.defences.beginnings import DIGIT, JOINED, UPPER, beginnings, folded, parsed
from cosilo.defences.languages import forms
from cosilo.defences.patterns import PatternDetector

FORMS = [
    *(p.form for p in patterns.PATTERNS),
    *(form for _, form, _, _ in names._COMPILED),
    *credentials._PLACES,
    credentials._NAMED,
    *(v for v in vars(handles).values() if isinstance(v, AnchoredForm)),
    *handles._EARNS,
    *(form.anchored for form in forms._FORMS),
]
WORDS = sorted(
    {w for form in FORMS for w in re.findall(r"[^\W\d_]{1,20}", form.regex.pattern) if len(w) > 1}
)
OTHERS = (
    "Maud", "Ottokar", "van der Berg", "A.", "J", "McNeil", "Ülker", "Žižek", "Łukasz", "Ивана",
    "ΣΟΦΙΑΣ", "12", "7", "90", "2019-03-04", "030 901820", "+49", "(212) 555-0188", "12345",
    "AB-1234", "8K2",
    "maud@example.org", "www.example.com", "https://maud:pw1@host/x", "x.y.z-1", "a_b_c", "::1",
    "fe80:1:2:",
    "00:1A:2b:3c:4d:5e", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "DB_PASSWORD=hunter22x",
    "é2password: 'x1y2z3'", "/home/maud/x", "C:\\Users\\maud", "ſaid", "İ am", "ım", "\u212aid", "µ",
    "😀",
    "USNS Bergman, FPO AP 93757", "the corner of 5th and Main", "$40,000", "born", "NW1 6XE", "∆",
)  # fmt: skip
JOINTS = st.sampled_from(
    [" "] * 9 + ["\n", ", ", ". ", ": ", "-", "_", "'", '"', "", "=", " (", "/"]
)
TEXTS = st.lists(
    st.tuples(st.sampled_from([*WORDS, *OTHERS]), st.booleans(), JOINTS), min_size=20, max_size=60
).map(lambda some: "".join((w.title() if up else w) + joint for w, up, joint in some))


@pytest.mark.parametrize("joint", ["", " ", "\n", ". ", "-", ": ", "_"])
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_each_form_finds_all_that_forms_are_for(joint: str, change: Callable[[str], str]) -> None:
    text = change(joint.join((*OTHERS, *WORDS[::7], *OTHERS[::-1])))
    read = AnchoredText(text)
    for form in FORMS:
        assert [m.span() for m in form.find(read)] == [m.span() for m in form.regex.finditer(text)]


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 40), st.integers(0, 40))
def test_each_form_finds_what_it_finds_anywhere(text: str, before: int, after: int) -> None:
    text += "." * anchored._SHORT
    read = AnchoredText(text)
    start, end = before, len(text) - after
    for form in FORMS:
        assert [m.span() for m in form.find(read)] == [m.span() for m in form.regex.finditer(text)]
        there = [m.span() for m in form.regex.finditer(text, start, end)]
        assert [m.span() for m in form.find(read, start, end)] == there


@settings(max_examples=30, deadline=None)
@given(TEXTS)
def test_the_same_is_private_in_a_text_that_counts_as_short(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for short in (0, 1 << 60):
            patch.setattr(anchored, "_SHORT", short)
            found.append(PatternDetector().detect(text))
    assert set(found[0]) == set(found[1])


def test_most_forms_are_asked_at_some_places_only() -> None:
    assert sum(form.anchored for form in FORMS) > 0.85 * len(FORMS)


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        (r"\b(?i:my[ ]name|dear)[ ]x", {"my\ue004", "dea"}),
        (r"(?<!\w)(?:\+|00)?\d{3}", {"+", DIGIT}),
        (r"\bdo?b", {"dob", "db"}),
        (r"\b[A-Z]{2}\d", {UPPER}),
        (r"(?i)\b[A-Z]\d", None),
        ("corner of", None),  # also inside of a word
        (r"\b(?:a|)[xy]{1,2}z", {"axx", "axy", "axz", "ayx", "ayy", "ayz", "xxz", "xyz", "xz",
                                 "yxz", "yyz", "yz"}),
        (r"\b.x", None),
        (r"\b(?:Ab|\w)c", None),
    ],
)  # fmt: skip
def test_how_a_form_begins(form: str, begins: set[str] | None) -> None:
    regex = re.compile(form)
    found, _ = beginnings(parsed(regex), regex.flags)
    assert found == (None if begins is None else frozenset(begins))


def test_a_form_may_be_told_how_it_begins_and_what_it_holds() -> None:
    text = AnchoredText("ab a.b ab1 ab " + " " * anchored._SHORT)
    assert [m.start() for m in AnchoredForm(r"\w+", 0, JOINED).find(text)] == [3, 7]
    assert list(AnchoredForm(r"\ba\w", 0, "", "q").find(text)) == []
    assert [m.start() for m in AnchoredForm(r"\ba\w", 0, "", r"\.").find(text)] == [0, 7, 11]


def test_a_form_that_is_compiled_after_a_text_was_looked_up_is_asked_there() -> None:
    text = AnchoredText("maud ottokar " + " " * anchored._SHORT)
    assert [m.start() for m in AnchoredForm(r"\bmaud\b").find(text)] == [0]
    assert [m.start() for m in AnchoredForm(r"\bottokar\b").find(text)] == [5]


COMPILES = """
import cosilo.session
from cosilo.defences import anchored, patterns
from cosilo.defences.hiding import Hiding, Settings
settings = Settings(
    detectors=("tagger",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
    databases=None, values=(), hints=False, seconds=60.0,
)
compiled = lambda: sum("_compiled" in vars(p.form) for p in patterns.PATTERNS)
before = compiled()
Hiding(settings)
print(before, compiled() == len(patterns.PATTERNS), len(anchored._WAITING))
"""


def test_forms_are_compiled_by_who_hides_before_its_first_text_and_by_nobody_else() -> None:
    said = subprocess.run(
        [sys.executable, "-c", COMPILES], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["0", "True", "0"]


def test_letters_that_case_takes_for_one_another_are_folded_to_one() -> None:
    mark = 0x345  # begins no word
    for letter, others in _casefix._EXTRA_CASES.items():
        same = {letter, *others} - {mark}
        assert len({folded(chr(code)) for code in same}) == 1, same
    for code in {*range(0x20000)} - {*range(0xD800, 0xE000), mark}:
        letter = chr(code)
        assert len(folded(letter)) == 1
        assert folded(letter).isalnum() == letter.isalnum()
        assert len(letter.upper()) > 1 or folded(letter.upper()) == folded(letter), letter
