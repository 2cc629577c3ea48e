"""What spaCy finds does not depend on how a text is read: whole or in pieces, with all its words or
without."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences import presidio
from cosilo.defences.detection import Span, gathered, run
from cosilo.defences.hiding import Hiding, Settings
from cosilo.errors import CatalogError, ConfigError
from cosilo.models import catalog
from cosilo.types import Turn

pytestmark = pytest.mark.models

NAMES = (
    "Maria Gonzalez", "Kofi Annan", "Ömer Çelik", "Zuzka Nagy", "Priya Thornbury", "O'Hara", "Sofia",
    "Jean-Luc Moreau", "Aisha Okafor", "Henrik Lindqvist", "Wei Zhang", "Dr. Helen Mbeki",
)  # fmt: skip
PLACES = ("Vienna", "Lake Geneva", "Addis Ababa", "the Alps", "Springfield, Ohio", "Kraków")
FIRMS = (
    "Acme Holdings",
    "the Red Cross",
    "Nordwind GmbH",
    "Bank of Utrecht",
    "IBM",
    "Hofer & Sons",
)
FORMS = (
    "{n} met {m} in {p} on Friday, and nobody asked why.",
    "The report of {f} was signed by {n}; it's late again.",
    '{{"name": "{n}", "city": "{p}"}} is what the form said.',
    "call {n} at (212) 555-0142, or write to {f} ({p}).",
    "- {n}\n- {m}\n- {f}\n",
    "i don't think {n}'s card 4111 1111 1111 1111 was used in {p}",
    "The ward was quiet before noon and nobody had asked for another copy of the form.",
)


@pytest.fixture(scope="module", autouse=True)
def _model() -> None:
    pytest.importorskip("presidio_analyzer")
    try:
        catalog.path("en-core-web-md")
    except CatalogError as error:
        pytest.skip(str(error))


def made_up(seed: int, sentences: int) -> str:
    draw = random.Random(seed)
    fill = (
        draw.choice(FORMS).format(
            n=draw.choice(NAMES), m=draw.choice(NAMES), p=draw.choice(PLACES), f=draw.choice(FIRMS)
        )
        for _ in range(sentences)
    )
    return " ".join(fill)


TEXTS = [made_up(seed, 2 + seed) for seed in range(40)]


@pytest.fixture(scope="module")
def whole() -> Any:
    """spaCy's own pipeline with all its words, and of its parts the one for entities."""
    import spacy

    others = [part for part in presidio._UNUSED if part != "strings"]
    return spacy.load(catalog.path("en-core-web-md"), exclude=others)


def test_pieces_give_what_the_whole_pipeline_gives(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presidio, "_PIECE", 40)
    names = presidio._names("en-core-web-md")
    found = 0
    for text in TEXTS:
        expected = [
            (e.start_char, e.end_char, e.label_)
            for e in whole(text).ents
            if e.label_ in presidio._NAMES
        ]
        assert run(names.find([text]))[0][0] == expected
        found += len(expected)
    assert found > 500


async def test_texts_read_together_give_what_each_gives_alone() -> None:
    def fresh() -> Hiding:
        return Hiding(
            Settings(
                detectors=("presidio",), model="en-core-web-md", kinds=(), min_score=0.3, allow=(),
                public_system=False, databases=None, values=(), hints=False, seconds=60.0,
            )
        )  # fmt: skip

    texts = [made_up(seed, 1) for seed in range(300)]
    texts += [t.lower() for t in texts[:50]] + ["", "7", "x" * 150, "😀" * 150, *texts[:9]]
    together = await fresh().spans(Ask(chat=tuple(Turn("user", t) for t in texts)))
    alone = fresh()
    each = [(await alone.spans(Ask(chat=(Turn("user", t),))))[0] for t in texts[:60]]
    detector = presidio.PresidioDetector()
    before = [set(detector.detect(text)) for text in texts[:60]]
    assert list(map(set, run(detector.together(texts[:60])))) == before
    # What one text holds is hidden in the others too, so only more can be.
    for text, spans, others in zip(texts, each, together, strict=False):
        covered = {i for s in others for i in range(s.start, s.end)}
        hidden = {i for s in spans for i in range(s.start, s.end) if text[i].isalnum()}
        assert hidden <= covered


