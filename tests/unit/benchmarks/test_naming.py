"""The text that the tagger of names is trained on."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "pseudonyms"
sys.path.insert(0, str(BENCHMARKS))

from language_texts import held_out_words  # noqa: E402
from naming import corpora  # noqa: E402
from naming.texts import Frames, Pool, _in_case  # noqa: E402

LANGUAGES = ("de", "fr", "es", "it", "pl", "nl", "pt")
ORDINARY = """
strasse zimmer herbst meer europa don el en buenos sala central real docteur les gare stade noël italia
gentile casa vale mercato oude burgemeester markt po nowy lot rynek são escola portugal brasil
"""
"""Words of the test's streets and towns that are words of any text as well."""


def frames(language: str, held_out: frozenset[str] = frozenset()) -> Frames:
    names = ["Ada", "Ottokar", "Zuzka", "Brunhild", "Kowalska", "Nowak", "Lüdicke"]
    pool = Pool(
        names, names, ["Quedlinburg", "Ełk", "Oostkapelle"], ["haus"] * 21_000, ["seltenes"],
        held_out, ["Haus", "Tür"],
    )  # fmt: skip
    return Frames(language, pool, random.Random(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_marked_where_they_stand(language: str) -> None:
    some = frames(language)
    kinds = set()
    for _ in range(300):
        said = some.text(some.frames, some.negatives)
        assert "{" not in said.text
        assert said.language == language
        end = 0
        for start, stop, kind in said.names:
            assert end <= start < stop <= len(said.text)
            assert said.text[start:stop].strip() == said.text[start:stop]
            end = stop
            kinds.add(kind)
    assert {"PERSON", "PLACE", "ADDRESS", "ORG"} <= kinds


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_seed_makes_the_same_texts(language: str) -> None:
    texts = [
        [some.text(some.frames, some.negatives) for _ in range(20)]
        for some in (frames(language), frames(language))
    ]
    assert texts[0] == texts[1]


def test_what_is_held_out_is_in_no_name() -> None:
    for language in LANGUAGES:
        some = frames(language, frozenset({"ottokar", "quedlinburg"}))
        for _ in range(300):
            said = some.text(some.frames, some.negatives)
            names = " ".join(said.text[a:b] for a, b, _ in said.names).casefold()
            assert not {"ottokar", "quedlinburg"} & set(re.findall(r"\w+", names))


def test_no_name_of_the_test_set_is_in_the_frames() -> None:
    for file in sorted((BENCHMARKS / "naming" / "frames").glob("*.txt")):
        lines = [line for line in file.read_text("utf-8").splitlines() if line[:1] != "#"]
        written = re.findall(r"[^\W_]+", re.sub(r"\{[^}]*\}", " ", "\n".join(lines)))
        capitals = {word.casefold() for word in written if word[0].isupper()}
        assert capitals & held_out_words() <= set(ORDINARY.split())


@pytest.mark.parametrize(
    ("name", "case", "declined"),
    [
        ("Kowalska", "gen", "Kowalskiej"), ("Kowalski", "acc", "Kowalskiego"), ("Anna", "ins", "Anną"),
        ("Nowak", "dat", "Nowakowi"), ("Kraków", "loc", "Krakowie"), ("Anna", "", "Anna"),
    ],
)  # fmt: skip
def test_polish_names_are_declined(name: str, case: str, declined: str) -> None:
    assert _in_case(name, case) == declined


def test_marked_corpora_are_read() -> None:
    rows = "1\tHerr\tO\tO\n2\tOttokar\tB-PER\tO\n3\twohnt\tO\tO\n4\tin\tO\tO\n5\tUlm\tB-LOC\tO"
    (words,) = corpora._germeval(rows.splitlines(), "de")
    said = corpora.labelled(words, "de")
    assert said.text == "Herr Ottokar wohnt in Ulm"
    assert [(said.text[a:b], kind) for a, b, kind in said.names] == [
        ("Ottokar", "PERSON"),
        ("Ulm", "PLACE"),
    ]
    line = "Tom mag Ulm nicht."
    (words,) = corpora._tatoeba([line], "de")
    assert corpora.labelled(words, "de").text == line
    conllu = "\n".join(
        "\t".join((n, word, "_", kind, "_", "_", "_", "_", "_", after))
        for n, word, kind, after in (
            ("1", "Vino", "VERB", "_"), ("2-3", "del", "_", "_"), ("2", "de", "ADP", "_"),
            ("3", "el", "DET", "_"), ("4", "Ebro", "PROPN", "SpaceAfter=No"), ("5", ".", "PUNCT", "_"),
        )
    )  # fmt: skip
    (words,) = corpora._ud(conllu.splitlines(), "es")
    said = corpora.labelled(words, "es")
    assert said.text == "Vino del Ebro."
    assert [(said.text[a:b], kind) for a, b, kind in said.names] == [("Ebro", "?")]
