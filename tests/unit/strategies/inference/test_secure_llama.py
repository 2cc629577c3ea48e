"""What is refused before anything is computed, and what a result is read as."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from cosilo.boundary.messages import AskJoint, JointOffered, Message
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    EngineError,
    RejectedError,
    UnexpectedReplyError,
)
from cosilo.models.joint import JointPart, Wanted
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.joint_llama import part_of
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.inference.joint_room import Computed, JointRoom
from cosilo.strategies.inference.secure_forward import clear_card, one_hot
from cosilo.strategies.inference.secure_llama import (
    Prompt,
    Rooms,
    SecureLlama,
    answer_of,
    first_tokens,
    opened,
    prompt_of,
)
from cosilo.types import Sampling, user
from joint_llama import program
from joint_runs import GIVEN, Holds, Road, Taking, owner_of, scripted_engine
from secure_llamas import CHATS, LABELS, SHOWS, adapted, base, with_terms
from secure_llamas import opened as session_of


class Offering:
    """An LM's owner that offers what it has, changed."""

    name, exposes = "lm", SHOWS

    def __init__(self, model: Any, **change: Any) -> None:
        self.model, self.change = model, change

    async def handle(self, message: Message) -> Message:
        assert isinstance(message, AskJoint)
        part = part_of(self.model, message.wanted)
        shape = msgspec.json.encode({**part.shape, **self.change}).decode()
        return JointOffered(offer="0" * 64, program=part.program, shape=shape)

    def handle_stream(self, ask: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    "change",
    [{"ends": "logits"}, {"candidates": [1]}, {"layers": 2}, {"tokens": 16}, {"vocabulary": 9}],
)
async def test_an_offer_of_something_else_is_refused(tmp_path: Path, change: Any) -> None:
    lm: Any = Offering(with_terms(adapted(base(), [1]), tmp_path), **change)
    strategy = strategies.create("secure_adapter", lengths=(64,))
    sampling = Sampling(choices=LABELS)
    session = open_session(DataOwner(base()), lm, strategy, sampling=sampling)
    with pytest.raises(UnexpectedReplyError, match=f"of other {next(iter(change))} than"):
        await strategy.prepare(session)


async def test_another_base_at_home_is_refused(tmp_path: Path) -> None:
    lm: Any = Offering(with_terms(adapted(base(), [1]), tmp_path))
    strategy = strategies.create("secure_adapter", lengths=(64,))
    session = open_session(DataOwner(base(1)), lm, strategy, sampling=Sampling(choices=LABELS))
    with pytest.raises(CapabilityError, match="must begin with the same base model"):
        await strategy.prepare(session)


@pytest.mark.parametrize("name", ["secure_adapter", "secure_forward"])
async def test_a_small_model_that_shows_no_tokens_is_refused(tmp_path: Path, name: str) -> None:
    strategy = strategies.create(name)
    lm: Any = Offering(with_terms(base(), tmp_path, whole=True))
    session = open_session(DataOwner(base()), lm, strategy)
    object.__setattr__(session.owner, "model", ScriptedModel())
    with pytest.raises(CapabilityError, match="'torch'"):
        await strategy.prepare(session)


async def test_a_base_that_has_not_more_layers_is_refused(tmp_path: Path) -> None:
    strategy = strategies.create("secure_adapter", layers=2)
    lm: Any = Offering(with_terms(base(), tmp_path))
    session = open_session(DataOwner(base()), lm, strategy)
    with pytest.raises(CapabilityError, match="which has 2"):
        await strategy.prepare(session)