def test_many_short_texts_cost_less_together() -> None:
    """The least of three rounds of either, with new texts each: other work on the machine only adds."""
    detector = presidio.PresidioDetector()
    apart, together = [], []
    for start in (0, 1000, 2000):
        texts = [f"{i * 7919 % 9973} k{i}" for i in range(start, start + 400)]
        before = time.process_time()
        for text in texts:
            detector.detect(text)
        between = time.process_time()
        run(detector.together(texts))
        apart.append(between - before)
        together.append(time.process_time() - between)
    assert min(together) < 0.6 * min(apart), (together, apart)


def test_a_word_is_strange_that_the_published_vocabulary_does_not_know(whole: Any) -> None:
    text = " ".join(TEXTS[:20])
    ((_, strange),) = run(presidio._names("en-core-web-md").find([text]))
    known = whole.vocab
    expected = [
        (t.idx, t.idx + len(t))
        for t in whole.make_doc(text)
        if len(t) > 2
        and t.is_alpha
        and t.text[0].isupper()
        and not (known.has_vector(t.text.lower()) or known.has_vector(t.text))
    ]
    assert strange == expected
    assert {"Zuzka", "Çelik"} <= {text[a:b] for a, b in strange}


def test_the_first_word_of_a_text_may_be_strange() -> None:
    found = run(presidio._names("en-core-web-md").find(["Xylbrook, oh Xylbrook", "Lovely, oh my"]))
    assert [strange for _, strange in found] == [[(0, 8), (13, 21)], []]


def test_numbers_with_a_checksum_are_found() -> None:
    text = "card 4111 1111 1111 1111, IBAN DE89370400440532013000, not 4111 1111 1111 1112"
    spans = presidio.PresidioDetector().detect(text)
    kinds = {(s.kind, text[s.start : s.end]) for s in spans if s.score == 1.0}
    assert {("CARD", "4111 1111 1111 1111"), ("IBAN", "DE89370400440532013000")} <= kinds


@pytest.mark.parametrize("unit", ["😀", "!", "[{(", "'s", "x😀", "é-", "():;"])
def test_a_run_without_spaces_costs_what_its_length_says(unit: str) -> None:
    detector = presidio.PresidioDetector()

    def cpu(size: int) -> float:
        text = (unit * size)[:size]
        taken = []
        for _ in range(2):
            before = time.process_time()
            detector.detect(text)
            taken.append(time.process_time() - before)
        return min(taken)

    assert cpu(6_000) < 9 * cpu(1_500) + 0.1  # four times as long


@pytest.mark.parametrize("unit", ["😀", "=", "abc", "x.", "a,", "我是"])
def test_a_long_run_is_read_in_parts_and_places_stay_true(unit: str) -> None:
    run_ = unit * 1_500
    for text in (f"Kofi Annan {run_} Maria Gonzalez", f"{run_} Kofi Annan, Maria Gonzalez {run_}"):
        spans = presidio.PresidioDetector().detect(text)
        found = {text[s.start : s.end] for s in spans}
        assert any("Maria Gonzalez" in f for f in found)
        assert any("Annan" in f for f in found)
        assert all(0 <= s.start < s.end <= len(text) for s in spans)


@pytest.mark.parametrize("size", [10, 65, 1_001, 2_500, 5_003])
@pytest.mark.parametrize("unit", ["x", "-", "x-", "-- x"])
def test_a_broken_text_without_its_spaces_is_the_text(unit: str, size: int) -> None:
    text = (unit * size)[:size]
    read, cuts = presidio._broken(text)
    assert all(read[cut] == " " for cut in cuts)
    assert "".join(c for i, c in enumerate(read) if i not in set(cuts)) == text
    assert [presidio._before(i, cuts) for i in range(len(read)) if i not in set(cuts)] == list(
        range(len(text))
    )
    assert max(map(len, read.split()), default=0) <= presidio._RUN


