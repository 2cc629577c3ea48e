"""What may leave of a text about a private original."""

from __future__ import annotations

import pytest

from cosilo.errors import PrivacyError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner, PrivateValue
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session
from cosilo.strategies.inference.ends import Large
from cosilo.strategies.inference.leaving import (
    Private,
    PrivateReader,
    common_words,
    identifiers,
    unusual,
    vocabulary_words,
)
from cosilo.types import Chat, Demonstration, ToolCall, Turn, user

ADA = PrivateValue("Ada Lovelace", "PERSON")


def opened(*found: PrivateValue) -> Session:
    async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
        said = " ".join(turn.content for turn in chat)
        return tuple(f for f in found if f.value in said)

    owner = DataOwner(ScriptedModel(), finds=finds)
    return open_session(owner, LMOwner(ScriptedModel()), Large())


@pytest.mark.parametrize(
    "written",
    [
        "Who is Ada Lovelace?",
        "who is ADA  lovelace?",
        "Who is Ada-Lovelace?",
        "Who is Ada Lovelacе's neighbour, Lovelace?",  # a letter of another script, and a part
        "Who is Lovelase, Ada Lovelase?",
        "Is it Ada's?",
    ],
)
async def test_a_value_does_not_leave_however_it_is_written(written: str) -> None:
    private = await PrivateReader().read(opened(ADA), user("Write to Ada Lovelace"))
    assert private.fault(written) == "a private value stands in it"


CARD = PrivateValue("4711 2299 8877", "CARD")


@pytest.mark.parametrize(
    "written",
    [
        "about QWRhIExvdmVsYWNl",
        "about UVdSaElFeHZkbVZzWVdObA==",  # that once more
        "about 4c 6f 76 65 6c 61 63 65",
        "about 0x4c6f76656c616365",
        "about %4C%6F%76elace",
        "about &#76;&#111;velace",
        r"about \u004covelace",
        "about Lоvеlасе",  # four letters of another script
        "about MsLovelaceAndHers",
        "about ecalevol",
        "about Ybirynpr",
        "about L-o-v-e-l-a-c-e",
        "card four seven one one, two two nine nine, eight eight seven seven",
    ],
)
async def test_a_value_does_not_leave_however_it_is_encoded(written: str) -> None:
    chat = user("Write to Ada Lovelace about 4711 2299 8877")
    private = await PrivateReader().read(opened(ADA, CARD), chat)
    assert private.fault(written) == "a private value stands in it"


@pytest.mark.parametrize(
    "written",
    [
        "How does one write to somebody about one or two cards, and three more?",
        "Is a decade of faded facades, or 100 % & more, <b>internationalisation</b> and deadbeef?",
        "Кто может помочь мне с письмом? Σε ευχαριστώ.",
        "What does the header Content-Type: application/json mean?",
    ],
)
async def test_what_only_looks_encoded_leaves(written: str) -> None:
    chat = user("Write to Ada Lovelace about 4711 2299 8877")
    private = await PrivateReader().read(opened(ADA, CARD), chat)
    assert private.fault(written) == ""


async def test_other_words_leave() -> None:
    private = await PrivateReader().read(opened(ADA), user("Write to Ada Lovelace about it"))
    assert private.fault("How does one write to somebody about it?") == ""
    assert private.fault(" \n… ") == "it is empty"


async def test_a_finding_of_any_turn_counts_and_so_does_a_call() -> None:
    call = ToolCall("1", "find", '{"address": "ada@example.org"}')
    chat = (Turn("assistant", "Ada Lovelace?", tool_calls=(call,)), *user("yes, her"))
    private = await PrivateReader().read(opened(ADA), chat)
    assert private.fault("about Ada")
    assert private.fault("to ada@example.org")


async def test_no_long_run_of_the_original_leaves() -> None:
    original = "one two three four five six seven eight"
    private = await PrivateReader(verbatim=4).read(opened(), user(original))
    assert private.fault("He said: two, three FOUR five.") == ""
    assert private.fault("He said: two, three FOUR five – six.") == (
        "more than 4 words in a row are the original's"
    )
    assert (await PrivateReader().read(opened(), user(original))).fault(original) == ""


async def test_runs_are_those_of_the_context_where_one_is_named() -> None:
    reading = PrivateReader(verbatim=2)
    told, context = "please write a letter", user("she was ill in bed")
    chat = user(f"{told} {context[0].content}")
    private = await reading.read(opened(), chat, context=context)
    assert private.fault(told) == ""
    assert private.fault("was ill in")


async def test_own_words_never_leave() -> None:
    private = await PrivateReader(never=("blue falcon",)).read(opened(), user("anything"))
    assert private.fault("of Blue-Falcon")


async def test_an_owner_who_cannot_look_sends_nothing() -> None:
    session = Session(DataOwner(ScriptedModel()), opened().lm)
    with pytest.raises(PrivacyError, match="no way to find"):
        await PrivateReader().read(session, user("hello"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("to me@example.org, or https://e.example/a?b=1.", ["me@example.org", "https://e.example/a?b=1"]),
        ("number 4930123, order KX-77-B!", ["4930123", "KX-77-B"]),
        ("in 2021, 3 of 10 at 9:30, chapter 12", []),
    ],
)  # fmt: skip
def test_identifiers_are_known_by_their_form(text: str, values: list[str]) -> None:
    assert [f.value for f in identifiers(text)] == values


def test_unusual_words_are_those_that_records_do_not_share() -> None:
    def record(i: int, text: str, reply: str) -> Demonstration:
        return Demonstration(str(i), user(text), reply)

    known = common_words(
        [record(1, "see my friend", "gladly"), record(2, "my Friend sees", "gladly my friend")]
    )
    assert known == {"my", "gladly", "friend"}
    found = unusual(
        "My friend Kim Ode, I'm told, sees x2 of 2021 gladly. Gladly! Friend Ode", known
    )
    assert [f.value for f in found] == ["Kim Ode", "told", "sees x2 of", "Ode"]


def test_a_word_with_a_capital_is_common_where_one_more_record_has_it() -> None:
    records = [Demonstration(str(i), user("from Rome or b2b"), "") for i in range(3)]
    assert common_words(records) == {"from", "Rome", "or", "b2b"}
    assert common_words(records[1:]) == {"from", "or"}


async def test_unusual_words_are_looked_for_as_they_are() -> None:
    reading = PrivateReader(common=frozenset(("see", "my")))
    private = await reading.read(opened(), user("see my ferret"))
    assert private.fault("a ferret?") == "a word stands in it that is not known to be common"
    assert private.fault("a ferre?") == ""


def test_the_share_is_of_all_values() -> None:
    private = Private([ADA, PrivateValue("Rome", "PLACE")], [], verbatim=None)
    assert [private.share(t) for t in ("", "Rome", "Ada Lovelace in Rome")] == [0.0, 0.5, 1.0]
    assert Private([], [], verbatim=None).share("Rome") == 0.0


def test_only_the_frequent_words_of_a_vocabulary_are_common_with_a_capital() -> None:
    pieces = [b" the", b" London", b" a1", b"ing", b"", b" \xff", *[b""] * 9_994, b" rarely"]
    assert vocabulary_words(pieces) == {"the", "The", "rarely"}


def test_a_value_of_signs_alone_stands_where_it_is_written() -> None:
    private = Private(
        [PrivateValue("!!@@##", "SECRET"), PrivateValue(" ", "SECRET")], (), verbatim=None
    )
    assert private.fault("the password is !!@@## now") == "a private value stands in it"
    assert private.fault("the password is !!@@ now") == ""
