"""Names that word lists tell in texts without capitals, or all in them; and words that are none."""

from __future__ import annotations

import pytest

from cosilo.defences.by_lists import by_lists


def found(text: str) -> list[str]:
    return [text[s.start : s.end] for s in by_lists(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hey ottavio did you see it?", "ottavio"),
        ("did you ask zsofia?", "zsofia"),
        ("we met gianluca at lunch", "gianluca"),
        ("that torsten pedersen song again", "torsten pedersen"),
        ("the annika van dijk interview is out", "annika van dijk"),
        ("i think sandra kowalski wrote it", "sandra kowalski"),
        ("It is quiet since Francesca left.", "Francesca"),
        ("Only Giuseppe knows why.", "Giuseppe"),
        ("Then Katarzyna called back.", "Katarzyna"),
        ("Can Fuchs-Hagendorn take over?", "Fuchs-Hagendorn"),
        ("Has Nagy-Tihanyi signed?", "Nagy-Tihanyi"),
        ("The prize goes to GRZEGORZ WALCZAK today", "GRZEGORZ WALCZAK"),
        ("It was BENEDETTA R ZANOTTI who won", "BENEDETTA R ZANOTTI"),
        ("Ask for HILDEGARD BRUCKMANN NOW", "HILDEGARD BRUCKMANN"),
    ],
)
def test_people(text: str, value: str) -> None:
    assert value in found(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("How much is a train to egersund?", "egersund"),
        ("i moved to zgierz last year", "zgierz"),
        ("we live in porto loumbah now", "porto loumbah"),
        ("a bus from trzebinia, please", "trzebinia"),
        ("The bus to EGERSUND is late.", "EGERSUND"),
        ("TRZEBINIA\n12 is the platform", "TRZEBINIA"),
        ("ZGIERZ is where it began.", "ZGIERZ"),
    ],
)
def test_places(text: str, value: str) -> None:
    assert value in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "how do i bake bread without yeast?",
        "can you ask the plumber to call me back",
        "i need to get to the airport by nine",
        "we went to bed early and got to work late",
        "He has hypercholesterolemia and was put on statins.",
        "What did the cystoscopy by the urologist show?",
        "i was treated with amoxicillin for tonsillitis",
        "The CABG and the NSAID were stopped, ETOH was denied.",
        "HTTP and JSON are not the only formats.",
        "we moved from postgres to sqlite",
        "please return the kettle for a refund",
        "It is a Two-Year plan with a Money-Back guarantee.",
        "It came with a two-year guarantee from the vendor.",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert found(text) == []