def test_the_pipeline_reads_english_and_the_tagger_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = presidio.PresidioDetector()
    read: list[str] = []
    find = detector._names.find
    monkeypatch.setattr(detector._names, "find", lambda texts: read.extend(texts) or find(texts))
    german = "Guten Tag, mein Name ist Wiebke Hollenstedt und ich wohne in Buxtehude."
    english = "The meeting with Gwendolyn Pemberton is on Monday in Abingdon."
    text = f"{german}\n\n{english}"
    found = {text[s.start : s.end] for s in detector.detect(text)}
    assert {"Wiebke Hollenstedt", "Buxtehude", "Gwendolyn Pemberton", "Abingdon"} <= found
    assert read == [english]
    read.clear()
    run(detector.together([german, english]))
    assert read == [english]


def test_a_guess_in_another_language_is_believed_where_the_tagger_does_not_rule_it_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = presidio.PresidioDetector()
    text = "Guten Tag, die Wohnung mit der Heizung gehört uns und Frau Hollenstedt nicht."
    guesses = (("Wohnung", 0.45), ("Heizung", 0.7), ("Hollenstedt", 0.4))
    spans = [Span(text.index(w), text.index(w) + len(w), "PERSON", score) for w, score in guesses]
    monkeypatch.setattr(detector._patterns, "steps", lambda *_: gathered(spans))
    found = {text[s.start : s.end] for s in detector.detect(text)}
    assert "Wohnung" not in found
    assert {"Heizung", "Hollenstedt"} <= found


def test_a_card_number_is_found_in_any_language() -> None:
    text = "Guten Tag, meine Karte hat die Nummer 4111 1111 1111 1111 und geht nicht."
    spans = presidio.PresidioDetector().detect(text)
    assert any(s.kind == "CARD" and s.score == 1 for s in spans)


async def test_messages_read_together_leave_the_spans_that_each_leaves_alone() -> None:
    plan = Settings(
        detectors=("presidio",), model="en-core-web-md", kinds=(), min_score=0.3, allow=(),
        public_system=False, databases=None, values=(), hints=False, seconds=60.0,
    )  # fmt: skip
    together, alone = Hiding(plan), Hiding(plan)
    alone.reader._secret = together.reader._secret
    messages = [Ask(chat=(Turn("user", made_up(s, 1 + s % 4)),)).passages() for s in range(60)]
    for at in range(0, 60, 12):
        await together.read_together(messages[at : at + 12], b"scope", lambda: None)
    for message in reversed(messages):
        await alone.read_together([message], b"scope", lambda: None)
    assert len(together.reader._spans) == len(alone.reader._spans) > 50
    for name, spans in together.reader._spans._entries.items():
        assert set(spans) == set(alone.reader._spans._entries[name])


def test_frameworks_that_are_not_used_are_not_loaded() -> None:
    check = """
import sys
from cosilo.defences.presidio import PresidioDetector
assert PresidioDetector().detect("I am Maria Gonzalez")
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "transformers", "tensorflow", "cupy", "jax"}))
import importlib.util
importlib.util.find_spec("torch")  # can be found again
print(sum(type(f).__name__ == "_Absent" for f in sys.meta_path))
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["[]", "0"], done.stderr


@pytest.mark.parametrize("model", ["en-core-web-xx", "./models/none", "en_core_web_md ", "x"])
def test_a_model_that_is_not_there_is_named(model: str) -> None:
    pytest.importorskip("spacy")
    with pytest.raises(ConfigError, match="cosilo models list") as told:
        presidio.PresidioDetector(model)
    assert repr(model) in str(told.value)
