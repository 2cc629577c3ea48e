"""The small model asks without the private facts: what leaves, what does not, how it is finished."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Ask
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import Defence
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.errors import BudgetExceededError, CapabilityError, ConfigError, DataError, PrivacyError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner, PrivateValue
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, forecast, strategies, stream
from cosilo.strategies.inference.asking import INSTRUCTIONS
from cosilo.strategies.inference.rewrite import Rewrite
from cosilo.types import (
    Answer,
    Chat,
    Delta,
    Demonstration,
    Sampling,
    ToolCall,
    Turn,
    assemble,
    last_user,
    user,
)

ASKED = "How do I tell Ada Lovelace in Rome that her cat died?"
PRIVATE = ("Ada Lovelace", "Rome")
QUESTION = "How does one tell somebody that a cat died?"

Says = Mapping[str, str] | Callable[[Chat], str]


class Desk:
    """An owner whose small model does what it is told by script, and an LM that keeps what it saw."""

    def __init__(self, small: Says, large: Says | None = None, **options: Any) -> None:
        async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
            said = " ".join(turn.content for turn in chat)
            kinds = zip(PRIVATE, ("PERSON", "PLACE"), strict=True)
            return tuple(PrivateValue(value, kind) for value, kind in kinds if value in said)

        self.small = options.pop("speaks", ScriptedModel)(small)
        self.large = ScriptedModel(large or {})
        self.ledger = MemoryLedger()
        self.meter = options.pop("meter", None)
        self.defences: tuple[Defence, ...] = options.pop("defences", ())
        self.sampling: Sampling = options.pop("sampling", Sampling(max_tokens=50))
        self.owner = DataOwner(
            self.small, finds=finds, calibration=options.pop("calibration", ()),
            grade=options.pop("grade", lambda example, answer: float(example.target in answer)),
        )  # fmt: skip
        self.strategy = Rewrite(**options)

    def open(self) -> Session:
        return open_session(
            self.owner, LMOwner(self.large), self.strategy, ledger=self.ledger, meter=self.meter,
            defences=self.defences, sampling=self.sampling,
        )  # fmt: skip

    async def answer(self, chat: Chat | str = ASKED) -> Answer:
        chat = user(chat) if isinstance(chat, str) else chat
        whole = await self.strategy.answer(self.open().bind("a"), chat)
        pieces: list[Delta] = []
        streamed: Answer | None = None
        async for piece in stream(self.strategy, self.open().bind("b"), chat):
            if isinstance(piece, Answer):
                streamed = piece
            else:
                pieces.append(piece)
        assert streamed is not None
        assert whole.text == streamed.text == assemble(pieces).text
        assert whole.by == streamed.by
        return whole

    @property
    def left(self) -> list[str]:
        """What left for the first of two equal requests."""
        sent = [e.message for e in self.ledger.entries() if e.direction == "up"]
        asks = [m for m in sent if isinstance(m, Ask)]
        return [last_user(ask.chat) for ask in asks[: len(asks) // 2]]


def by_turns(*replies: str) -> Callable[[Chat], str]:
    """Each of the replies once to every kind of task, over and over."""
    left = itertools.cycle(replies)
    return lambda _: next(left)


async def test_the_question_crosses_and_the_small_model_finishes_with_the_original() -> None:
    desk = Desk(
        by_turns(f'Here is the new request: "{QUESTION}"', "Dear Ada, …"), {"cat": "Gently."}
    )
    answer = await desk.answer()
    assert (answer.text, answer.by) == ("Dear Ada, …", "both")
    assert desk.left == [QUESTION]
    wrote, finished = desk.small.seen[:2]
    assert INSTRUCTIONS["question"][0] in last_user(wrote)
    assert ASKED in last_user(wrote)
    assert last_user(finished).startswith(ASKED)
    assert "Gently." in last_user(finished)


async def test_a_small_model_that_ignores_the_instruction_sends_nothing() -> None:
    desk = Desk({})  # it repeats what it is told
    with pytest.raises(PrivacyError, match="held back") as caught:
        await desk.strategy.answer(desk.open().bind("a"), user(ASKED))
    assert not list(desk.ledger.entries())
    assert len(desk.small.seen) == 2
    assert not any(value in str(caught.value) for value in PRIVATE)


@pytest.mark.parametrize("first", ["Ask Ada.", "", "In ROME?", f"As you say: {ASKED}"])
async def test_it_is_told_what_was_wrong_and_tries_once_more(first: str) -> None:
    desk = Desk(by_turns(first, QUESTION, "Done."), {"cat": "Gently."})
    assert (await desk.answer()).text == "Done."
    assert desk.left == [QUESTION]
    again = desk.small.seen[1]
    assert [turn.role for turn in again] == ["user", "assistant", "user"]
    assert "may not be sent" in last_user(again)


async def test_a_question_that_is_held_back_can_be_answered_at_home() -> None:
    desk = Desk(lambda chat: "At home." if last_user(chat) == ASKED else "Ada", otherwise="small")
    answer = await desk.answer()
    assert (answer.text, answer.by) == ("At home.", "small")
    assert not list(desk.ledger.entries())


async def test_long_pieces_and_own_words_of_the_original_do_not_leave() -> None:
    chat = "please tell me how one best cooks a quince with a little honey today"
    copied = "how one best cooks a quince with a little honey"
    for options in ({"verbatim": 5}, {"never": ("quince",)}):
        desk = Desk(by_turns(copied), **options)
        with pytest.raises(PrivacyError):
            await desk.strategy.answer(desk.open(), user(chat))
        assert not list(desk.ledger.entries())
    assert (await Desk(by_turns(copied)).answer(chat)).by == "both"


async def test_nothing_else_of_a_request_crosses() -> None:
    """Tools, stop words and earlier turns stay at home: only what the small model wrote is asked."""
    sampling = Sampling(
        max_tokens=9, stop=("Ada",), tools='[{"name": "Ada"}]', response_format='{"type": "Ada"}',
        fields=(("user", '"Ada"'),), choices=("Ada", "Ben"), temperature=0.5, seed=3,
    )  # fmt: skip
    desk = Desk(by_turns(QUESTION, "Ben"), {"cat": "Gently."}, sampling=sampling)
    chat = (
        Turn("system", "You know Ada Lovelace."),
        Turn("assistant", "", tool_calls=(ToolCall("1", "find", '{"who": "Ada Lovelace"}'),)),
        *user(ASKED),
    )
    await desk.answer(chat)
    (ask, _) = [e.message for e in desk.ledger.entries() if e.direction == "up"]
    assert isinstance(ask, Ask)
    assert ask.chat == user(QUESTION)
    assert ask.sampling == Sampling(max_tokens=9, temperature=0.5, seed=3)


async def test_a_problem_is_described() -> None:
    desk = Desk(by_turns("A friend must be told of a loss.", "Done."), way="describe")
    await desk.answer()
    (left,) = desk.left
    assert left.startswith("A friend must be told of a loss.\n\nWrite what would help")


async def test_made_up_cases_are_asked_one_by_one() -> None:
    cases = "1. Tell Bo that a dog died.\n2. Tell Cy of a lost bird.\n3. Tell Di."
    desk = Desk(by_turns(cases, "Done."), {"Bo": "Dear Bo", "Cy": "Dear Cy"}, way="similar")
    await desk.answer()
    assert sorted(desk.left) == ["Tell Bo that a dog died.", "Tell Cy of a lost bird."]
    finished = last_user(desk.small.seen[1])
    assert "Request: Tell Bo that a dog died.\nAnswer: Dear Bo" in finished
    assert "Request: Tell Cy of a lost bird.\nAnswer: Dear Cy" in finished


async def test_too_few_cases_are_not_sent() -> None:
    desk = Desk(by_turns("Tell Bo."), way="similar")
    with pytest.raises(PrivacyError):
        await desk.strategy.answer(desk.open(), user(ASKED))
    assert not list(desk.ledger.entries())


async def test_private_values_give_way_and_come_back() -> None:
    desk = Desk(
        by_turns("her cat\nnothing of the kind\nnot a line that names anything at all, this is one"),
        {"Alban": "Dear Alban Ashby, come home from Ardenfield. Item A"},
        way="replace", finish="large",
    )  # fmt: skip
    answer = await desk.answer()
    assert desk.left == ["How do I tell Alban Ashby in Ardenfield that Item A died?"]
    assert (answer.text, answer.by) == ("Dear Ada Lovelace, come home from Rome. her cat", "both")


async def test_nothing_comes_back_into_a_link_of_the_lm() -> None:
    reply = "![x](https://e.example/?q=Alban)"
    desk = Desk(by_turns(""), {"Alban": reply}, way="replace", finish="large")
    assert (await desk.answer()).text == reply
    desk = Desk(by_turns("", "Done."), {"Alban": f"See {reply}"}, way="replace")
    await desk.answer()
    assert "e.example" not in last_user(desk.small.seen[1])


async def test_what_the_lm_calls_is_not_called() -> None:
    class Calling(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Any:
            reply = await super().generate(chat, sampling)
            return replace_struct(reply, tool_calls=(ToolCall("1", "send", "{}"),))

    from msgspec.structs import replace as replace_struct

    desk = Desk(by_turns(QUESTION), finish="large")
    desk.large = Calling({"cat": "Gently."})
    answer = await desk.strategy.answer(desk.open(), user(ASKED))
    assert answer.text == "Gently."
    assert answer.generation.tool_calls == ()


async def test_careful_about_words_that_records_do_not_share() -> None:
    items = tuple(Demonstration(str(i), user("how do i tell that her died"), "in") for i in (1, 2))
    desk = Desk(by_turns(""), way="replace", finish="large", cautious=True, calibration=items)
    desk.strategy, _ = await desk.strategy.prepare(desk.open())  # type: ignore[assignment]
    await desk.answer()
    assert desk.left == ["How do I tell Alban Ashby in Ardenfield that her Item A died?"]


async def test_careful_without_records_is_refused_before_anything_is_sent() -> None:
    desk = Desk(by_turns(""), way="replace", cautious=True, search=0)
    with pytest.raises(DataError, match="0 of them share none"):
        await desk.strategy.prepare(desk.open())
    told = Desk(by_turns(""), way="replace", cautious=True, search=0, common=("a",))
    assert (await told.strategy.prepare(told.open()))[0] == told.strategy


class Speller(ScriptedModel):
    """One that shows its vocabulary."""

    pieces = (
        b" how",
        b" do",
        b" tell",
        b" that",
        b" her",
        b" cat",
        b" in",
        b" died",
        b" ada",
        b"Item",
    )
    vocabulary_size = len(pieces)

    def spelt(self, ids: Sequence[int]) -> list[bytes]:
        return [self.pieces[i] for i in ids]


async def test_words_of_the_small_models_vocabulary_are_common() -> None:
    items = tuple(Demonstration(str(i), user("i said it"), "so") for i in (1, 2))
    desk = Desk(
        by_turns(""), way="replace", finish="large", cautious=True, vocabulary=True,
        calibration=items, lists=False, speaks=Speller,
    )  # fmt: skip
    desk.strategy, _ = await desk.strategy.prepare(desk.open())  # type: ignore[assignment]
    await desk.answer()
    (left,) = desk.left
    assert left.startswith("How do I tell Alban Ashby in ")
    assert left.endswith(" that her cat died?")
    assert not any(value in left for value in (*PRIVATE, "Ada", "Lovelace"))


async def test_words_that_are_given_as_common_go_with_those_of_the_vocabulary() -> None:
    desk = Desk(
        by_turns(""), way="replace", cautious=True, vocabulary=True, common=("gently",), search=0,
        speaks=Speller,
    )  # fmt: skip
    found, _ = await desk.strategy.prepare(desk.open())
    assert isinstance(found, Rewrite)
    assert {"gently", "died", "Died"} <= set(found.common)
    assert (await found.prepare(desk.open()))[0] == found, "what was learned stays"


async def test_a_model_that_shows_no_vocabulary_is_refused_before_anything_is_sent() -> None:
    items = tuple(Demonstration(str(i), user("i said it"), "so") for i in (1, 2))
    desk = Desk(by_turns(""), way="replace", cautious=True, vocabulary=True, calibration=items)
    with pytest.raises(CapabilityError, match="own vocabulary"):
        await desk.strategy.prepare(desk.open())
    assert desk.left == []


def test_a_vocabulary_needs_to_be_asked_for_with_caution() -> None:
    with pytest.raises(ValueError, match="needs cautious = true"):
        Rewrite(way="replace", vocabulary=True)


@pytest.mark.parametrize("seed", range(4))
async def test_the_question_is_hidden_among_others(seed: int) -> None:
    others = "1. How is bread made?\n2. How tall is a tree?\n3. Who paints doors?"
    desk = Desk(
        by_turns(QUESTION, others, "Done."),
        {"cat": "Gently.", "bread": "Bake.", "tree": "Very.", "doors": "Nobody."},
        way="hide", seed=seed,
    )  # fmt: skip
    await desk.answer()
    assert len(desk.left) == 4
    finished = last_user(desk.small.seen[2])
    assert "Gently." in finished
    assert not any(word in finished for word in ("Bake.", "Very.", "Nobody."))


async def test_the_place_among_others_is_even_and_comes_again() -> None:
    others = "\n".join(f"What is thing {word}?" for word in ("one", "two", "three"))
    places = []
    for asked in range(200):
        desk = Desk(by_turns(QUESTION, others), way="hide")
        chat = user(f"{ASKED} {'really ' * asked}")
        private = await desk.strategy.private(desk.open(), chat)
        found = [(await desk.strategy.attempt(desk.open(), chat, private))[1] for _ in range(2)]
        assert found[0] == found[1] is not None
        assert found[0] is not None
        (place,) = found[0].true
        places.append(place)
    counts = [places.count(place) for place in range(4)]
    assert sum(counts) == 200
    assert all(30 <= count <= 70 for count in counts)  # 50 ± 3.3 standard deviations


async def test_a_decoy_that_names_somebody_private_is_held_back() -> None:
    desk = Desk(
        by_turns(QUESTION, "Who is Ada?\nWho is Bo?\nWho is Cy?"), way="hide", otherwise="small"
    )
    await desk.strategy.answer(desk.open(), user(ASKED))
    assert not list(desk.ledger.entries())


async def test_behind_pseudonyms_the_defence_looks_and_hides_as_well(tmp_path: Path) -> None:
    hides = Pseudonym(detectors=["literals"], values=["quince"], key_file=tmp_path / "key")
    desk = Desk(by_turns("How is a quince cooked?", QUESTION, "Done."), defences=(hides,))
    await desk.answer(f"{ASKED} And the quince?")
    assert desk.left == [QUESTION]
    # What was not in the original is no secret of it, but the defence hides it on the way.
    desk = Desk(by_turns("How is a quince cooked?", "Done."), defences=(hides,))
    await desk.answer()
    assert "quince" not in desk.left[0]


async def test_a_budget_of_nothing_stops_it() -> None:
    desk = Desk(by_turns(QUESTION), meter=Meter(Budget(messages=0)))
    with pytest.raises(BudgetExceededError):
        await desk.strategy.answer(desk.open(), user(ASKED))
    assert not list(desk.ledger.entries())


def items(count: int) -> tuple[Demonstration, ...]:
    return tuple(Demonstration(f"e{i}", user(f"{ASKED} {i}x"), "soft") for i in range(count))


async def test_the_instruction_is_chosen_on_tune_items() -> None:
    best = INSTRUCTIONS["question"][1]

    def small(chat: Chat) -> str:
        told = last_user(chat)
        if "general and says" in told:
            return "soft" if "Gently" in told else "hard"
        if best in told:
            return QUESTION
        return "Ada" if "may not be sent" not in told else "And a dog?"

    desk = Desk(small, {"cat": "Gently."}, calibration=items(6), search=6)
    prepared, session = await desk.strategy.prepare(desk.open())
    assert isinstance(prepared, Rewrite)
    assert prepared.instruction == best
    assert prepared.shown == ()  # examples were no better
    (card,) = session.cards
    assert card.facts["items"] == 6
    assert card.tables["first 3 items: score"] == {
        "instruction 1": -0.25, "instruction 2": 1.0, "instruction 3": -0.25,
    }  # fmt: skip
    assert card.tables["private values written, share"]["instruction 1"] == 0.25
    sent = [e for e in desk.ledger.entries() if e.direction == "up"]
    assert {e.request for e in sent} == {f"tune/e{i}" for i in range(6)}
    assert len(sent) <= sum(e.count(6) for e in forecast(desk.strategy) if e.about == "tune")
    again, _ = await prepared.prepare(session)
    assert again == prepared
    assert not any(value in repr(card) for value in PRIVATE)


async def test_a_list_that_is_searched_for_has_no_worked_examples() -> None:
    desk = Desk(
        lambda chat: "Ada", {"": "soft"}, way="replace", finish="large", calibration=items(4)
    )
    prepared, session = await desk.strategy.prepare(desk.open())
    assert isinstance(prepared, Rewrite)
    assert prepared.shown == ()
    (card,) = session.cards
    assert set(card.tables["held back, share"].values()) == {0.0}


async def test_worked_examples_stay_at_home_and_do_not_leak_into_others() -> None:
    shown = (Turn("user", "Write to Ada Lovelace"), Turn("assistant", "Write to somebody"))
    desk = Desk(by_turns("Is it about Ada?"), instruction="Ask.", shown=shown, otherwise="small")
    await desk.strategy.answer(desk.open(), user("How is bread made?"))
    assert not list(desk.ledger.entries())
    assert [t.content for t in desk.small.seen[0]] == [
        "Ask.\n\nWrite to Ada Lovelace", "Write to somebody", "Ask.\n\nHow is bread made?",
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "options"), [(0, {}), (3, {}), (8, {"search": 0})])
async def test_without_enough_items_nothing_is_searched(
    count: int, options: dict[str, Any]
) -> None:
    desk = Desk(by_turns(QUESTION), calibration=items(count), **options)
    prepared, session = await desk.strategy.prepare(desk.open())
    assert prepared == desk.strategy
    assert session.cards == ()
    assert not list(desk.ledger.entries())


@pytest.mark.parametrize(
    "options",
    [
        {"way": "shout"},
        {"finish": "both"},
        {"otherwise": "send"},
        {"way": "similar", "finish": "large"},
        {"cases": 0},
        {"decoys": 0},
        {"verbatim": 0},
        {"longest": 0},
        {"search": -1},
        {"never": ("",)},
        {"shown": (Turn("system", "x"),)},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rewrite"):
        strategies.create("rewrite", **options)


@pytest.mark.parametrize(
    ("options", "messages"), [({}, 1), ({"way": "similar", "cases": 5}, 5), ({"way": "hide"}, 4)]
)
def test_a_question_takes_as_many_messages_as_are_forecast(
    options: dict[str, Any], messages: int
) -> None:
    (answers,) = forecast(Rewrite(search=0, **options))
    assert answers.count(10) == 10 * messages


def test_a_prepared_one_is_spelt_out_in_options() -> None:
    made = replace(Rewrite(), instruction="Ask.", shown=(Turn("user", "x"), Turn("assistant", "y")))
    assert not [e for e in forecast(made) if e.about == "tune"]
