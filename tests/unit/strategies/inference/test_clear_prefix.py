"""Tokens that cross in clear begin the text before the first private value, or there are none."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cosilo.errors import PrivacyError, RejectedError
from cosilo.parties.data_owner import PrivateValue
from cosilo.strategies.inference.clear_prefix import clear_prefix, spelt
from cosilo.types import Chat, Turn, user


class Letters:
    """A token for each letter, and for two letters `ab`; turns end with `.`, which no text may."""

    def prompt(self, chat: Chat) -> Sequence[int]:
        if any(turn.content.endswith(".") for turn in chat):
            raise RejectedError("a turn ends with a stop")
        said = "".join(f"<{turn.role}>{turn.content}." for turn in chat) + "<assistant>"
        return [ord(letter) for letter in said.replace("ab", "\1")]

    def piece(self, token: int) -> bytes:
        return b"ab" if token == 1 else chr(token).encode()


WORDS: Any = Letters()


def session(*values: str, kind: str = "EMAIL_ADDRESS") -> Any:
    async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
        return tuple(PrivateValue(value, kind) for value in values)

    return SimpleNamespace(owner=SimpleNamespace(finds=finds))


async def clear(chat: Chat, *values: str, grid: int = 1, never: Sequence[str] = ()) -> str:
    many = await clear_prefix(session(*values), WORDS, chat, grid=grid, never=never)
    assert many % grid == 0
    return spelt(WORDS, list(WORDS.prompt(chat))[:many])


async def test_what_stands_before_the_first_value_is_in_clear() -> None:
    chat = user("write to Ada of Turing")
    assert await clear(chat, "Turing", "Ada") == "<user>write to "
    assert await clear(chat, "ada") == "<user>write to "
    two = (
        *user("good morning", system="be kind"),
        Turn("assistant", "hello"),
        Turn("user", "I am Z9"),
    )
    assert (await clear(two, "Z9")).endswith("<assistant>hello.<user>I am ")


async def test_the_number_is_one_of_a_grid() -> None:
    chat = user("write to Ada")
    assert await clear(chat, "Ada", grid=8) == "<user>wr"
    assert await clear(chat, "Ada", grid=16) == ""


@pytest.mark.parametrize("value", ["Bo", "bb", "b"])
async def test_only_the_number_depends_on_the_value(value: str) -> None:
    """A token that holds a value's first letter and the one before it is in secret."""
    chat = user(f"write a{value} and more")
    found = await clear(chat, value)
    assert "<user>write a".startswith(found)
    assert found == ("<user>write a" if value == "Bo" else "<user>write ")


async def test_own_words_are_private_and_so_is_what_has_the_form_of_an_identifier() -> None:
    assert await clear(user("the plan is Blue Whale"), never=["blue whale"]) == "<user>the plan is "
    unnamed = await clear(user("the plan of Ada"), "Ada", never=["blue whale"])
    assert unnamed == "<user>the plan of "
    assert await clear(user("card 4716320984 of Ada"), "Ada") == "<user>card "


async def test_names_in_the_tasks_own_lines_are_none() -> None:
    """Unless they are found elsewhere, too, or are identifiers; and in a system turn alone."""
    own = "Labels:\n- Bank"

    async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
        text = " ".join(turn.content for turn in chat)
        return tuple(PrivateValue(name, "PLACE") for name in ("Bank", "Ada") if name in text)

    owner: Any = SimpleNamespace(owner=SimpleNamespace(finds=finds))

    async def clear(system: str, said: str) -> str:
        chat = user(said, system=system)
        many = await clear_prefix(owner, WORDS, chat, instructions=[own], grid=1)
        return spelt(WORDS, list(WORDS.prompt(chat))[:many])

    assert (await clear(own, "I am Ada")).endswith("<user>I am ")
    assert (await clear(f"{own}\nAda asks", "I am Ada")).endswith("- Bank\n")
    assert (await clear(own, "Bank of Ada")).endswith("- ")
    assert await clear("", own) == "<user>Labels:\n- "
    hidden = "Labels:\n- card 4716320984"
    chat = user("I am Ada", system=hidden)
    many = await clear_prefix(owner, WORDS, chat, instructions=[hidden], grid=1)
    assert spelt(WORDS, list(WORDS.prompt(chat))[:many]).endswith("- card ")


async def test_own_words_are_private_over_a_break_of_a_line() -> None:
    chat = user("the plan is Blue\nWhale@sea.org")
    assert await clear(chat, never=["blue whale"]) == "<user>the plan is "


async def test_a_value_of_signs_alone_is_private() -> None:
    assert await clear(user("password !!@@## of Ada"), "!!@@##", "Ada") == "<user>password "


async def test_what_a_value_has_in_common_with_the_end_of_a_turn_is_secret() -> None:
    assert await clear(user("it costs .5 a piece"), ".5") == "<user>it costs "
    assert await clear(user("it costs .<assistant>"), ".<assistant>") == "<user>it costs "


async def test_no_half_of_a_value_is_left_by_the_grid() -> None:
    """What is written otherwise than where it was found is searched before tokens are rounded down."""
    chat = user("see Blue-Whale, the Blue Whale")
    for grid in (1, 14, 16):
        assert await clear(chat, "Blue Whale", grid=grid) == ""


@pytest.mark.parametrize(
    ("chat", "values"),
    [
        (user("write to nobody"), ()),  # what is not found may be there
        (user("write to nobody"), (" ",)),
        (user("write to Ada"), ("Ada", "Grace")),  # found, and stands elsewhere
        ((Turn("user", "write to Ada", name="Grace"),), ("Ada",)),
        ((Turn("user", "write\0 to Ada"),), ("Ada",)),
        (user("we saw Zbigniev Kowalczyk, that is Zbigniew Kowalczyk"), ("Zbigniew Kowalczyk",)),
        (user("a plan"), ()),
        (user("a stop.Ada"), ("Ada",)),  # the template takes no chat that ends there
    ],
)
async def test_in_doubt_all_is_secret(chat: Chat, values: tuple[str, ...]) -> None:
    assert await clear_prefix(session(*values), WORDS, chat, grid=1) == 0


async def test_two_tokens_are_secret_at_least() -> None:
    class Bare(Letters):
        def prompt(self, chat: Chat) -> Sequence[int]:
            return [ord(letter) for turn in chat for letter in turn.content]

    bare: Any = Bare()
    assert await clear_prefix(session("7"), bare, user("floor 17"), grid=1) == 6
    assert await clear_prefix(session("17"), bare, user("floor 17"), grid=1) == 6
    assert await clear_prefix(session("or 17"), bare, user("floor 17"), grid=1) == 3


async def test_where_the_detectors_fail_nothing_is_cut() -> None:
    async def fails(chat: Chat) -> tuple[PrivateValue, ...]:
        raise PrivacyError("they failed")

    broken: Any = SimpleNamespace(owner=SimpleNamespace(finds=fails))
    nobody: Any = SimpleNamespace(owner=SimpleNamespace(finds=None))
    for each in (broken, nobody):
        with pytest.raises(PrivacyError):
            await clear_prefix(each, WORDS, user("write to Ada"), grid=1)
