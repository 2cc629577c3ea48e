"""Items are answered many at once; what was paid for is kept, and refusals do not flatter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from cosilo.attacks.tampering import Tampering
from cosilo.benchmark.answering import HOPELESS, Answering, Lying
from cosilo.benchmark.small import remembering
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.clock import install
from cosilo.errors import (
    CosiloError,
    PrivacyError,
    RejectedError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.base import Item
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy
from cosilo.strategies.inference.cascade import Cascade
from cosilo.strategies.inference.ends import Large, Small
from cosilo.tasks.base import Example, Task
from cosilo.types import Answer, Chat, Generation, Sampling, last_user, user


@pytest.fixture(autouse=True)
async def clocked() -> None:
    install(asyncio.get_running_loop())


class Choosy(ScriptedModel):
    """Refuses what it is told to."""

    def __init__(self, refuse: Callable[[str], CosiloError | None]) -> None:
        super().__init__()
        self.refuse = refuse

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        await asyncio.sleep(0)
        error = self.refuse(last_user(chat))
        if error is not None:
            raise error
        return await super().generate(chat, sampling)


def examples(count: int) -> tuple[Example, ...]:
    return tuple(Example(str(i), user(f"q{i}"), (f"q{i}",)) for i in range(count))


class Kept:
    def __init__(self) -> None:
        self.items: dict[str, tuple[Item, str]] = {}

    def __call__(self, items: Sequence[tuple[Item, str]]) -> None:
        for item, refused in items:
            assert item.example.id not in self.items
            self.items[item.example.id] = item, refused


async def answer(
    count: int,
    refuse: Callable[[str], CosiloError | None],
    *,
    strategy: Strategy | None = None,
    small: ScriptedModel | None = None,
    concurrency: int = 4,
    proved: bool = False,
    tried: bool = False,
) -> tuple[Kept, CosiloError | None]:
    strategy = strategy or Large()
    task = Task("t", "text", {}, lambda e, a: float(a == e.target))
    owner = DataOwner(remembering(small or ScriptedModel()))
    session = open_session(owner, LMOwner(Choosy(refuse)), strategy)
    kept = Kept()
    work = Answering(task, strategy, session, "test", kept, concurrency, proved, tried=tried)
    try:
        await work.run(examples(count))
    except CosiloError as error:
        return kept, error
    return kept, None


async def test_every_item_is_answered_graded_and_kept_once() -> None:
    kept, error = await answer(20, lambda q: None)
    assert error is None
    assert len(kept.items) == 20
    assert all(item.grade == 1.0 and not why for item, why in kept.items.values())


async def test_a_refused_item_counts_as_wrong() -> None:
    kept, error = await answer(20, lambda q: RejectedError("too long") if q == "q7" else None)
    assert error is None
    item, why = kept.items["7"]
    assert (item.grade, item.answer.text, why) == (0.0, "", "RejectedError")
    assert sum(bool(why) for _, why in kept.items.values()) == 1


async def test_a_guard_in_doubt_counts_as_wrong() -> None:
    kept, _ = await answer(20, lambda q: PrivacyError("doubt") if q == "q0" else None)
    assert kept.items["0"][1] == "PrivacyError"


async def test_a_key_that_is_refused_for_every_item_stops_the_run_and_books_nothing() -> None:
    kept, error = await answer(20, lambda q: RejectedError("401"))
    assert isinstance(error, RejectedError)
    assert not kept.items


async def test_fewer_refusals_than_hopeless_are_not_believed_without_one_answer() -> None:
    kept, error = await answer(HOPELESS - 2, lambda q: RejectedError("401"))
    assert isinstance(error, RejectedError)
    assert not kept.items
    kept, error = await answer(HOPELESS - 2, lambda q: RejectedError("400"), proved=True)
    assert error is None
    assert len(kept.items) == HOPELESS - 2


async def test_a_key_revoked_half_way_is_noticed_although_the_small_model_answers_in_between() -> (
    None
):
    class Unsure(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            sure = int(last_user(chat)[1:]) % 2 == 0
            return await ScriptedModel(confidence=0.9 if sure else 0.1).generate(chat, sampling)

    kept, error = await answer(
        40,
        lambda q: RejectedError("401") if int(q[1:]) > 9 else None,
        strategy=Cascade(threshold=0.5),
        small=Unsure(),
        concurrency=1,
    )
    assert isinstance(error, RejectedError)
    assert not any(why for _, why in kept.items.values())
    assert {"1", "9", "10"} <= kept.items.keys()


TOO_LONG = RejectedError("the prompt is longer than the model's context")


def too_long(*questions: str) -> Choosy:
    """A small model that is sure of what it answers, and takes some `questions` not at all."""
    model = Choosy(lambda q: TOO_LONG if q in questions else None)
    model.confidence = 0.9
    return model


@pytest.mark.parametrize("strategy", [Small(), Cascade(threshold=0.5)])
async def test_what_is_too_long_for_the_small_model_counts_as_wrong_and_the_point_goes_on(
    strategy: Strategy,
) -> None:
    """The LM is not asked at all here, so it cannot prove itself."""
    kept, error = await answer(20, lambda q: None, strategy=strategy, small=too_long("q7", "q0"))
    assert error is None
    assert len(kept.items) == 20
    assert {id for id, (item, _) in kept.items.items() if item.grade == 0} == {"0", "7"}
    assert [kept.items[id][1] for id in ("0", "7")] == ["RejectedError"] * 2


async def test_many_in_a_row_that_are_too_long_are_no_broken_model() -> None:
    small = too_long(*(f"q{i}" for i in range(2 * HOPELESS)))
    kept, error = await answer(40, lambda q: None, strategy=Small(), small=small, concurrency=1)
    assert error is None
    assert sum(bool(why) for _, why in kept.items.values()) == 2 * HOPELESS


async def test_a_small_model_that_refuses_everything_is_broken() -> None:
    small = too_long(*(f"q{i}" for i in range(20)))
    kept, error = await answer(20, lambda q: None, strategy=Small(), small=small)
    assert error is TOO_LONG
    assert not kept.items
    kept, error = await answer(2, lambda q: None, strategy=Small(), small=small, tried=True)
    assert error is None, "the rest of a split, of which it has answered others"
    assert len(kept.items) == 2


async def test_a_wrong_key_shows_although_the_small_model_answers_and_refuses() -> None:
    """Its answers prove nothing of the LM, and what is too long for it is no refusal of the LM's."""
    small = too_long("q1")
    small.confidence = 0.1
    kept, error = await answer(
        HOPELESS, lambda q: RejectedError("401"), strategy=Cascade(threshold=0.5), small=small
    )
    assert error is not None
    assert str(error) == "401"
    assert not any(item.grade for item, _ in kept.items.values())


