"""The network between a client and a host breaks, delays and repeats; the host is killed. Nothing is
worked on or booked twice, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.integration.breaking import Break, breaking
from tests.integration.hosts import CLIENT, Asking, a_host, write_host

from cosilo.boundary.messages import Ask, Completion, decode, encode
from cosilo.boundary.record.agreement import compare
from cosilo.boundary.transports.agreed import new_id
from cosilo.host.process import Listener
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.remote import RemoteOwner, noted
from cosilo.types import Sampling, user
from host_faults import killed

LONG = " ".join(f"word{number}" for number in range(700))
STAGES = 14


def ask(number: int) -> Ask:
    return Ask(chat=user(f"question {number}: {LONG}"), sampling=Sampling(max_tokens=2000))


def words(message: object) -> str:
    assert isinstance(message, Completion)
    return message.generation.text


async def once(owner: RemoteOwner, number: int, *, streamed: bool) -> str:
    if streamed:
        return "".join([delta.text async for delta in owner.handle_stream(ask(number))])
    return words(await owner.handle(ask(number)))


def booked(host: Listener, owner: RemoteOwner, lm: ScriptedModel, count: int) -> None:
    """`count` requests were worked on, billed and recorded once on either side."""
    books = host.services[CLIENT].books
    assert owner.network is not None
    agreement = compare(owner.network.ledger.entries(), books.ledger.entries(), by_id=True)
    assert agreement.faults == ()
    assert agreement.agreed == count
    assert agreement.unheard == 0
    assert len(lm.seen) == count
    assert books.account.taken.messages == count
    assert books.account.taken.tokens_out == sum(len(c[-1].content.split(" ")) for c in lm.seen)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_connection_that_breaks_at_any_stage(
    tmp_path: Path, asking: Asking, direction: str, streamed: bool
) -> None:
    lm = ScriptedModel()
    async with a_host(write_host(tmp_path), lm) as host:
        async with breaking(host.port, lambda _: Break()) as way:
            transport = asking(way.port)
            await once(RemoteOwner(transport, "lm", "lm"), 0, streamed=streamed)
            await transport.close()
            whole = {"up": way.up, "down": way.down}[direction]
        assert whole > 4000
        for stage in range(1, STAGES):  # in the handshake, the hello, the request or the reply
            lm.seen.clear()
            before = host.services[CLIENT].books.account.taken.messages
            cut = Break(**{direction: whole * stage // STAGES})
            plan = iter([cut])
            async with breaking(host.port, lambda _, p=plan: next(p, Break())) as way:
                transport = asking(way.port)
                owner = RemoteOwner(transport, "lm", "lm")
                said = await once(owner, stage, streamed=streamed)
                await transport.close()
                assert way.broken == 1
            assert said == f"question {stage}: {LONG}"
            assert len(lm.seen) == 1
            assert host.services[CLIENT].books.account.taken.messages == before + 1


async def test_many_requests_over_a_way_that_breaks_and_delays_at_random(
    tmp_path: Path, asking: Asking
) -> None:
    lm, drawn = ScriptedModel(), random.Random(5)

    def plan(_: int) -> Break:
        cut = drawn.choice(["up", "down"])
        return Break(**{cut: drawn.randrange(2000, 60_000)}, delay=drawn.choice([0.0, 0.0, 0.01]))

    async with a_host(write_host(tmp_path), lm) as host, breaking(host.port, plan) as way:
        transport = asking(way.port, patience_s=60)
        owner = noted(RemoteOwner(transport, "lm", "lm"), tmp_path / "network.sqlite", "large")
        slots = asyncio.Semaphore(6)

        async def one(number: int) -> str:
            async with slots:
                return await once(owner, number, streamed=number % 4 == 0)

        said = await asyncio.gather(*map(one, range(60)))
        assert said == [f"question {number}: {LONG}" for number in range(60)]
        assert way.broken > 5
        booked(host, owner, lm, 60)
        await owner.close()


async def test_a_request_that_comes_twice_at_once_and_once_more_later(
    tmp_path: Path, asking: Asking
) -> None:
    lm = ScriptedModel()
    async with a_host(write_host(tmp_path), lm) as host:
        one, other = asking(host.port), asking(host.port)
        name, payload = new_id(), encode(ask(1))
        twice = await asyncio.gather(one.carry(payload, name=name), other.carry(payload, name=name))
        assert twice == [await one.carry(payload, name=name)] * 2
        name = new_id()

        async def streamed() -> list[bytes]:
            return [piece async for piece in one.carry_stream(payload, name=name)]

        first, second = await asyncio.gather(streamed(), streamed())
        assert first == second == await streamed()
        assert len(lm.seen) == 2
        books = host.services[CLIENT].books
        assert books.account.taken.messages == 2
        assert len(list(books.ledger.entries())) == 4


async def test_work_whose_client_is_gone_is_given_up_after_a_while(
    tmp_path: Path, asking: Asking
) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedModel):
        async def generate(self, chat, sampling):  # type: ignore[no-untyped-def]
            begun.set()
            await never.wait()

    path = write_host(tmp_path, listen="linger_seconds = 0.05")
    async with a_host(path, Slow()) as host:
        service = host.services[CLIENT]
        task = asyncio.create_task(asking(host.port).carry(encode(ask(1))))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (under_way,) = service._under_way.values()
        assert under_way.task is not None
        async with asyncio.timeout(20):
            await under_way.task
        taken = service.books.account.taken
        assert taken.messages == 1
        assert taken.tokens_out > 0  # it may have worked all that time
        assert [e.direction for e in service.books.ledger.entries()] == ["up"]


async def test_what_was_under_way_when_the_host_died_is_worked_on_again_and_billed_once(
    tmp_path: Path, asking: Asking
) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    class Dying(ScriptedModel):
        async def generate(self, chat, sampling):  # type: ignore[no-untyped-def]
            begun.set()
            await never.wait()

    limits = "total = {messages = 1}"
    path = write_host(tmp_path, clients=limits, listen="drain_seconds = 0")
    name, payload = new_id(), encode(ask(1))
    async with a_host(path, Dying()) as host:
        task = asyncio.create_task(asking(host.port).carry(payload, name=name))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lm = ScriptedModel()
    async with a_host(path, lm) as host:
        account = host.services[CLIENT].books.account
        assert not account.fits(type(account.taken)(messages=1))  # it counts until it is answered
        way = asking(host.port)
        assert words(decode(await way.carry(payload, name=name))) == f"question 1: {LONG}"
        assert account.taken.messages == 1
        entries = list(host.services[CLIENT].books.ledger.entries())
        assert [(e.direction, e.answers) for e in entries] == [("up", None), ("down", 0)]


def test_a_host_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    """`benchmarks/host_faults.py` kills it twenty times."""
    found = killed(tmp_path, kills=3, items=90)
    assert found["kills"] == 3
    assert found["values that differ"] == 0
    assert found["differences between the ledgers"] == 0
    assert found["faults in the host's ledger"] == 0
    assert found["on record twice"] == 0
    assert found["billed"] == found["requests"] > 30
    assert found["dollars billed less paid"] == 0
