"""Names in seven languages, by the network that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.defences.detection import run
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.defences.tagger.detector import TaggerDetector, _spans
from cosilo.defences.tagger.network import TaggerNetwork
from cosilo.defences.tagger.reading import LANGUAGES, tokens
from cosilo.errors import PrivacyError
from cosilo.types import Generation, last_user, user

TAGGER = TaggerDetector()

SENTENCES = {
    "de": ("Guten Tag, mein Name ist Wiebke Hollenstedt und ich wohne seit 2011 in Buxtehude.",
           ["Wiebke Hollenstedt", "Buxtehude"]),
    "fr": ("Bonjour, je m'appelle Clothilde Marchandeau et j'habite à Montbéliard depuis 2011.",
           ["Clothilde Marchandeau", "Montbéliard"]),
    "es": ("Hola, me llamo Casilda Bracamonte y vivo en Ponferrada desde 2011.",
           ["Casilda Bracamonte", "Ponferrada"]),
    "it": ("Buongiorno, mi chiamo Ludovica Scaramella e abito a Pordenone dal 2011.",
           ["Ludovica Scaramella", "Pordenone"]),
    "pl": ("Dzień dobry, nazywam się Bronisława Wędrychowska i mieszkam w Sandomierzu od 2011 roku.",
           ["Bronisława Wędrychowska", "Sandomierzu"]),
    "nl": ("Goedemorgen, mijn naam is Liesbeth Oosterwegel en ik woon sinds 2011 in Zaltbommel.",
           ["Liesbeth Oosterwegel", "Zaltbommel"]),
    "pt": ("Bom dia, o meu nome é Leopoldina Carrapatoso e moro em Alcobaça desde 2011.",
           ["Leopoldina Carrapatoso", "Alcobaça"]),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_found_and_nothing_else(language: str) -> None:
    text, names = SENTENCES[language]
    spans = TAGGER.detect(text)
    assert [text[s.start : s.end] for s in sorted(spans, key=lambda s: s.start)] == names
    assert [s.kind for s in sorted(spans, key=lambda s: s.start)] == ["PERSON", "PLACE"]
    assert all(0.3 < s.score < 1 for s in spans)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_text_has_the_same_names(language: str) -> None:
    text, _ = SENTENCES[language]
    assert TAGGER.detect(text) == TAGGER.detect(text) == TaggerDetector().detect(text)


@pytest.mark.parametrize("apart", [False, True])
async def test_names_do_not_leave_and_come_back(apart: bool, tmp_path: Path) -> None:
    chat = user("\n\n".join(text for text, _ in SENTENCES.values()))
    seen: list[str] = []

    async def forward(message: Message) -> Message:
        assert isinstance(message, Ask)
        seen.append(last_user(message.chat))
        return Completion(generation=Generation(seen[-1]))

    defence = Pseudonym(detectors=["tagger"], key_file=tmp_path / "key", apart=apart)
    try:
        reply = await defence.guard(Ask(chat=chat), forward, request="r")
    finally:
        await defence.close()
    assert not [word for _, names in SENTENCES.values() for word in names if word in seen[0]]
    assert isinstance(reply, Completion)
    assert reply.generation.text == last_user(chat)


async def test_a_message_that_the_tagger_cannot_read_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    defence = Pseudonym(detectors=["tagger"], key_file=tmp_path / "key")

    async def forward(message: Message) -> Message:
        raise AssertionError("it was sent")

    monkeypatch.setattr(TaggerNetwork, "shares", lambda *_: 1 / 0)
    with pytest.raises(PrivacyError, match="nothing was sent"):
        await defence.guard(Ask(chat=user(SENTENCES["de"][0])), forward, request="r")


def test_a_long_text_is_read_in_pieces_as_it_would_be_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = " ".join(SENTENCES["de"][0] for _ in range(60))
    in_pieces = run(TAGGER.named(text, "de"))
    monkeypatch.setattr("cosilo.defences.tagger.detector._PIECE", 100_000)
    at_once = run(TAGGER.named(text, "de"))
    covered = [
        {i for s in spans for i in range(s.start, s.end)} for spans, _ in (in_pieces, at_once)
    ]
    assert covered[0] == covered[1]


def test_english_is_left_to_others() -> None:
    assert TAGGER.detect("My name is Gwendolyn Pemberton and I live in Abingdon.") == []


def test_in_a_piece_in_doubt_a_name_must_be_likelier() -> None:
    text = SENTENCES["de"][0]
    seen = {}
    for sure in (True, False):
        spans, _ = run(TAGGER.named(f"{text} Vielleicht kommt sie mit Ahlsen.", "de", sure))
        seen[sure] = {i for s in spans for i in range(s.start, s.end)}
    assert set(range(text.index("Wiebke"), text.index(" und"))) <= seen[False] <= seen[True]


def test_each_piece_is_read_in_its_language() -> None:
    text = f"{SENTENCES['de'][0]}\n\n{SENTENCES['pl'][0]}\n\nThe meeting with Bob is on Monday."
    found = {text[s.start : s.end] for s in TAGGER.detect(text)}
    assert found == {*SENTENCES["de"][1], *SENTENCES["pl"][1]}


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "\n", "\x00", "\ud800 wohnt in \udfff", "ich wohne in " + "x" * 15_000, "und " * 4_000,
        "ich heiße 😀😀 und e\u0301e\u0301", "İstanbul und ich", "\u202eich heiße anna",
        "." * 15_000,
        "ich wohne in\u2028Trier\u2029und", "ﬁ und ﬀ ich bin", "١٢٣ und ich", "ich " + "a-" * 7_000,
    ],
)  # fmt: skip
def test_any_text_can_be_read(text: str) -> None:
    for span in (*TAGGER.detect(text), *run(TAGGER.named(text, "de"))[0]):
        assert 0 <= span.start < span.end <= len(text)
        assert any(c.isalnum() for c in text[span.start : span.end])


@pytest.mark.parametrize(
    ("text", "kinds", "names"),
    [
        ("von ( Ada B. Ey ) aus Ulm", "011111102", [("Ada B. Ey", "PERSON"), ("Ulm", "PLACE")]),
        ("Bram op den Kamp", "1001", [("Bram op den Kamp", "PERSON")]),
        ("Anna und Peter", "101", [("Anna", "PERSON"), ("Peter", "PERSON")]),
        ("Ada, Ey", "101", [("Ada", "PERSON"), ("Ey", "PERSON")]),
        ("Ada Ey Ulm", "112", [("Ada Ey Ulm", "PERSON")]),
        ("Ada\tEy", "11", [("Ada", "PERSON"), ("Ey", "PERSON")]),
        ("Lyon de la Tour", "2002", [("Lyon", "PLACE"), ("Tour", "PLACE")]),
        ("( )", "11", []),
        ("Ada\nEy", "11", [("Ada", "PERSON"), ("Ey", "PERSON")]),
        ("O'Hara kommt", "1000", [("O'Hara", "PERSON")]),
        ("l'Anna d'Ey", "001001", [("Anna", "PERSON"), ("Ey", "PERSON")]),
        ("Meyer-Ey und Ey-haft", "0010100", [("Meyer-Ey", "PERSON"), ("Ey", "PERSON")]),
    ],
)
def test_words_of_one_name_are_one_span(
    text: str, kinds: str, names: list[tuple[str, str]]
) -> None:
    shares = np.eye(5, dtype=np.float32)[[int(k) for k in kinds if k != " "]]
    found = tokens(text)
    assert [(text[s.start : s.end], s.kind) for s in _spans(text, found, shares, 0.1)] == names


def test_an_organisation_must_be_likelier_than_a_person() -> None:
    found = tokens("Ada")
    for share, names in ((0.1, 0), (0.2, 1)):
        assert (
            len(list(_spans("Ada", found, np.array([[1 - share, share, 0, 0, 0]]), 0.15))) == names
        )
    for share, names in ((0.5, 0), (0.7, 1)):
        assert (
            len(list(_spans("Ada", found, np.array([[1 - share, 0, 0, 0, share]]), 0.15))) == names
        )


def test_what_is_surer_counts_more() -> None:
    scores = []
    for share in (0.2, 0.5, 1.0):
        shares = np.array([[1 - share, share, 0, 0, 0]])
        scores += [s.score for s in _spans("Ada", tokens("Ada"), shares, 0.1)]
    assert 0.3 < scores[0] < scores[1] < scores[2] < 0.85
