"""The LM owner's side of joint computations: what it opens, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.hosts import CLIENT, a_host, the_way, write_host

from cosilo.boundary.messages import (
    AskJoint,
    CloseJoint,
    Joint,
    JointOffered,
    JointOpened,
    OpenJoint,
)
from cosilo.boundary.messages.joint import Address
from cosilo.engines.base import Program, Setting
from cosilo.engines.spu import run
from cosilo.engines.spu.helper import Helper
from cosilo.engines.spu.party import SpuParty
from cosilo.engines.spu.run import JointRun
from cosilo.engines.spu.side import JointSide
from cosilo.errors import BudgetExceededError, CapabilityError, EngineError, RejectedError
from cosilo.host.certificates import make_certificates
from cosilo.models.joint import JointPart, Wanted
from cosilo.parties.joint import JointRuns
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.network import JointNetwork
from cosilo.parties.remote import RemoteOwner
from joint_runs import Taking, owner_of, scripted_engine

WELL = Wanted(program="well", protocol="cheetah")
NAME = 32 * "1"


@pytest.fixture(autouse=True)
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that are started, as they are."""
    scripted_engine(tmp_path, monkeypatch)
    started: list[int] = []

    class Noted(SpuParty):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(self.pid)

    monkeypatch.setattr(run, "SpuParty", Noted)
    return started


