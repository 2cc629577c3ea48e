"""A joint computation from one end to the other, with parties that compute nothing and fail."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from cosilo.boundary.messages import (
    CloseJoint,
    Forget,
    Joint,
    JointOpened,
    JointSpent,
    Message,
    OpenJoint,
)
from cosilo.boundary.messages.joint import Address, JointLink
from cosilo.boundary.meter import NOTHING, Budget
from cosilo.clock import Clock, timed
from cosilo.engines.base import DATA_OWNER, HELPER, LM_OWNER
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    CosiloError,
    EngineError,
    PrivacyError,
    RejectedError,
    UnexpectedReplyError,
)
from cosilo.models.joint import Wanted
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.inference.joint_room import JointRoom
from joint_runs import GIVEN, Holds, Road, Taking, owner_of, scripted_engine

WELL = Wanted(program="well")


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_engine(tmp_path, monkeypatch)


class Changed:
    """An owner whose replies are changed on their way."""

    def __init__(self, inner: LMOwner, change: Any) -> None:
        self.inner, self.change = inner, change

    async def handle(self, message: Message) -> Message:
        reply: Message = self.change(await self.inner.handle(message))
        return reply

    def handle_stream(self, ask: Any) -> Any:
        raise NotImplementedError


async def ended(room: JointRoom, model: Taking) -> None:
    await room.close()
    await model.close()


def assert_nothing_is_left(road: Road, pids: list[int]) -> None:
    assert road.meter.reserved == NOTHING
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize("protocol", ["aby3", "cheetah"])
async def test_a_run_is_opened_once_and_computes_one_thing_at_a_time(protocol: Any) -> None:
    model = Taking()
    road = Road(owner_of(model))
    room = await road.room(replace(WELL, protocol=protocol))
    clocks = [Clock() for _ in range(3)]
    await timed(room.ready(road.channel), Clock())  # opened before, so that no item pays for it
    done = await asyncio.gather(*(timed(room.compute(road.channel, GIVEN), c) for c in clocks))
    assert all(clock.cpu_seconds >= 0.25 for clock in clocks)
    assert all(each.outputs[0].tolist() == [0.0] for each in done)
    assert {(each.cpu_here, each.cpu_there) for each in done} == {(0.25, 0.25)}
    assert room.opened == 1
    assert road.sent == ["AskJoint", "OpenJoint", "Joint", "Joint", "Joint", "Joint"]
    three = {LM_OWNER, DATA_OWNER, HELPER} if protocol == "aby3" else {LM_OWNER, DATA_OWNER}
    for spent in road.replies(JointSpent):
        assert isinstance(spent, JointSpent)
        assert {link.sender for link in spent.links} == three
    pids = [room.side.pid] if room.side else []
    await ended(room, model)
    assert_nothing_is_left(road, pids)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_told_in_clear_is_on_record_and_something_is_brought_for_it() -> None:
    told: list[tuple[int, ...]] = []

    def brings(owned: Any, clear: tuple[int, ...]) -> tuple[Any, ...]:
        told.append(clear)
        return ()

    model = Taking(brings=brings)
    road = Road(owner_of(model))
    room = await road.room(replace(WELL, protocol="cheetah"))
    await room.compute(road.channel, GIVEN, (5, 6), "the refund")
    assert told == [(5, 6)]
    sent = [e.message for e in road.ledger.entries() if isinstance(e.message, Joint)]
    assert [(m.clear, m.text) for m in sent if m.clear or m.text] == [((5, 6), "the refund")]
    await ended(room, model)


@pytest.mark.parametrize(
    ("program", "said"),
    [("dies", "ended"), ("stalls", "stalled"), ("garbage", "no frame"), ("fails", "no luck")],
)
async def test_a_party_that_fails_ends_the_run_and_the_next_one_is_new(
    program: str, said: str
) -> None:
    model = Taking()
    road = Road(owner_of(model))
    room = await road.room(Wanted(program=program, protocol="cheetah"))
    for attempt in range(2):
        with pytest.raises(EngineError, match=said):
            await room.compute(road.channel, GIVEN)
        assert room.side is None
        assert road.sent.count("OpenJoint") == attempt + 1
    assert road.sent[-1] == "CloseJoint"
    owner: Any = road.channel._transport.party  # type: ignore[attr-defined]
    assert owner.joint.pids == []
    assert road.meter.reserved == NOTHING
    await ended(room, model)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_guard_that_stops_the_message_stops_the_computation() -> None:
    class Stops:
        async def guard(self, message: Message, forward: Any, *, request: str) -> Message:
            if isinstance(message, Joint):
                raise PrivacyError("not that")
            reply: Message = await forward(message)
            return reply

        def guard_stream(self, ask: Any, forward: Any, *, request: str) -> Any:
            raise NotImplementedError

    model = Taking()
    road = Road(owner_of(model))
    room = await road.room(WELL)
    road.channel._guards = (Stops(),)
    with pytest.raises(PrivacyError, match="not that"):
        await room.compute(road.channel, GIVEN)
    assert "Joint" not in road.sent
    await ended(room, model)


async def test_what_is_over_the_budget_is_not_begun() -> None:
    model = Taking()
    road = Road(owner_of(model), Budget(bytes_up=3 << 20))
    room = await road.room(WELL)
    await room.ready(road.channel)
    tight = road.channel.bind("item", budget=Budget(bytes_up=1 << 20))
    with pytest.raises(BudgetExceededError):
        await room.compute(tight, GIVEN)
    assert road.sent.count("Joint") == 1
    assert (await room.compute(road.channel, GIVEN)).outputs
    await ended(room, model)


async def test_bytes_that_the_sides_count_differently_are_no_answer() -> None:
    def lie(reply: Message) -> Message:
        request = Joint(run=32 * "1", number=1)
        return reply.tampered(request, str) if isinstance(reply, JointSpent) else reply

    model = Taking()
    road = Road(Changed(owner_of(model), lie))
    room = await road.room(WELL)
    with pytest.raises(UnexpectedReplyError, match="what was computed is not taken"):
        await room.compute(road.channel, GIVEN)
    assert room.side is None
    await ended(room, model)


async def test_sides_that_would_run_different_things_do_not_begin() -> None:
    model = Taking()
    road = Road(owner_of(model))
    room = await road.room(Wanted(program="differs"))
    with pytest.raises(EngineError, match="not the same versions"):
        await room.ready(road.channel)
    assert "Joint" not in road.sent

    def lie(reply: Message) -> Message:
        if not isinstance(reply, JointOpened):
            return reply
        return replace(reply, agreed=reply.agreed[::-1])

    assert road.sent[-1] == "OpenJoint", "whoever refuses opens nothing"
    owner = owner_of(model)
    road = Road(Changed(owner, lie))
    room = await road.room(WELL)
    with pytest.raises(UnexpectedReplyError, match="another run"):
        await room.ready(road.channel)
    assert_parted(road, owner)
    await ended(room, model)


def assert_parted(road: Road, owner: LMOwner) -> None:
    assert owner.joint is not None
    assert owner.joint.pids == []
    assert road.sent.count("CloseJoint") == 1
    assert road.sent[-1] == "CloseJoint"
    assert road.meter.reserved == NOTHING


async def test_a_run_is_ended_at_both_sides_and_the_next_one_is_new() -> None:
    model = Taking()
    owner = owner_of(model)
    road = Road(owner)
    room = await road.room(WELL)
    await room.end(road.channel)
    assert road.sent == ["AskJoint"]
    road.channel._guards = (holds := Holds(),)
    computing = asyncio.create_task(room.compute(road.channel, GIVEN))
    await holds.reached.wait()
    ending = asyncio.create_task(room.end(road.channel))
    await asyncio.sleep(0)
    holds.go.set()
    assert (await computing).outputs, "what is being computed is waited for"
    await ending
    assert room.side is None
    assert_parted(road, owner)
    assert (await room.compute(road.channel, GIVEN)).outputs
    assert road.sent.count("OpenJoint") == 2
    await ended(room, model)


async def test_whoever_leaves_after_a_run_was_opened_leaves_nothing_open() -> None:
    model = Taking()
    owner = owner_of(model)
    road = Road(owner)
    road.channel._guards = (holds := Holds(),)
    room = await road.room(WELL)
    opening = asyncio.create_task(room.ready(road.channel))
    await holds.reached.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert_parted(road, owner)
    await ended(room, model)


async def test_an_owner_serves_what_its_model_takes_part_in_alone() -> None:
    road = Road(owner_of(Taking(program="other")))
    with pytest.raises(CapabilityError, match="something else"):
        await road.room(WELL)
    road = Road(owner_of(Taking()))
    with pytest.raises(CapabilityError, match="no more than a label"):
        await road.room(Wanted(program="well", tells="logits"))
    with pytest.raises(ConfigError, match="'semi2k' one of the two owners deals"):
        await road.room(Wanted(program="well", protocol="semi2k"))
    model: Any = ScriptedModel()
    road = Road(owner_of(Taking()))
    road.channel._transport.party = LMOwner(model, exposes=owner_of(Taking()).exposes)  # type: ignore[attr-defined]
    with pytest.raises(CapabilityError, match="takes no part"):
        await road.room(WELL)


async def test_a_head_whose_logits_leave_the_ring_is_refused_before_anything_starts() -> None:
    large = (np.full((2, 3), 1e8, np.float32), np.zeros(3, np.float32))
    road = Road(owner_of(Taking(owned=large)))
    with pytest.raises(ConfigError, match="a logit can reach"):
        await road.room(Wanted(program="head"))
    assert road.sent == ["AskJoint"]


@pytest.mark.parametrize("where", ["at", "helper"])
async def test_a_trial_connects_to_no_address_elsewhere(where: str) -> None:
    def elsewhere(reply: Message) -> Message:
        if not isinstance(reply, JointOpened):
            return reply
        return replace(reply, **{where: Address("192.0.2.1", 80)})

    model = Taking()
    owner = owner_of(model)
    road = Road(Changed(owner, elsewhere))
    room = await road.room(WELL)
    with pytest.raises(UnexpectedReplyError, match="an address elsewhere"):
        await room.ready(road.channel)
    assert "Joint" not in road.sent
    assert_parted(road, owner)
    await ended(room, model)


class TestTheLmOwnersSide:
    """What it refuses of a client that does not keep to the rules."""

    async def opened(self, owner: LMOwner, name: str = 32 * "1", **changed: Any) -> OpenJoint:
        road = Road(owner)
        room = await road.room(replace(WELL, protocol="cheetah"))
        await room.ready(road.channel)
        assert room.side is not None
        message = OpenJoint(
            offer=room.offer.offer,
            wanted=room.wanted,
            run=name,
            agreed=room.side.agreed,
            at=Address("127.0.0.1", 1),
        )
        await room.close()
        return replace(message, **changed)

    async def test_ways_names_and_offers_are_looked_at(self) -> None:
        model = Taking()
        owner = owner_of(model, each=8)
        for changed, said in (
            ({"tls": True}, "network file"),
            ({"at": Address("example.org", 5)}, "stays on one machine"),
            ({"offer": 64 * "0"}, "another now"),
        ):
            with pytest.raises(RejectedError, match=said):
                await owner.handle(await self.opened(owner, **changed))
        with pytest.raises(EngineError, match="same versions"):
            await owner.handle(await self.opened(owner, agreed=64 * "0"))
        await model.close()

    async def test_runs_are_a_clients_own_and_limited(self) -> None:
        model = Taking()
        owner = owner_of(model, "clinic", each=2, most=3)
        assert owner.joint is not None
        other = LMOwner(model, owner.exposes, client="other", joint=owner.joint)
        message = await self.opened(owner)
        await owner.joint.forget("clinic")
        await owner.handle(message)
        joint = Joint(run=message.run, number=0, parties=2, most=1 << 20)
        for wrong in (replace(joint, number=1), replace(joint, parties=3)):
            with pytest.raises(EngineError, match="comes to next"):
                await owner.handle(wrong)
        for wrong in (replace(joint, tells="logits"), replace(joint, most=1 << 30)):
            with pytest.raises(RejectedError):
                await owner.handle(wrong)
        with pytest.raises(EngineError, match="no such run"):
            await other.handle(joint)
        await other.handle(CloseJoint(run=message.run))
        with pytest.raises(RejectedError, match="of that name"):
            await owner.handle(message)
        await owner.handle(replace(message, run=32 * "2"))
        with pytest.raises(EngineError, match="2 of a client and 3 in all"):
            await owner.handle(replace(message, run=32 * "3"))
        await owner.handle(CloseJoint(run=32 * "2"))
        await owner.handle(Forget(forget=32 * "f", everything=True))
        assert owner.joint.pids == []
        with pytest.raises(EngineError, match="no such run"):
            await owner.handle(joint)
        await model.close()

    async def test_an_idle_run_is_ended(self) -> None:
        model = Taking()
        owner = owner_of(model, idle_s=0)
        road = Road(owner)
        room = await road.room(replace(WELL, protocol="cheetah"))
        assert owner.joint is not None
        with pytest.raises(CosiloError):
            await room.compute(road.channel, GIVEN)
        assert owner.joint.pids == []
        await ended(room, model)


def test_links_say_what_crossed_beside_the_reply() -> None:
    links = (JointLink(0, 1, 5, 3), JointLink(1, 0, 7, 4), JointLink(1, 2, 8, 2))
    spent = JointSpent(links=links).beside()
    assert (spent.up, spent.down, spent.bytes, spent.steps) == (15, 5, 20, 4)
