"""What is remembered of texts: where their values are, for whoever sent them, and nothing else."""

from __future__ import annotations

import gc
import random
import re
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences import hiding
from cosilo.defences.detection import OVERLAP, WINDOW, Span
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.vault import Vault
from cosilo.types import Turn

PATTERNS = Settings(
    detectors=("patterns",), model="", kinds=(), min_score=0.3, allow=(), public_system=False,
    databases=None, values=(), hints=False, seconds=60.0,
)  # fmt: skip
SENTENCES = (
    "Please write to Maud Ottokar at maud{n}@example.org today.",
    "The number is (212) 555-01{n:02}, as before.",
    "Nothing else has to be said of it, number {n}.",
    "my name is Karel Novak{n}",
    'The record says {{"phone": "+1 212 555 {n:04}", "status": "open"}} and no more.',
    "name,phone\nInes Brandt,212-555-{n:04}\nTom Whitlock,212-555-{n:04}",
    "na\u00efve caf\u00e9 \u2013 {n}",
)


class Counting:
    """The patterns, and which texts they were asked about."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self._patterns = PatternDetector()

    def detect(self, text: str, public: str = "") -> list[Span]:
        self.read.append(text)
        return self._patterns.detect(text, public)


def counted(settings: Settings = PATTERNS) -> tuple[Hiding, Counting]:
    looks, detector = Hiding(settings), Counting()
    looks.reader.detectors = (detector,)
    return looks, detector


def ask(*texts: str) -> Ask:
    return Ask(chat=tuple(Turn("user", text) for text in texts))


def said(draw: random.Random) -> str:
    return draw.choice(SENTENCES).format(n=draw.randrange(100))


async def hidden(looks: Hiding, texts: Iterable[str], key: bytes = b"one") -> list[str]:
    return [turn.content for turn in (await looks.hide(ask(*texts), Vault(key, "talk"))).chat]


async def test_only_new_turns_are_read() -> None:
    looks, detector = counted()
    draw = random.Random(0)
    turns = [f"{said(draw)} {i}" for i in range(10)]
    for end in range(1, len(turns) + 1):
        detector.read.clear()
        await hidden(looks, turns[:end])
        assert [text for text in detector.read if text in turns] == turns[end - 1 : end]


async def test_equal_turns_are_read_once() -> None:
    looks, detector = counted()
    await hidden(looks, ["Call Maud at (212) 555-0142."] * 5)
    assert len(detector.read) == 1


async def test_two_keys_with_the_same_text_both_pay() -> None:
    looks, detector = counted()
    turns = [said(random.Random(seed)) for seed in range(9)]
    paid = []
    for key in (b"one", b"two", b"one", b"two"):
        detector.read.clear()
        await hidden(looks, turns, key)
        paid.append(list(detector.read))
    assert paid[0] == paid[1] != []
    assert paid[2] == paid[3] == []


async def test_another_schema_is_another_text() -> None:
    looks, detector = counted(msgspec.structs.replace(PATTERNS, public_system=True))
    for schema in ("CREATE TABLE a", "CREATE TABLE b", "CREATE TABLE a"):
        chat = (Turn("system", schema), Turn("user", "call (212) 555-0142"))
        await looks.hide(Ask(chat=chat), Vault(b"one", "talk"))
    assert detector.read == ["call (212) 555-0142"] * 2


async def test_only_the_end_of_a_long_text_is_read_when_it_grows() -> None:
    looks, detector = counted()
    text = " ".join(f"word{i} of a long text" for i in range(8_000))
    await hidden(looks, [text])
    once = sum(map(len, detector.read))
    assert once > 5 * WINDOW
    detector.read.clear()
    await hidden(looks, [text + " and Maud Ottokar at maud@example.org"])
    assert 0 < sum(map(len, detector.read)) <= 2 * (WINDOW + OVERLAP)


def held(value: Any) -> Iterable[Any]:
    """Whatever `value` holds, and what that holds."""
    waiting = [value]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | ModuleType | FunctionType | re.Pattern):
            continue
        seen.add(id(item))
        yield item
        waiting += gc.get_referents(item)


async def test_nothing_but_spans_is_kept() -> None:
    looks = Hiding(PATTERNS)
    private = "Call Maud Ottokar at (212) 555-0142 or write to maud@example.org."
    await hidden(looks, [private, "my name is Karel Novak"])
    entries = looks.reader._spans._entries
    assert len(entries) == 2
    assert all(type(name) is bytes and len(name) == 32 for name in entries)
    for spans in entries.values():
        assert all(type(span) is Span for span in spans)
        assert all(re.fullmatch("[A-Z]+", span.kind) for span in spans)
    for item in held(looks):
        if isinstance(item, str | bytes):
            text = item if isinstance(item, str) else item.decode(errors="replace")
            assert not any(value in text for value in ("Maud", "555-0142", "Novak"))


def test_what_is_remembered_cannot_be_looked_up_elsewhere() -> None:
    one, other = Hiding(PATTERNS), Hiding(PATTERNS)
    names = {
        looks.reader._names(scope, public)("Maud")
        for looks in (one, other)
        for scope, public in ((b"a", "b"), (b"ab", ""), (b"", "ab"))
    }
    assert len(names) == 6
    assert one.reader._names(b"a", "b")("Maud") in names


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "_REMEMBERED", 40)
    looks, detector = counted()
    for seed in range(200):
        await hidden(looks, [f"{said(random.Random(seed))} {seed}"])
    assert sum(1 + len(spans) for spans in looks.reader._spans._entries.values()) <= 40
    detector.read.clear()
    # A message that is larger than all there is room for is looked through like any other.
    many = [f"write to maud{i}@example.org" for i in range(60)]
    assert not any("example.org" in text for text in await hidden(looks, many))
    assert len(detector.read) == len(many)


@pytest.mark.parametrize("seed", range(20))
async def test_edited_conversations_are_hidden_as_if_nothing_was_remembered(seed: int) -> None:
    draw = random.Random(seed)
    remembers = Hiding(PATTERNS)
    turns = [said(draw)]
    for _ in range(12):
        match draw.randrange(5):
            case 0:
                turns.append(said(draw))
            case 1:
                turns[draw.randrange(len(turns))] += " " + said(draw)
            case 2:
                turns.insert(0, said(draw))
            case 3:
                at = draw.randrange(len(turns))
                cut = draw.randrange(len(turns[at]) + 1)
                turns[at] = turns[at][:cut] + said(draw) + turns[at][cut:]
            case _:
                turns[draw.randrange(len(turns))] = said(draw)
        assert await hidden(remembers, turns) == await hidden(Hiding(PATTERNS), turns)


async def test_a_sign_in_a_long_text_costs_what_stands_around_it() -> None:
    looks, detector = counted()
    text = "word of a long text " * 900
    await hidden(looks, [f"{text}\u00a0call\u00a0(212)\u00a0555-0142 {text[:500]}"])
    assert sum(map(len, detector.read)) < 1.2 * len(text)
