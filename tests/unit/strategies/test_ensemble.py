"""Several LM owners are asked at once: what is answered, what each sees, what holds for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.meter import Budget, Meter, Price, Totals
from cosilo.boundary.record.ledger import MemoryLedger, SqliteLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    RequestBudgetError,
    UnreachableError,
)
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import Side, open_session
from cosilo.strategies.base import Session, forecast, strategies
from cosilo.strategies.inference.agreement import most_agreed
from cosilo.strategies.inference.ends import Large
from cosilo.strategies.inference.ensemble import Ensemble
from cosilo.types import Generation, Sampling, ToolCall, user

CHAT = user("about my parcel")


def says(text: str, *, seconds: float = 0.0) -> LMOwner:
    return LMOwner(ScriptedModel({"about": text}, seconds=seconds))


def opened(sides: Mapping[str, Side], *, sampling: Sampling | None = None) -> Session:
    (name, first), *others = sides.items()
    return open_session(
        DataOwner(ScriptedModel()),
        first.lm,
        Ensemble(),
        sampling=sampling,
        transport=first.transport,
        meter=first.meter,
        ledger=first.ledger,
        name=name,
        others=dict(others),
    )


@pytest.mark.parametrize(
    ("replies", "choices", "chosen", "agree"),
    [
        (["a", "b", "b"], (), 1, 2),
        (["a", "b"], (), 0, 1),  # a tie is the first's
        (["c", "b", "a", "b", "a"], (), 1, 2),
        (["It is  42.", "IT IS 42.", "43"], (), 0, 2),
        (["x = 1", "x <> 1", "x <> 1"], (), 1, 2),  # signs tell answers apart
        (["", "a", ""], (), 1, 1),
        (["", " "], (), 0, 0),
        (["I cannot say", "Refund.", "it is a refund"], ("refund", "billing"), 1, 2),
        (["none", "either"], ("refund", "billing"), 0, 0),
        (["<think>billing?</think>refund", "refund", "billing"], ("refund", "billing"), 0, 2),
    ],
)
def test_what_most_say_is_answered(
    replies: list[str], choices: tuple[str, ...], chosen: int, agree: int
) -> None:
    assert most_agreed([Generation(text) for text in replies], choices) == (chosen, agree)


def test_calls_of_tools_are_compared_too() -> None:
    def calls(arguments: str, id: str) -> Generation:
        return Generation("", tool_calls=(ToolCall(id, "look", arguments),))

    assert most_agreed([calls("{}", "1"), calls('{"a":1}', "2"), calls('{"a":1}', "3")]) == (1, 2)


async def test_the_answer_is_in_the_words_of_the_first_who_gave_it() -> None:
    sides = {
        "a": Side(lm=says("billing")),
        "b": Side(lm=says("Refund!")),
        "c": Side(lm=says("refund")),
    }
    session = opened(sides, sampling=Sampling(choices=("refund", "billing")))
    answer = await Ensemble().answer(session.bind("1"), CHAT)
    assert (answer.text, answer.by) == ("Refund!", "large")
    assert answer.confidence == pytest.approx(2 / 3)


async def test_each_owners_record_holds_what_went_to_it_and_nothing_else() -> None:
    ledgers = {name: MemoryLedger(name) for name in ("a", "b", "c")}
    sides = {name: Side(lm=says(f"{name} says"), ledger=ledger) for name, ledger in ledgers.items()}
    session = opened(sides)
    await session.peers["b"].bind("only b").send(Ask(chat=user("about b alone")))
    await Ensemble().answer(session.bind("all"), CHAT)
    for name, ledger in ledgers.items():
        entries = list(ledger.entries())
        assert {e.chain for e in entries} == {name}
        assert [e.request for e in entries] == ["only b"] * 2 * (name == "b") + ["all"] * 2
        up, down = entries[-2:]
        assert down.answers == up.number
        assert isinstance(down.message, Completion)
        assert down.message.generation.text == f"{name} says"


async def test_replies_pair_with_their_requests_however_they_overtake_one_another(
    tmp_path: object,
) -> None:
    """Ten chats to three owners at once, the later sent answered first."""
    turns = [asyncio.Event() for _ in range(10)]

    class Late(LMOwner):
        async def handle(self, message: Message) -> Message:
            assert isinstance(message, Ask)
            number = int(message.chat[-1].content.split()[-1])
            if number < 9:
                await turns[number + 1].wait()
            turns[number].set()
            return Completion(generation=Generation(f"reply {number}"))

    names = ("a", "b", "c")
    ledgers = {n: SqliteLedger(f"{tmp_path}/ledger.sqlite", f"trial/peers/{n}") for n in names}
    lm = Late(ScriptedModel())
    session = opened({n: Side(lm=lm, ledger=ledgers[n]) for n in names})
    await asyncio.gather(
        *(Ensemble().answer(session.bind(str(i)), user(f"chat {i}")) for i in range(10))
    )
    for ledger in ledgers.values():
        entries = list(ledger.entries())
        sent = {e.number: e for e in entries if e.direction == "up"}
        replies = [e for e in entries if e.direction == "down"]
        assert len(sent) == len(replies) == 10
        for down in replies:
            assert down.answers is not None
            up, said = sent[down.answers], down.message
            assert up.request == down.request
            assert isinstance(said, Completion)
            assert said.generation.text == f"reply {up.request}"
        ledger.close()


async def test_a_meter_and_a_price_each_and_their_sum() -> None:
    meters = {"a": Meter(price=Price(1.0, 1.0)), "b": Meter(price=Price(0, 1e6))}
    session = opened({n: Side(lm=says("two words"), meter=m) for n, m in meters.items()})
    bound = session.bind("1")
    await Ensemble().answer(bound, CHAT)
    assert bound.peers["b"].totals.usd == pytest.approx(2.0)
    assert bound.peers["a"].totals.usd == pytest.approx(
        bound.peers["a"].totals.tokens_in * 1e-6 + 2e-6
    )
    assert bound.totals == bound.peers["a"].totals + bound.peers["b"].totals
    assert session.totals == meters["a"].totals + meters["b"].totals
    assert bound.totals.messages == 2


async def test_a_requests_budget_is_for_all_owners_together() -> None:
    ledgers = {name: MemoryLedger(name) for name in ("a", "b", "c")}
    meters = {name: Meter() for name in ledgers}
    session = opened({n: Side(lm=says("x"), ledger=ledgers[n], meter=meters[n]) for n in ledgers})
    with pytest.raises(RequestBudgetError):
        await Ensemble().answer(session.bind("1", budget=Budget(messages=2)), CHAT)
    assert sum(len([*ledger.entries()]) for ledger in ledgers.values()) <= 4
    assert all(meter.reserved == Totals() for meter in meters.values())
    answer = await Ensemble().answer(session.bind("2", budget=Budget(messages=3)), CHAT)
    assert answer.text == "x"


async def test_a_budget_shared_by_all_meters_holds_for_all() -> None:
    whole = Meter(Budget(messages=4))
    meters = {name: Meter(parent=whole) for name in ("a", "b")}
    session = opened({n: Side(lm=says("x"), meter=m) for n, m in meters.items()})
    for i in range(2):
        await Ensemble().answer(session.bind(str(i)), CHAT)
    with pytest.raises(BudgetExceededError):
        await Ensemble().answer(session.bind("3"), CHAT)
    assert whole.totals.messages == 4


async def test_when_one_cannot_be_asked_nothing_is_answered() -> None:
    class Gone(LMOwner):
        async def handle(self, message: Message) -> Message:
            raise UnreachableError("gone")

    session = opened({"a": Side(lm=says("x")), "b": Side(lm=Gone(ScriptedModel()))})
    with pytest.raises(UnreachableError):
        await Ensemble().answer(session.bind("1"), CHAT)


def test_one_large_model_is_too_few() -> None:
    with pytest.raises(CapabilityError, match="needs 2 large models, but there is 1"):
        opened({"large": Side(lm=says("x"))})


def test_each_owner_must_show_what_is_needed() -> None:
    class Reading(Large):
        needs = strategies.create("ensemble").needs.__class__(
            sends=frozenset({Ask}), large=Access.LOGPROBS.shows, peers=2
        )

    shown = LMOwner(ScriptedModel(), exposes=Access.LOGPROBS.shows)
    with pytest.raises(CapabilityError, match="needs logprobs of 'b'"):
        open_session(DataOwner(ScriptedModel()), shown, Reading(), others={"b": Side(lm=says("x"))})


def test_the_peers_of_a_session_cannot_be_changed() -> None:
    session = opened({"a": Side(lm=says("x")), "b": Side(lm=says("x"))})
    assert session.lm is session.peers["a"]
    assert list(session.bind("1").peers) == ["a", "b"]
    with pytest.raises(TypeError):
        session.peers["c"] = session.lm  # type: ignore[index]
    with pytest.raises(ValueError, match="first of the peers"):
        Session(session.owner, session.peers["b"], peers=session.peers)


def test_what_is_foretold_is_a_question_to_each() -> None:
    [exchange] = forecast(Ensemble())
    assert (exchange.about, exchange.to, exchange.plain) == ("answers", "each", True)


async def test_a_transport_of_its_own_for_each() -> None:
    parties = {"a": says("x"), "b": says("x")}
    sides = {n: Side(lm=p, transport=InProcess(p)) for n, p in parties.items()}
    await Ensemble().answer(opened(sides).bind("1"), CHAT)
    for party in parties.values():
        assert isinstance(party.model, ScriptedModel)
        assert len(party.model.seen) == 1
