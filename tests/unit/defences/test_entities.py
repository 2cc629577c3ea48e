"""The entities of a spaCy model, read without spaCy's parser."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cosilo.defences import entities, presidio
from cosilo.defences.detection import run
from cosilo.defences.entities import EntityReader, UnknownModelError
from cosilo.errors import CosiloError
from cosilo.models import catalog

pytestmark = pytest.mark.models

spacy: Any = pytest.importorskip("spacy")

WORDS = [
    "Anna",
    "Zuzka",
    "Lovelace",
    "O'Neil",
    "Kim",
    "van",
    "der",
    "Berg",
    "Paris",
    "London",
    "New",
    "York",
    "City",
    "Acme",
    "Corp.",
    "Inc.",
    "the",
    "a",
    "in",
    "on",
    "and",
    "of",
    "met",
    "works",
    "lives",
    "5",
    "June",
    "1833",
    "$",
    "5,000",
    "47",
    "%",
    "President",
    "States",
    "World",
    "Health",
    "(",
    ")",
    ",",
    ".",
    ";",
    ":",
    '"',
    "-",
    "/",
    "\\",
    "😀",
    "José",
    "Müller-Lüdenscheidt",
    "maud@example.org",
    "https://example.org",
    "x=1",
    '{"name":',
    '"Maud"}',
    "def",
    "the",
    "patient",
    "Dr.",
    "Mr.",
]
GAPS = [" "] * 12 + ["  ", "\n", "\n\n", "\t", ""]


def made_up(seed: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice(GAPS) for _ in range(draw.randrange(120)))


@pytest.fixture(scope="module")
def nlp() -> Any:
    try:
        place = catalog.path("en-core-web-md")
    except CosiloError as error:
        pytest.skip(str(error))
    return spacy.load(place, exclude=presidio._UNUSED)


def by_spacy(nlp: Any, text: str) -> list[tuple[int, int, str]]:
    return [(e.start, e.end, e.label_) for e in nlp(text).ents]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_they_are_those_that_spacy_finds(
    nlp: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = EntityReader(nlp)
    monkeypatch.setattr(entities, "_BLOCK", block)
    texts = ["", " ", "\n\n", "Anna", *map(made_up, range(8 if block == 1 else 90))]
    expected = [by_spacy(nlp, text) for text in texts]
    docs = [nlp.make_doc(text) for text in texts]
    assert run(reader.entities(docs)) == expected
    assert [run(reader.entities([doc]))[0] for doc in docs] == expected
    assert sum(map(len, expected)) > 30
    assert run(reader.entities([])) == []


def test_words_that_stand_among_the_same_words_are_read_once(
    nlp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(made_up(draw // 2) for draw in range(seed, seed + 9)) for seed in range(3)]
    expected = [by_spacy(nlp, text) for text in texts]
    reader = EntityReader(nlp)
    read = []
    rest = entities._Maxout.rest

    def noted(layer: Any, made: Any) -> Any:
        read.append(len(made))
        return rest(layer, made)

    monkeypatch.setattr(entities._Maxout, "rest", noted)
    docs = [nlp.make_doc(text) for text in texts]
    assert run(reader.entities(docs)) == expected
    assert sum(read) < 0.5 * (1 + len(reader._around)) * sum(map(len, docs))
    # A row that only seems to be another one's is read for itself.
    monkeypatch.setattr(entities.np.random, "default_rng", lambda _: Zeros())
    assert run(reader.entities(docs)) == expected


class Zeros:
    """Factors under which rows with the same sum seem equal."""

    def integers(self, *_: Any, size: int, **__: Any) -> Any:
        return entities.np.zeros(size, entities.np.uint64)


def test_an_entity_ends_with_its_text(nlp: Any) -> None:
    """What begins one with the last word, and what goes on through all of a text."""
    reader = EntityReader(nlp)
    texts = [text[:end] for text in map(made_up, range(2)) for end in range(0, len(text), 3)]
    found = run(reader.entities([nlp.make_doc(text) for text in texts]))
    assert found == [by_spacy(nlp, text) for text in texts]


def test_another_model_is_not_read() -> None:
    blank = spacy.blank("en")
    with pytest.raises(UnknownModelError):
        EntityReader(blank)
    ner = blank.add_pipe("ner")  # no vectors, and its words in another model's layers
    ner.add_label("PERSON")
    blank.initialize()
    with pytest.raises(UnknownModelError):
        EntityReader(blank)


def test_a_model_that_is_read_wrongly_is_not_read(
    nlp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entities, "_EPSILON", entities.np.float32(3))
    with pytest.raises(UnknownModelError):
        EntityReader(nlp)


def test_what_cannot_be_read_is_left_to_spacy(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Any) -> None:
        raise UnknownModelError

    texts = [made_up(seed) for seed in range(40)]
    here = presidio._Names(nlp)
    monkeypatch.setattr(presidio, "EntityReader", unknown)
    there = presidio._Names(nlp)
    assert there.entities == there._by_spacy
    assert run(there.find(texts)) == run(here.find(texts))
