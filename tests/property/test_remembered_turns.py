"""What is remembered of a conversation changes nothing: turns are hidden as if all were forgotten."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences import hiding
from cosilo.defences.covered import CoveredText, EarlierTurns, KnownTexts
from cosilo.defences.detection import Span
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.recent import Recent
from cosilo.defences.vault import Vault
from cosilo.types import Sampling, Turn

SYSTEM = "Answer Maud Ottokar politely.\nYou are Ines Brandt of Acme."
NAMES = (
    "Maud Ottokar",
    "Karel Novak",
    "Ines Brandt",
    "Tom Whitlock",
    "Ay\u015fe \u0130nan",
    "Otto Kar",
)
FORMS = (
    "my name is {name}, and all is well.", "my name is {name}", "Nothing else, {first}.",
    "The file {low}.pdf, {last} and {joined}.", "Nothing.", "All is well.", "my name is {name}",
    "I am {name}", "Dr. {name} came.", "my name is {name}.",
    "{last} said so. Call (212) 555-01{n:02} or write to {low}@example.org.",
    '{{"name": "{name}", "n": 21255501{n:02}, "note": "{last}\\n{last}"}}',
    "name,phone\n{name},212-555-01{n:02}",
    "See https://example.org/{last}?q={first} and http://{low}.example/a.",
    "It was {n} {month} 20{n:02}.",
    "How many had {n} of {name} after 2011-03-{n:02}?", "PERSON_abc234 is none, person abcdef neither.",
    "2125550{n:03} x21255501{n:02}y", "I live at {n} Mill Lane, London. {name}",
    "Dr. {last} \u2013 {last}'s", "my name is {name}: [{n}](/docs/{last})",
    "caf\u00e9 {name}\u00a0{last}, PHONE-abc234 {month}",
)  # fmt: skip
MONTHS = ("March", "May", "August")


def settings(**given: Any) -> Settings:
    usual: dict[str, Any] = {
        "detectors": ("patterns", "literals"), "model": "", "kinds": (), "min_score": 0.3, "allow": (),
        "public_system": False, "databases": None, "values": ("London",), "hints": False,
        "seconds": 60.0,
    }  # fmt: skip
    return Settings(**(usual | given))


PLAIN = settings(detectors=("patterns",))
PLANS = (
    PLAIN,
    PLAIN,
    settings(),
    settings(detectors=("patterns",), allow=("Novak", "London")),
    settings(detectors=("patterns",), public_system=True),
    settings(detectors=("patterns",), words=(("CASE_ID", ("Nothing", "see")), ("CASE", ("all",)))),
    settings(detectors=("patterns",), instructions=(SYSTEM,)),
    settings(dates=True, hints=True),
)


def forgetful(plan: Settings) -> Hiding:
    looks = Hiding(plan)
    looks.reader._spans = Recent(0, len)
    looks._earlier = EarlierTurns(0)
    return looks


def said(draw: random.Random) -> str:
    name = draw.choice(NAMES)
    first, last = name.split()
    words = {
        "name": name, "first": first, "last": last, "low": f"{first}_{last}".lower(),
        "joined": first + last, "n": draw.randrange(10, 29), "month": draw.choice(MONTHS),
    }  # fmt: skip
    return " ".join(draw.choice(FORMS).format(**words) for _ in range(draw.randrange(1, 4)))


def spelled(draw: random.Random, placeholder: str) -> str:
    joint = draw.choice(("_", "_", " ", "-", "\\_"))
    change = draw.choice((str, str.lower, str.upper))
    return f"see {change(placeholder.replace('_', joint))} there"


async def became(looks: Hiding, ask: Ask, key: bytes) -> Any:
    """What became of `ask`, its placeholders and how values stood; or which error."""
    vault = Vault(key, next(turn.content for turn in ask.chat if turn.role == "user"))
    try:
        hidden = await looks.hide(ask, vault)
    except Exception as error:
        return type(error), str(error)
    return hidden, vault.issued, vault.restorer.written


async def placeholders(plan: Settings, first: str, key: bytes) -> list[str]:
    """Those that names have in a conversation that begins with `first`."""
    names = tuple(Turn("user", f"my name is {name}") for name in NAMES)
    vault = Vault(key, first)
    await Hiding(plan).hide(Ask(chat=(Turn("user", first), *names)), vault)
    return [issued.shown for issued in vault.issued]


@pytest.mark.parametrize("seed", range(40))
async def test_a_turn_is_hidden_as_if_it_were_the_first_time(seed: int) -> None:
    draw = random.Random(seed)
    plan = PLANS[seed % len(PLANS)]
    remembers, forgets = Hiding(plan), forgetful(plan)
    first = said(draw) + " my name is Maud Ottokar, (212) 555-0100"
    chat = [Turn("system", SYSTEM), Turn("user", first)] if seed % 2 else [Turn("user", first)]
    tools = ""
    codes = await placeholders(plan, first, b"one")  # also of values that will come later, or never
    for turn in range(7):
        for by in ("assistant", "user") if turn else ():
            text = said(draw)
            if draw.random() < (0.02, 0.1, 0.4)[seed % 3]:
                text += " " + spelled(draw, draw.choice(codes))
            chat.append(Turn(by, text))  # type: ignore[arg-type]
        match draw.randrange(16):
            case 0 if turn:
                chat[-1] = Turn(chat[-1].role, said(draw))
            case 1 if len(chat) > 6:
                del chat[-3:-1]
            case 2:
                tools = '[{"type": "function", "function": {"name": "ask", "description": "%s"}}]'
                tools %= said(draw).replace("\\", "").replace('"', "'").replace("\n", " ")
        choices = ("London", "Ottokar") if draw.random() < 0.1 else ()
        ask = Ask(chat=tuple(chat), sampling=Sampling(tools=tools, choices=choices))
        for key in (b"one", b"two") if draw.random() < 0.2 else (b"one",):
            assert await became(remembers, ask, key) == await became(forgets, ask, key)


async def test_a_placeholder_that_stood_in_a_turn_before_its_value_came_is_hidden() -> None:
    first = "my name is Maud Ottokar"
    name = (await placeholders(PLAIN, first, b"key"))[1]
    for typed in (name.replace("_", "-"), name.replace("_", " ").lower()):
        remembers = Hiding(PLAIN)
        turns = [Turn("user", first), Turn("user", f"what is {typed} here?")]
        turns.append(Turn("user", f"my name is {NAMES[1]}"))
        for end in range(1, 4):
            vault = Vault(b"key", first)
            hidden = await remembers.hide(Ask(chat=tuple(turns[:end])), vault)
            for turn, said in zip(turns, hidden.chat, strict=False):
                assert vault.restore(said.content) == turn.content
        assert typed not in hidden.chat[1].content


async def both(plan: Settings, *talks: tuple[Vault, Vault, list[Turn]]) -> list[Any]:
    """What becomes of `talks`, one after the other: the same with a memory and without."""
    remembers, forgets = Hiding(plan), forgetful(plan)
    found = []
    for one, other, chat in talks:
        ask = Ask(chat=tuple(chat))
        hidden = await remembers.hide(ask, one)
        assert hidden == await forgets.hide(ask, other)
        assert one.issued == other.issued
        assert one.restorer.written == other.restorer.written
        found.append((hidden, one))
    return found


def twice(conversation: str, *turns: Turn) -> tuple[Vault, Vault, list[Turn]]:
    return Vault(b"key", conversation), Vault(b"key", conversation), list(turns)


async def test_a_placeholder_that_a_new_turn_holds_is_no_longer_the_values() -> None:
    first = "my name is Maud Ottokar"
    (code,) = {c for c in await placeholders(PLAIN, first, b"key") if "PERSON" in c} & {
        issued.shown
        for issued in (await both(PLAIN, twice(first, Turn("user", first))))[0][1].issued
    }
    turns = Turn("user", first), Turn("user", f"and {code} said so")
    found = await both(PLAIN, twice(first, turns[0]), twice(first, *turns))
    assert code in found[0][0].chat[0].content
    assert code not in "".join(turn.content for turn in found[1][0].chat)


async def test_urls_of_the_owners_own_are_known_in_each_turn_and_those_of_the_lm_never() -> None:
    first = Turn("user", "my name is Maud Ottokar")
    link = "see [it](/docs/Ottokar)"
    last = Turn("user", "go on")
    by_lm, own = Turn("assistant", link), Turn("user", link)
    talks = [(first, by_lm), (first, own), (first, by_lm, last), (first, own, last)]
    found = await both(PLAIN, *(twice("caller", *talk) for talk in talks))
    assert [len(vault.restorer.written.urls) for _, vault in found] == [0, 1, 0, 1]


async def test_the_tasks_own_lines_are_so_in_a_system_turn_only() -> None:
    plan = settings(detectors=("patterns",), instructions=("my name is Ines Brandt",))
    line, said = "my name is Ines Brandt", Turn("user", "hello")
    talks = [(Turn("system", line), said), (Turn("user", line), said), (Turn("system", line), said)]
    found = await both(plan, *(twice("caller", *talk) for talk in talks))
    assert ["Ines" in hidden.chat[0].content for hidden, _ in found] == [True, False, True]


async def test_two_conversations_of_one_caller_share_no_placeholder() -> None:
    turns = Turn("user", "my name is Maud Ottokar"), Turn("user", "my name is Karel Novak")
    found = await both(PLAIN, twice("one", *turns), twice("two", *turns), twice("one", *turns))
    shown = [{issued.shown for issued in vault.issued} for _, vault in found]
    assert len(shown[0]) == 2
    assert not shown[0] & shown[1]
    assert shown[0] == shown[2]


def test_a_text_is_unsure_where_placeholders_are_found_in_another_way() -> None:
    span, code = Span(0, 4, "PERSON"), "PERSON_abc234"
    text = CoveredText((span,), (span,), (code,), sure=True)
    known = KnownTexts(b"name", [0], (text,), b"form")
    assert known.still_sure(b"form", [[code]], [[span]]) == [True]
    assert known.still_sure(b"form", [["PERSON_abc235"]], [[span]]) == [False]
    assert known.still_sure(b"form", [[code]], [[Span(5, 9, "PERSON")]]) == [False]
    assert known.still_sure(b"other", [[code]], [[span]]) == [False]


async def test_a_turn_that_was_sure_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    hidden = Vault.hidden

    def noted(self: Vault, text: str, *args: Any, **given: Any) -> Any:
        checked.append(text)
        return hidden(self, text, *args, **given)

    monkeypatch.setattr(Vault, "hidden", noted)
    looks = Hiding(PLAIN)
    turns = [f"my name is {name}" for name in ("Maud Ottokar", "Karel Novak", "Ines Brandt")]
    for end in range(1, 4):
        checked.clear()
        ask = Ask(chat=tuple(Turn("user", text) for text in turns[:end]))
        await looks.hide(ask, Vault(b"key", turns[0]))
        assert checked == turns[end - 1 : end]


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "_REMEMBERED", 60)
    looks, draw = Hiding(PLANS[0]), random.Random(1)
    for _ in range(30):
        await became(looks, Ask(chat=(Turn("user", said(draw)), Turn("user", said(draw)))), b"key")
    kept = looks._earlier._kept
    assert 0 < kept._held <= 60
    assert kept._held == sum(
        1 + len(text.found) + len(text.covered)
        for texts, _ in kept._entries.values()
        for text in texts
    )
