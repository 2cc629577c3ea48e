"""The texts that detection in other languages is measured on."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks" / "pseudonyms"))

from language_texts import LANGUAGES, held_out_words, source, texts, words  # noqa: E402
from polish import declined  # noqa: E402

import cosilo  # noqa: E402

ORDINARY = {"words.py", "guess.py", "cues.py"}
"""Lists of words that are no names, so that a name among them is found the less."""


def words_in_source() -> set[str]:
    """All words of texts in Cosilo's own code, apart from its docstrings and ordinary words."""
    found: set[str] = set()
    for file in Path(cosilo.__file__).parent.rglob("*.py"):
        if file.name in ORDINARY:
            continue
        tree = ast.parse(file.read_text("utf-8"))
        said = {
            id(n.value)
            for n in ast.walk(tree)
            if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in said
            ):
                found.update(re.findall(r"[^\W\d_]+", node.value.casefold()))
    return found


def people_and_towns(split: str) -> set[str]:
    made_of = [source(language, split) for language in LANGUAGES]
    lists = [some for s in made_of for some in (s.given_f, s.given_m, s.family, s.towns)]
    return {w for some in lists for entry in some for w in words(entry)}


def test_the_test_split_shares_no_name_with_the_other_one():
    assert not held_out_words(("test",)) & held_out_words(("dev",))


def test_the_test_split_shares_no_name_with_any_list_of_ours():
    names = {w for w in people_and_towns("test") if len(w) > 3}
    assert names & words_in_source() <= {"goes", "real"}  # Goes, Ciudad Real


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_test_split_shares_no_template_with_the_other_one(language):
    dev, test = (source(language, split).templates for split in ("dev", "test"))
    assert not set(dev) & set(test)
    assert language == "en" or len({*dev, *test}) >= 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_marks_stand_where_the_values_are(language):
    made = texts(language, "dev", 60)
    assert made == texts(language, "dev", 60)
    for marked in made:
        assert not set("{}<>") & set(marked.text)
        for start, end, _, value in marked.spans:
            assert marked.text[start:end] == value
        ends = [0, *(end for _, end, _, _ in marked.spans)]
        assert all(a <= span[0] for a, span in zip(ends, marked.spans, strict=False))


@pytest.mark.parametrize(
    ("name", "case", "gender", "expected"),
    [
        ("Anna Nowacka", "gen", "f", "Anny Nowackiej"),
        ("Zofia", "dat", "f", "Zofii"),
        ("Monika Lis", "dat", "f", "Monice Lis"),
        ("Jacek Wilczyński", "ins", "m", "Jackiem Wilczyńskim"),
        ("Piotr Sowa", "gen", "m", "Piotra Sowy"),
        ("Jerzy", "gen", "m", "Jerzego"),
        ("Ignacy", "ins", "m", "Ignacym"),
        ("Szczepan", "voc", "m", "Szczepanie"),
        ("Marek", "voc", "m", "Marku"),
    ],
)
def test_polish_names_are_declined(name, case, gender, expected):
    assert declined(name, case, gender) == expected
