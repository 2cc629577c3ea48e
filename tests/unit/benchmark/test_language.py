"""The language of the data is told where it is not the defence's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cosilo.benchmark.language import language_of
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.progress import Silent
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.defences.pseudonyms import Pseudonym

GERMAN = "bitte sagen Sie mir, warum die Karte nicht geht, ich habe es mit dem Automaten versucht"
ENGLISH = "please tell me why my card is not working, I have tried it with the machine"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "English"),
        (GERMAN, "German"),
        ("je voudrais savoir pourquoi la carte ne marche pas dans le magasin", "French"),
        ("quiero saber por que la tarjeta no funciona en el banco", "Spanish"),
        ("gostaria de saber por que o cartão não funciona no banco", "Portuguese"),
        ("Я хочу закрыть счёт", "Cyrillic script"),
        ("我的卡丢了", "Chinese or Japanese"),
        ("INV-2024 4711", ""),
        ("SELECT a FROM b", ""),
        ("", ""),
    ],
)
def test_the_language_of_texts(text: str, language: str) -> None:
    assert language_of([text]) == language


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("text", "detector", "told"),
    [
        (GERMAN, "patterns", True),
        (ENGLISH, "patterns", False),
        (GERMAN, "literals", False),
        (GERMAN, "tagger", False),
        (ENGLISH, "tagger", True),
    ],
)
def test_bench_says_when_names_are_looked_for_in_another_language(
    text: str, detector: str, told: bool, tmp_path: Path
) -> None:
    rows = [{"text": f"{text} {i}", "label": "ab"[i % 2]} for i in range(90)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = parse_plan(
        f"""
name = "p"
[task]
kind = "classification"
file = "d.jsonl"
[models.small]
kind = "scripted"
[models.large]
kind = "scripted"
[defences.pseudonym]
detectors = ["{detector}"]
[[points]]
strategy = "large"
defences = ["pseudonym"]
[[points]]
strategy = "cascade"
calls = 0.5
defences = ["pseudonym"]
""",
        tmp_path / "p.toml",
    )
    noting = Noting()
    store = Store(tmp_path / "run", write=True)
    try:
        asyncio.run(Runner(plan, store, reports=noting).expected())
    finally:
        store.close()
    said = [note for note in noting.notes if "look like " in note]
    assert len(said) == told
    assert all("look for names in English" in note for note in said if detector == "patterns")


def test_a_pipeline_of_another_language_is_known_by_its_name() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cosilo.defences.hiding.PresidioDetector", lambda *_: None)
        assert "English" not in Pseudonym(model="/models/de_core_news_md").languages
        assert "Swedish" in Pseudonym(model="/models/sv_core_news_sm").languages
        assert {"English", "German"} <= set(Pseudonym().languages)
        assert Pseudonym(detectors=["patterns"]).languages == ("English",)
        assert "English" not in Pseudonym(detectors=["tagger"]).languages