def running(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def opening(owner: LMOwner, wanted: Wanted = WELL, **changed: Any) -> OpenJoint:
    """What a client sends that opens a run."""
    offered = await owner.handle(AskJoint(wanted=wanted))
    assert isinstance(offered, JointOffered)
    setting = Setting(wanted.protocol, offered.field, offered.bits)
    async with JointRun(Program(offered.program, {}), setting, ranks=(1,)) as here:
        agreed = (await here.start()).agreed
    message = OpenJoint(
        offer=offered.offer, wanted=wanted, run=NAME, agreed=agreed, at=Address("127.0.0.1", 1)
    )
    return replace(message, **changed)


def runs_of(owner: LMOwner) -> JointRuns:
    assert owner.joint is not None
    return owner.joint


async def test_a_name_is_taken_while_its_run_is_being_opened(parties: list[int]) -> None:
    model = Taking()
    owner = owner_of(model, each=8)
    message = await opening(owner)
    same = (owner.handle(message) for _ in range(3))
    done = await asyncio.gather(*same, return_exceptions=True)
    assert [type(each) for each in done] == [JointOpened, RejectedError, RejectedError]
    assert len(runs_of(owner).pids) == 1
    await owner.handle(CloseJoint(run=message.run))
    assert not any(map(running, parties))
    await model.close()


@pytest.mark.parametrize("how", ["forget", "close", "end"])
async def test_a_run_that_is_being_opened_can_be_ended(how: str, parties: list[int]) -> None:
    model = Taking()
    owner = owner_of(model, "clinic")
    runs = runs_of(owner)
    other = LMOwner(model, owner.exposes, client="other", joint=runs)
    message = await opening(owner)
    before = len(parties)
    for with_engine in (False, True):
        opens = asyncio.create_task(owner.handle(message))
        for _ in range(2000):
            await asyncio.sleep(0.002)
            if len(parties) > before if with_engine else runs._opening:
                break
        await other.handle(CloseJoint(run=message.run))
        await runs.forget("other")
        if how == "forget":
            await runs.forget("clinic")
        elif how == "close":
            await runs.close()
        else:
            await owner.handle(CloseJoint(run=message.run))
        with pytest.raises(EngineError, match="ended"):
            await opens
        assert runs.pids == []
    await model.close()
    assert not any(map(running, parties))


async def test_one_helper_is_run_for_all_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, really = [], Helper.open

    async def counted(helper: Helper, *where: Any) -> int:
        opened.append(helper)
        await asyncio.sleep(0.05)
        return await really(helper, *where)

    monkeypatch.setattr(Helper, "open", counted)
    model = Taking()
    owner = owner_of(model)
    message = await opening(owner, replace(WELL, protocol="aby3"))
    both = (owner.handle(replace(message, run=32 * name)) for name in "12")
    one, other = await asyncio.gather(*both)
    assert isinstance(one, JointOpened)
    assert isinstance(other, JointOpened)
    assert one.helper == other.helper
    assert len(opened) == 1
    await model.close()


async def test_a_run_whose_client_was_told_all_that_it_may_be_ends_when_it_is_idle(
    parties: list[int],
) -> None:
    class Spent:
        def left(self, client: str) -> int:
            return 0

        def take(self, client: str) -> None:
            raise BudgetExceededError("all")

    model = Taking(allowance=Spent())
    owner = owner_of(model, idle_s=0.5)
    runs = runs_of(owner)
    message = await opening(owner, replace(WELL, tells="logits"))
    await owner.handle(message)
    runs._runs[NAME].next = 1
    with pytest.raises(BudgetExceededError):
        await owner.handle(Joint(run=NAME, number=1, tells="logits", parties=2, most=1 << 20))
    assert len(runs.pids) == 1, "another request may come"
    for _ in range(300):
        await asyncio.sleep(0.01)
        if not runs.pids:
            break
    assert runs.pids == []
    await model.close()
    assert not any(map(running, parties))


async def test_a_run_whose_engine_died_counts_no_longer(parties: list[int]) -> None:
    model = Taking()
    owner = owner_of(model, each=1, most=1)
    message = await opening(owner)
    for name in "123":
        await owner.handle(replace(message, run=32 * name))
        with pytest.raises(EngineError, match="1 of a client and 1 in all"):
            await owner.handle(replace(message, run=32 * "9"))
        held = runs_of(owner)._runs[32 * name]
        await held.side.close()
    await model.close()
    assert not any(map(running, parties))


async def test_a_host_without_certificates_for_it_takes_part_in_nothing(
    tmp_path: Path, parties: list[int]
) -> None:
    model, near = Taking(), owner_of(Taking())
    message = await opening(near)
    parties.clear()
    path = write_host(tmp_path, model='kind = "scripted"\nexposes = ["text", "joint"]')
    async with a_host(path, model) as host:
        far = RemoteOwner(
            the_way(tmp_path, host.port), "lm-owner", f"party/{CLIENT}", exposes=near.exposes
        )
        for asked in (AskJoint(wanted=WELL), message):
            with pytest.raises(CapabilityError, match="certificates alone"):
                await far.handle(asked)
        await far.close()
    assert parties == []


async def test_what_is_asked_for_twice_at_once_is_made_once_and_one_offer_at_a_time() -> None:
    making: list[Wanted] = []

    class Slow(Taking):
        def takes_part(self, wanted: Wanted) -> JointPart:
            making.append(wanted)
            assert len(making) == 1
            time.sleep(0.05)
            asked.append(making.pop())
            return super().takes_part(wanted)

    asked: list[Wanted] = []
    model = Slow()
    runs = runs_of(owner_of(model))
    longer = [replace(WELL, tokens=n) for n in (8, 8, 16, 16)]
    offers = await asyncio.gather(*(runs.offer(model, each, by="lm") for each in longer))
    assert sorted(each.tokens for each in asked) == [8, 16]
    assert len({told.offer for _, told in offers}) == 2
    assert len({id(array) for part, _ in offers for array in part.owned}) == 1, "the same weights"

    leaves = asyncio.create_task(runs.offer(model, replace(WELL, tokens=32), by="lm"))
    while not making:  # noqa: ASYNC110
        await asyncio.sleep(0)
    leaves.cancel()
    await runs.offer(model, replace(WELL, tokens=64), by="lm")
    assert [each.tokens for each in asked[2:]] == [32, 64]
    await model.close()


async def test_a_client_elsewhere_is_connected_to_where_it_is_known_to_be(
    tmp_path: Path, parties: list[int]
) -> None:
    make_certificates(tmp_path / "certs", hosts=["localhost"], clients=["lm-owner"])
    network = JointNetwork(
        ca=tmp_path / "certs/ca.pem",
        cert=tmp_path / "certs/host-localhost.pem",
        key=tmp_path / "certs/host-localhost.key",
        client_cert=tmp_path / "certs/client-lm-owner.pem",
        client_key=tmp_path / "certs/client-lm-owner.key",
        name="localhost",
        listen="127.0.0.1",
        hosts={"clinic": "clinic.example", "bank": "10.0.0.1"},
    )
    model, runs = Taking(), JointRuns(network)
    exposes = owner_of(model).exposes
    clinic, town = (LMOwner(model, exposes, client=name, joint=runs) for name in ("clinic", "town"))
    message = await opening(clinic, tls=True)
    parties.clear()
    for host, owner in (("10.0.0.1", clinic), ("127.0.0.1", clinic), ("clinic.example", town)):
        with pytest.raises(RejectedError, match="not the one known of it"):
            await owner.handle(replace(message, at=Address(host, 22)))
    assert parties == []
    await clinic.handle(replace(message, at=Address("clinic.example", 22)))
    await runs.close()

    side = JointSide(1, Program("well", {}), Setting("cheetah"), network.listens, names={0: "bank"})
    side.meet(NAME, ("10.0.0.1", 5), None)
    with pytest.raises(EngineError, match="not the one known of it"):
        side.meet(NAME, ("10.0.0.2", 5), None)
