"""A conversation's earlier turns are covered as if they were looked through again."""

from __future__ import annotations

import random
import re

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences import vault as vaults
from cosilo.defences.detection import Span
from cosilo.defences.finding import Among, ValueFinder
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.vault import Vault
from cosilo.types import Turn

PATTERNS = Settings(
    detectors=("patterns",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
    databases=None, values=(), hints=False, seconds=60.0,
)  # fmt: skip
SAID = (
    "my name is Maud Ottokar, and all is well.", "The file maud_ottokar.pdf and m.Ottokar were read.",
    "OTTOKAR said so; Maud did not.", "Call (212) 555-0188 or write to maud@example.org.",
    "It is x2125550188y, 2125550188 and 212 555 0188.", "my name is Karel Novak",
    "novak@karel, KarelNovak",
    '{"name": "Ines Brandt", "n": 2125550188}', "Nothing else.", "I live at 12 Mill Lane, London.",
    "Mill Lane is long. Brandt's ines-brandt, i_brandt.", "PERSON_abc234 is no placeholder.",
    "mailto:maud@example.org and https://example.org/Ottokar", "The US and us because of it. ID 12345",
)  # fmt: skip


def ask(texts: list[str]) -> Ask:
    by = ("user", "assistant")
    return Ask(chat=tuple(Turn(by[i % 2], text) for i, text in enumerate(texts)))  # type: ignore[arg-type]


async def hidden(looks: Hiding, texts: list[str], key: bytes = b"key") -> list[str]:
    message = await looks.hide(ask(texts), Vault(key, texts[0]))
    return [turn.content for turn in message.chat]


async def test_each_turn_is_hidden_as_if_it_were_the_first_time() -> None:
    draw = random.Random(3)
    looks = Hiding(PATTERNS)
    for _ in range(40):
        texts = [f"{draw.choice(SAID)} {draw.choice(SAID)}" for _ in range(9)]
        for turns in (1, 3, 5, 4, 7, 9, 9):
            assert await hidden(looks, texts[:turns]) == await hidden(
                Hiding(PATTERNS), texts[:turns]
            )


async def test_only_what_is_new_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    class Noting(ValueFinder):
        def find(self, text: str):  # type: ignore[no-untyped-def]
            looked.append(text)
            return super().find(text)

    monkeypatch.setattr(vaults, "ValueFinder", Noting)
    looks = Hiding(PATTERNS)
    texts = ["my name is Maud Ottokar", "Good. Novak is well.", "my name is Ines Brandt"]
    await hidden(looks, texts[:1])
    assert looked == texts[:1]
    looked.clear()
    await hidden(looks, texts)
    assert looked == texts[1:]
    looked.clear()
    more = [*texts, "Good.", "my name is Karel Novak"]
    await hidden(looks, more)
    assert looked == [texts[1], *more[3:]]  # where the new name stands, too
    looked.clear()
    await hidden(looks, more, b"another key")
    assert looked == more


async def test_no_text_is_kept() -> None:
    looks = Hiding(PATTERNS)
    await hidden(looks, [SAID[0], SAID[8], SAID[3]])
    kept = list(looks._earlier._kept._entries.items())
    assert len(kept) == 1
    codes = []
    for name, (texts, form) in kept:
        assert len(name) == len(form) == 32
        for text in texts:
            assert all(type(span) is Span for span in (*text.found, *text.covered))
            codes += text.codes
    assert codes
    assert all(re.fullmatch("[A-Z]+_[a-z2-7]{6}", code) for code in codes)


def test_a_value_without_its_signs_is_not_found() -> None:
    draw = random.Random(4)
    pieces = (
        "maud",
        "Ottokar",
        "ottokar",
        "M",
        "m",
        "12345678",
        "Mill",
        "Lane",
        "O'Hara",
        "İnes",
        "us",
        "\u1fb3",
        "\u03b1\u0345",
        "Straße",
        "\\n",
        "the",
        "O",
    )
    found = 0
    for _ in range(4_000):
        joints = [" ", "_", ".", "-", "", "'s ", ", "]
        text = "".join(draw.choice(pieces) + draw.choice(joints) for _ in range(6))
        value = " ".join(draw.choices(pieces, k=draw.randrange(1, 4)))
        kind = draw.choice(("PERSON", "ID"))
        if any(ValueFinder({value: kind}).find(text)):
            found += 1
            assert Among([text]).may_hold(value, kind), (value, kind, text)
    assert found > 100