async def test_what_is_under_way_when_one_fails_is_still_kept() -> None:
    gate = asyncio.Event()
    started: list[str] = []

    class Slow(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            started.append(last_user(chat))
            if last_user(chat) == "q0":
                gate.set()
                raise UnreachableError("down")
            await gate.wait()
            await asyncio.sleep(0)
            return await super().generate(chat, sampling)

    task = Task("t", "text", {}, lambda e, a: 1.0)
    session = open_session(DataOwner(ScriptedModel()), LMOwner(Slow()), Large())
    kept = Kept()
    with pytest.raises(UnreachableError):
        await Answering(task, Large(), session, "test", kept, 4).run(examples(20))
    assert set(kept.items) == {"1", "2", "3"}
    assert len(started) == 4


class Careful(Large):
    """Notices a reply that cannot be one."""

    async def answer(self, session: Session, chat: Chat) -> Answer:
        sent = asyncio.create_task(session.lm.send(Ask(chat=chat)))
        text = (await sent).generation.text
        if text != last_user(chat):
            raise UnexpectedReplyError("no reply")
        return Answer(Generation(text), by="large")


@pytest.mark.parametrize("share", [0.5, 0.0])
async def test_a_lie_that_is_noticed_flags_its_item_and_stops_nothing(share: float) -> None:
    """A reply that cannot be one stops the point where nobody lied."""
    party = LMOwner(ScriptedModel() if share else ScriptedModel({"q7": "something else"}))
    lying, strategy, kept = Lying(Tampering(party, share)), Careful(), Kept()
    owner = DataOwner(remembering(ScriptedModel()))
    session = open_session(owner, party, strategy, transport=InProcess(lying))
    task = Task("t", "text", {}, lambda e, a: float(a == e.target))
    work = Answering(task, strategy, session, "test", kept, 4)
    if not share:
        with pytest.raises(UnexpectedReplyError):
            await work.run(examples(20))
        return
    await work.run(examples(20))
    assert len(kept.items) == 20
    flagged = {item.answer.suspect for item, _ in kept.items.values()}
    assert flagged == {True, False}
    for item, refused in kept.items.values():
        assert not refused
        assert item.grade == (0.0 if item.answer.suspect else 1.0)