@pytest.mark.parametrize(
    "options", [{"lengths": ()}, {"lengths": (16, 16)}, {"lengths": (16, 32, 64)}, {"lengths": (1,)},
                {"step_s": 0}]
)  # fmt: skip
@pytest.mark.parametrize("name", ["secure_adapter", "secure_forward"])
def test_options_that_cannot_be_are_refused(name: str, options: Any) -> None:
    with pytest.raises(ConfigError, match=r"lengths|step_s"):
        strategies.create(name, **options)
    with pytest.raises(ConfigError, match="layers"):
        strategies.create("secure_adapter", layers=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"protect": "some"}, "neither 'all' nor 'span'"),
        ({"never": ("x",)}, "needs protect = 'span'"),
        ({"protect": "span", "never": (" ",)}, "an empty text"),
        ({"protect": "span", "grid": 0}, "grid"),
    ],
)
def test_options_of_a_span_that_cannot_be_are_refused(options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        strategies.create("secure_forward", **options)


async def test_a_prefix_that_was_not_wanted_is_refused(tmp_path: Path) -> None:
    lm: Any = Offering(with_terms(base(), tmp_path, whole=True), before=8)
    strategy = strategies.create("secure_forward")
    session = open_session(DataOwner(base()), lm, strategy, sampling=Sampling(choices=LABELS))
    with pytest.raises(UnexpectedReplyError, match="of other before than"):
        await strategy.prepare(session)


async def test_the_card_says_what_of_the_pool_would_cross_in_clear(tmp_path: Path) -> None:
    """Nothing is sent for a pool that is empty: which run would be opened is not known."""
    lm: Any = Offering(with_terms(base(), tmp_path, whole=True))
    strategy = strategies.create("secure_forward", protect="span", never=("delivery",), grid=4)
    session = open_session(DataOwner(base()), lm, strategy, sampling=Sampling(choices=LABELS))
    _, found = await strategy.prepare(session)
    (card,) = found.cards
    assert card.facts == {
        "prompts": 0, "prompts of which some crosses": 0, "tokens": 0, "tokens in clear": 0
    }  # fmt: skip
    assert "whatever the detectors miss" in card.warning
    assert session.lm.totals.messages == 0
    some = clear_card([Prompt(tuple(range(9)), 32, (), 4), Prompt((1, 2), 32, ())])
    assert list(some.facts.values()) == [2, 1, 11, 4]


def test_each_answer_may_open_a_run_of_a_span() -> None:
    """Once beforehand, and for each answer, ending the one before."""
    usual = strategies.create("secure_forward").forecast()
    span = strategies.create("secure_forward", protect="span").forecast()

    def about(answers: str, found: Any) -> list[str]:
        return [each.message.__name__ for each in found if each.about == answers]

    run = ["AskJoint", "OpenJoint", "Joint", "CloseJoint"]
    assert about("once", span) == about("once", usual) == run
    assert about("answers", span) == [*run, "Joint"]
    assert about("answers", usual) == ["Joint"]


def test_choices_are_told_apart_by_their_first_tokens() -> None:
    found = first_tokens(base(), LABELS, by="it")
    assert len(set(found)) == 3
    for choices in (("refund", "refunds"), ("refund", "")):
        with pytest.raises(RejectedError, match="by their first token, and some of these 2"):
            first_tokens(base(), choices, by="it")


def test_a_text_is_filled_up_and_one_that_is_too_long_is_refused() -> None:
    model = base()
    prompt = prompt_of(model, CHATS[0], Sampling(choices=LABELS), (64, 128), by="it")
    assert prompt.length == 64 == len(prompt.filled)
    assert prompt.filled[: len(prompt.ids)] == list(model.prompt(CHATS[0]))
    assert prompt.place[0].argmax() == len(prompt.ids) - 1
    assert "refund" not in repr(prompt)
    assert str(prompt.ids[0]) not in repr(prompt).replace("64", "")[:20]
    with pytest.raises(RejectedError, match="at most 128"):
        prompt_of(model, (*CHATS[0], *user("x" * 200)), Sampling(), (64, 128), by="it")
    with pytest.raises(RejectedError, match="knows no tools"):
        prompt_of(model, CHATS[0], Sampling(tools="[]"), (64,), by="it")


def test_words_are_rows_with_a_one_in_them() -> None:
    rows = one_hot(Prompt((5, 9), 4, ()), 12)
    np.testing.assert_array_equal(rows.argmax(1), [5, 9, 5, 9])
    assert rows.sum() == 4
    with pytest.raises(CapabilityError, match="vocabulary is smaller"):
        one_hot(Prompt((5, 12), 4, ()), 12)
    with pytest.raises(CapabilityError, match="1,000,000,000,000 tokens"):
        one_hot(Prompt((5, 9), 4, ()), 10**12)


def test_what_is_in_clear_is_not_in_the_rows() -> None:
    prompt = Prompt((5, 9, 7, 8), 3, (), 2)
    assert prompt.clear == (5, 9)
    np.testing.assert_array_equal(one_hot(prompt, 12).argmax(1), [7, 8, 7])
    assert prompt.place[0].argmax() == 1


async def test_the_rest_alone_is_computed_and_the_answer_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the program in numpy in the place of three parties."""
    model = with_terms(adapted(base(), [0, 1]), tmp_path, whole=True, layers=0)
    secure = program("llama", monkeypatch)
    told: list[tuple[int, str]] = []

    async def compute(room: Any, channel: Any, arrays: Any, clear: Any, text: str) -> Computed:
        part = part_of(model, room.wanted)
        brought = part.brings(part.owned, clear) if part.brings else ()
        assert [array.shape for array in arrays] == secure.arrays(part.shape)[1]
        told.append((room.wanted.before, text))
        number, fits = secure.build(dict(part.shape))(part.owned, arrays, brought)
        return Computed((np.array(number), np.array(fits)), {}, 0.0, 0.0)

    monkeypatch.setattr(JointRoom, "compute", compute)
    strategy = strategies.create(
        "secure_forward", protect="span", never=("hello world", "billing"), grid=8, lengths=(32,)
    )
    session = session_of(model, strategy)
    chats = [
        user("the refund is about billing"), user("refund is the the hello world"),
        user("the the the"),
    ]  # fmt: skip
    tokens = list(first_tokens(model, LABELS, by="it"))
    for chat in chats:
        answer = await strategy.answer(session, chat)
        logits = model.said_after(list(model.prompt(chat)))[tokens]
        assert answer.text == LABELS[int(np.argmax(logits))]
    assert told == [(8, "user\nthe "), (8, "user\nrefund is"), (0, "")]


def computed(number: int, fits: bool = True) -> Computed:
    return Computed((np.array(number), np.array(fits)), {}, 1.5, 2.5)


def test_a_number_is_read_as_the_choice_or_token_that_it_is() -> None:
    model, prompt = base(), Prompt((5, 9), 4, (7, 8, 9))
    answer = answer_of(model, LABELS, prompt, computed(2))
    assert (answer.text, answer.generation.cpu_seconds) == ("delivery", 1.5)
    assert answer.generation.finish_reason == "stop"
    with pytest.raises(UnexpectedReplyError, match="no number of a choice"):
        answer_of(model, LABELS, prompt, computed(3))
    with pytest.raises(RejectedError, match="larger or smaller"):
        answer_of(model, LABELS, prompt, computed(2, fits=False))
    free = Prompt((5, 9), 4, ())
    (token,) = first_tokens(model, ("refund",), by="it")
    said = answer_of(model, (), free, computed(token)).generation
    assert (said.text, said.finish_reason) == ("refund", "length")
    assert answer_of(model, (), free, computed(2)).generation.finish_reason == "stop"


def test_what_is_wanted_names_the_base_and_no_text() -> None:
    wanted = Wanted(program="llama", base=base().below(1), starts="states", layers=1, tokens=64)
    assert len(wanted.base) == 64


class Fitting(Taking):
    """A model that offers just what is wanted."""

    def takes_part(self, wanted: Wanted) -> JointPart:
        self.changed["shape"] = {
            "tokens": wanted.tokens, "starts": wanted.starts, "ends": "label",
            "candidates": list(wanted.candidates),
        }  # fmt: skip
        return super().takes_part(wanted)


def towards(**roads: Road) -> Session:
    peers = {name: road.channel for name, road in roads.items()}
    return Session(DataOwner(ScriptedModel()), next(iter(peers.values())), peers=peers)


class TestRooms:
    """Without the engine: its parties are workers that compute nothing."""

    @pytest.fixture
    def model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fitting:
        scripted_engine(tmp_path, monkeypatch)
        return Fitting()

    async def test_no_run_is_ended_while_something_is_computed_in_it(self, model: Fitting) -> None:
        owner = owner_of(model, each=2)
        road, holds = Road(owner), Holds()
        held = road.channel.bind("held")
        held._guards = (holds,)
        rooms = Rooms(SecureLlama(protocol="cheetah", lengths=(8,), step_s=3.0))
        session = towards(large=road)
        wanted = [
            Wanted(program="well", protocol="cheetah", starts="tokens", tokens=tokens)
            for tokens in (8, 16, 32)
        ]
        first, second, third = [await rooms.of(session, each) for each in wanted]
        await first.ready(road.channel)
        await second.ready(road.channel)

        # The one used longest ago is busy: the other one is ended.
        computing = asyncio.create_task(first.compute(held, GIVEN))
        await holds.reached.wait()
        await third.ready(road.channel)
        assert second.side is None
        holds.go.set()
        assert (await computing).outputs

        # All are busy: whoever comes waits.
        holds.go.clear()
        busy = [asyncio.create_task(room.compute(held, GIVEN)) for room in (first, third)]
        await asyncio.sleep(0)
        assert first.busy
        assert third.busy
        waiting = asyncio.create_task(second.compute(road.channel, GIVEN))
        again = asyncio.create_task(first.compute(road.channel, GIVEN))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert road.sent.count("OpenJoint") == 3
        holds.go.set()
        done = await asyncio.wait_for(asyncio.gather(*busy, waiting, again), 60)
        assert all(each.outputs for each in done)
        assert owner.joint is not None
        assert len(owner.joint.pids) == 2

        await rooms.end(session)
        assert owner.joint.pids == []
        assert road.sent.count("OpenJoint") == road.sent.count("CloseJoint") > 3
        await model.close()

    async def test_what_was_opened_before_one_that_fails_is_ended(self, model: Fitting) -> None:
        owner = owner_of(model, each=1)
        road = Road(owner)
        rooms = Rooms(SecureLlama(protocol="cheetah", lengths=(8, 16), step_s=3.0))
        session = towards(large=road)
        wanted = [
            Wanted(program="well", protocol="cheetah", starts="tokens", tokens=tokens)
            for tokens in (8, 16)
        ]
        with pytest.raises(EngineError, match="1 of a client"):
            await opened(session, rooms, wanted, by="it")
        assert owner.joint is not None
        assert owner.joint.pids == []
        assert road.sent[-1] == "CloseJoint"
        await model.close()

    async def test_each_owner_has_rooms_of_its_own(self, model: Fitting) -> None:
        """Of too many runs, one at another owner ends as that one sees its links break."""
        owners = [owner_of(model, each=1), owner_of(model, each=1)]
        one, other = map(Road, owners)
        rooms = Rooms(SecureLlama(protocol="cheetah", lengths=(8,), step_s=3.0))
        wanted, longer = (
            Wanted(program="well", protocol="cheetah", starts="tokens", tokens=n) for n in (8, 16)
        )
        for session in (towards(a=one), towards(b=other), towards(a=one)):
            room = await rooms.of(session, wanted)
            assert (await room.compute(session.lm, GIVEN)).outputs
        opened = ["AskJoint", "OpenJoint", "Joint", "Joint"]
        assert (one.sent, other.sent) == ([*opened, "Joint"], opened)
        assert [len(owner.joint.pids) for owner in owners if owner.joint] == [1, 1]
        third = towards(c=Road(owner_of(model, each=1)))
        await (await rooms.of(third, longer)).ready(third.lm)
        assert "CloseJoint" not in other.sent

        await rooms.end(towards(a=one, b=other))
        assert one.sent[-1] == "CloseJoint"
        assert "CloseJoint" not in other.sent
        await model.close()
