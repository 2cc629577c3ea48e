"""Hiding costs what a text's length says, whatever stands in it, and others have their turn."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.detection import Span, resolve
from cosilo.defences.hiding import Hiding, Settings, paced
from cosilo.defences.names import listed
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.recent import Recent
from cosilo.defences.texts import texts_of
from cosilo.defences.vault import Vault
from cosilo.types import Sampling, ToolCall, Turn, user

FIRST = ("Anna", "Berta", "Carl", "Dora", "Emil", "Frieda", "Georg", "Hanna", "Ida", "Jonas")
LAST = ("Schmidt", "Gruber", "Hofer", "Lang", "Moser", "Winkler", "Berger", "Fuchs", "Eder")


def repeated(unit: str) -> Callable[[int], str]:
    return lambda size: (unit * (size // len(unit) + 1))[:size]


def guests(size: int) -> str:
    draw = random.Random(5)
    names = (f"{draw.choice(FIRST)} {draw.choice(LAST)}" for _ in range(size // 13))
    return "The guests were Mr. " + ", ".join(names) + " and Zoe Lang."


def strangers(size: int) -> str:
    draw = random.Random(6)
    return ", ".join(f"Mr. {draw.randbytes(4).hex().title()}" for _ in range(size // 14))


def looked_alike(size: int) -> str:
    draw = random.Random(7)
    codes = ("".join(draw.choices("abcdefghijklmnopqrstuvwxyz234567", k=6)) for _ in range(size))
    return " ".join(f"PERSON_{next(codes)}" for _ in range(size // 14))


HOSTILE = {
    "a guest list": guests,
    "strangers": strangers,
    "placeholders": looked_alike,
    "one list": repeated("Anna, "),
    "lines": repeated("Anna\nBerta\n"),
    "digits": repeated("1 "),
    "initials": repeated("A."),
    "emoji": repeated("😀"),
    "brackets": repeated("[{("),
    "no spaces": repeated("x"),
    "one beginning": repeated("my name is Mr. A. B. "),
    "addresses": repeated("12 Aa apt 1 "),
}


def hiding(**settings: object) -> Hiding:
    given: dict[str, object] = {
        "detectors": ("patterns",), "model": "", "kinds": (), "min_score": 0.3, "allow": (),
        "public_system": False, "databases": None, "values": (), "hints": False, "seconds": 60.0,
    }  # fmt: skip
    return Hiding(Settings(**(given | settings)))  # type: ignore[arg-type]


def cpu(work: Callable[[], object]) -> float:
    """The lesser of two."""
    taken = []
    for _ in range(2):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize("name", HOSTILE)
def test_twice_the_text_costs_about_twice(name: str) -> None:
    make = HOSTILE[name]

    def hide(text: str) -> Callable[[], object]:
        return lambda: asyncio.run(hiding().hide(Ask(chat=user(text)), Vault(b"key", "c")))

    small, large = cpu(hide(make(9_000))), cpu(hide(make(24_000)))
    assert large < 9 * small + 0.05  # four times the text; sixteen times would be quadratic


def test_the_arguments_of_tools_are_read_in_time_linear_in_both() -> None:
    def work(count: int) -> Callable[[], object]:
        properties = {f"p{i}": {"type": "string", "description": f"d{i}"} for i in range(count)}
        function = {"name": "f", "parameters": {"properties": properties}}
        tools = json.dumps([{"type": "function", "function": function}])
        call = ToolCall("c", "f", json.dumps({f"k{i}": f"v{i}" for i in range(count)}))
        chat = (*user("go"), Turn("assistant", "", tool_calls=(call,)))
        ask = Ask(chat=chat, sampling=Sampling(tools=tools))
        return lambda: texts_of(ask, public_system=False)

    assert cpu(work(4_000)) < 9 * cpu(work(1_000)) + 0.02


def test_a_key_that_tools_name_is_not_private_and_another_is() -> None:
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {"to": 1}}}]'
    call = ToolCall("c", "f", '{"to": "Ada", "Ada": 1, "o": 2}')
    chat = (*user("go"), Turn("assistant", "", tool_calls=(call,)))
    texts = texts_of(Ask(chat=chat, sampling=Sampling(tools=tools)), public_system=False)
    assert "to" not in texts
    assert texts.count("Ada") == 2
    assert "o" in texts


def test_a_list_is_walked_once() -> None:
    text = guests(8_000)
    people = PatternDetector().detect(text)
    found = list(listed(text, people))
    assert len(found) < 3 * text.count(",")
    assert len(found) > text.count(",") // 2


def test_a_walk_from_the_middle_of_a_list_sees_what_one_from_its_start_does() -> None:
    text = "They were Anna, Zuzka, Berta Moser and jörn."
    anna, berta = text.index("Anna"), text.index("Berta")
    spans = [Span(anna, anna + 4, "PERSON"), Span(berta, berta + 11, "PERSON")]
    for people in (spans, spans[::-1]):
        names = {text[s.start : s.end] for s in listed(text, people)}
        # In small letters only what follows two items is taken for a name.
        assert {"Zuzka", "jörn"} <= names


class TestFinder:
    """`Vault.cover` finds each value everywhere, as whole words."""

    def covered(self, text: str, *values: str, kind: str = "PERSON") -> str:
        first = "\n".join(values)
        found: list[Span] = []
        at = 0
        for value in values:
            found.append(Span(at, at + len(value), kind))
            at += len(value) + 1
        spans = Vault(b"", "").cover([first, text], [found, []])[1]
        hidden = {i for s in spans for i in range(s.start, s.end)}
        return "".join("#" if i in hidden else c for i, c in enumerate(text))

    @pytest.mark.parametrize(
        ("value", "text", "shown"),
        [
            ("Anna Lee", "ANNA LEE, hanna leeds, annA lee", "########, hanna leeds, ########"),
            ("Lee", "Lee, LEE, Leeds, lee", "###, LEE, Leeds, lee"),
            ("ann@x.org", "ann@x.org, Ann@X.org, joann@x.org", "#########, #########, joann@x.org"),
            ("+49 30 901", "at +49 30 901; +49 30 9012", "at ##########; +49 30 9012"),
            ("12 Via Roma, Po", "in 12 via roma, po!", "in ###############!"),
            ("O'Hara", "O'Hara's, o'hara", "######'s, ######"),
            ("123456789", "x123456789y", "x#########y"),
            ("or", "black or white", "black or white"),
        ],
    )  # fmt: skip
    def test_as_whole_words(self, value: str, text: str, shown: str) -> None:
        assert self.covered(text, value) == shown

    def test_values_that_begin_alike(self) -> None:
        text = "Anna Lee, Anna Lee Fox, Anna and Anna Li"
        shown = self.covered(text, "Anna Lee", "Anna Lee Fox", "Anna Li")
        assert shown == "########, ############, #### and #######"

    def test_a_value_of_very_many_words(self) -> None:
        value = " ".join(f"w{i}" for i in range(150))
        assert self.covered(f"<{value}> {value}x", value) == f"<{'#' * len(value)}> {value}x"


@pytest.mark.parametrize("kind", ["NUMBER", "VALUE", "DAY", "PERSON"])
def test_issuing_costs_what_the_message_holds(kind: str) -> None:
    forms = {"DAY": "20{0:02}-03-{1:02}", "NUMBER": "{2}", "VALUE": "Ada{2}", "PERSON": "Ada{2}"}

    def work(count: int) -> Callable[[], object]:
        values = [forms[kind].format(10 + i // 28, 1 + i % 28, 100 + i) for i in range(count)]
        text, spans = "", []
        for value in values:
            spans.append(Span(len(text), len(text) + len(value), kind))
            text += f"{value} is one of them, and nobody knows whose it was before. "

        def issue() -> None:
            vault = Vault(b"key", "c")
            covered = vault.cover([text], [spans])
            vault.issue([text], covered, "")
            assert vault.restore(vault.hide(text, covered[0])) == text

        return issue

    assert cpu(work(1_600)) < 9 * cpu(work(400)) + 0.1


def test_resolving_many_spans_is_no_slower_for_their_number_squared() -> None:
    def work(count: int) -> Callable[[], object]:
        text = "Anna " * count
        spans = [Span(5 * i, 5 * i + 4, "PERSON", 0.1 * k) for i in range(count) for k in range(3)]
        return lambda: resolve(spans, text)

    assert cpu(work(20_000)) < 9 * cpu(work(5_000)) + 0.02


async def test_a_long_message_lets_others_have_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    text = guests(60_000)
    task = asyncio.create_task(other())
    await hiding().hide(Ask(chat=user(text)), Vault(b"key", "c"))
    task.cancel()
    # 25 ms of CPU on a machine at rest, but CPU time grows where cores are shared; pieces do not.
    assert turns >= len(text) / 10_000


async def test_two_messages_have_turns_in_turn_and_the_short_one_is_done_first() -> None:
    done: list[str] = []
    both = hiding()

    async def hide(name: str, text: str) -> None:
        await both.hide(Ask(chat=user(text)), Vault(b"key", "c"))
        done.append(name)

    await asyncio.gather(hide("long", guests(60_000)), hide("short", "I am Anna Moser."))
    assert done == ["short", "long"]


async def test_what_takes_too_long_is_given_up_between_its_steps() -> None:
    steps = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal steps
        while True:
            steps += 1
            yield

    with pytest.raises(TimeoutError):
        await paced(endless(), 0.01)
    assert steps > 1


def test_memory_of_spans_is_bounded_by_their_number() -> None:
    recent: Recent[str, tuple[int, ...]] = Recent(10, len)
    for i in range(9):
        recent.put(str(i), (1, 2, 3))
    assert len(recent) == 3
    assert recent.get("0") is None
    assert recent.get("8") == (1, 2, 3)
    recent.put("8", (1,))
    recent.put("9", (1, 2, 3))
    assert len(recent) == 4
    recent.put("large", tuple(range(11)))
    assert recent.get("large") is None
