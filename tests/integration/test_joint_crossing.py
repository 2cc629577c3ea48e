"""`secure_head` under SPU: on one machine, and over a host with a helper, all of whose links are TLS;
parties are killed on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.gateway import MAIN, Process
from tests.integration.hosts import CLIENT, a_host, the_way, write_host

from cosilo.boundary.messages import Joint, JointSpent
from cosilo.boundary.meter import NOTHING, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.engines.spu import environment
from cosilo.errors import CosiloError
from cosilo.host.certificates import make_certificates
from cosilo.parties.joint import runs_of
from cosilo.parties.remote import RemoteOwner
from cosilo.session import open_session
from cosilo.strategies.inference.joint_room import JointRoom
from cosilo.strategies.inference.secure_head import SecureHead
from cosilo.types import Sampling, user
from private_heads import SHOWS, data_owner, owner_of, private_head

pytestmark = [
    pytest.mark.skipif(
        environment.found() is None, reason=f"needs the engine's environment: {environment.INSTALL}"
    ),
    pytest.mark.timeout(300),
]
CHATS = [user(f"message {i} about a card") for i in range(3)]
NETWORK = """\
name = "localhost"
listen = "127.0.0.1"
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
client_cert = "certs/client-{name}.pem"
client_key = "certs/client-{name}.key"
hosts = {{ lm-owner = "localhost", clinic = "localhost" }}
{more}
"""


def room_of(strategy: Any) -> JointRoom:
    room: JointRoom = strategy._heads._heads["large"].room
    return room


async def test_on_one_machine_bytes_are_the_proxies_and_a_killed_party_costs_one_answer(
    tmp_path: Path,
) -> None:
    head = private_head(tmp_path, most=0)
    meter, ledger = Meter(), MemoryLedger()
    strategy: Any = SecureHead(engine="spu", protocol="cheetah")
    session = open_session(data_owner(), owner_of(head), strategy, meter=meter, ledger=ledger)
    strategy, session = await strategy.prepare(session)
    clear = [(await head.generate(chat, Sampling())).text for chat in CHATS]
    (card,) = session.cards
    assert "one machine" in card.warning
    room = room_of(strategy)
    before = meter.totals
    answer = await strategy.answer(session.bind("one"), CHATS[0])
    assert answer.text == clear[0]
    assert answer.generation.cpu_seconds > 0

    # What the ledger says crossed is what the proxies passed, to the byte.
    run = room._open.side._run  # type: ignore[union-attr]
    spent = [e.message for e in ledger.entries() if e.kind == JointSpent.__name__]
    passed = run.passed()
    assert sum(m.beside().up for m in spent) == passed[1, 0][0]
    assert sum(m.beside().down for m in spent) == passed[0, 1][0]
    crossed = meter.totals - before
    sizes = [e.size for e in ledger.entries() if e.request == "one"]
    assert crossed.bytes_up + crossed.bytes_down == sum(sizes) + sum(spent[-1].beside())
    assert spent[-1].seconds() > 0

    # The other engine is killed while both compute; the next answer is of a new run.
    for how in ("killed", "garbage"):
        await room.ready(session.lm)
        theirs = list(runs_of(head).pids)
        sent = sum(e.kind == Joint.__name__ for e in ledger.entries())
        computing = asyncio.create_task(strategy.answer(session, CHATS[1]))
        for _ in range(1000):
            if sum(e.kind == Joint.__name__ for e in ledger.entries()) > sent:
                break
            await asyncio.sleep(0.01)
        if how == "killed":
            os.kill(theirs[-1], signal.SIGKILL)
        else:
            port = room._open.side.at[0][1]  # type: ignore[union-attr]
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"no frame, and more of it")
            await writer.drain()
            writer.close()
        with pytest.raises(CosiloError, match=r"ended|broke off|no frame|failed"):
            await asyncio.wait_for(computing, 60)
        assert meter.reserved == NOTHING
        assert not any(map(alive, theirs))
    assert (await strategy.answer(session, CHATS[1])).text == clear[1]
    assert room.opened == 3
    await room.close()
    await head.close()
    assert runs_of(head).pids == []


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def written(folder: Path, name: str, more: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(NETWORK.format(name=name, more=more))
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def helping(path: Path) -> Process:
    command = [sys.executable, "-c", MAIN, "engines", "serve", "spu", str(path)]
    process = Process(command, cwd=path.parent)
    process.wait_for(r"a helper for clinic, lm-owner at 127\.0\.0\.1:\d+", seconds=60)
    return process


async def test_three_machines_speak_tls_and_a_helper_that_was_killed_may_come_back(
    tmp_path: Path,
) -> None:
    names = [CLIENT, "other", "lm-owner", "helper"]
    make_certificates(tmp_path / "certs", hosts=["localhost"], clients=names)
    port = free_port()
    at = f'helper_at = "localhost:{port}"'
    served = f'serve = "127.0.0.1:{port}"\nowners = ["lm-owner", "{CLIENT}"]'
    helper_file = written(tmp_path, "helper", served)
    written(tmp_path, "lm-owner", at)
    near = written(tmp_path, CLIENT, at)
    model = 'kind = "scripted"\nexposes = ["text", "joint"]\n[joint]\nnetwork = "lm-owner.toml"'
    head, ledger = private_head(tmp_path, most=0), MemoryLedger()
    helper = helping(helper_file)
    try:
        async with a_host(write_host(tmp_path, model=model), head) as host:
            way = the_way(tmp_path, host.port)
            owner = RemoteOwner(way, "lm-owner", f"party/{CLIENT}", exposes=SHOWS)
            strategy: Any = SecureHead(engine="spu", network=near)
            session = open_session(data_owner(), owner, strategy, ledger=ledger)
            strategy, session = await strategy.prepare(session)
            (card,) = session.cards
            assert card.warning == ""
            clear = [(await head.generate(chat, Sampling())).text for chat in CHATS]
            assert (await strategy.answer(session, CHATS[0])).text == clear[0]
            (links,) = [m.links for e in list(ledger.entries())[-1:] for m in [e.message]]
            assert {(a.sender, a.receiver) for a in links} == {
                (a, b) for a in range(3) for b in range(3) if a != b
            }
            assert min(link.bytes for link in links) > 0
            assert replace(links[0], bytes=0) != links[0]

            helper.stop(signal.SIGKILL)
            with pytest.raises(CosiloError):
                await asyncio.wait_for(strategy.answer(session, CHATS[1]), 60)
            with pytest.raises(CosiloError, match="helper"):
                await asyncio.wait_for(strategy.answer(session, CHATS[1]), 60)
            helper = helping(helper_file)
            assert (await strategy.answer(session, CHATS[1])).text == clear[1]
            await room_of(strategy).close()
            await owner.close()
    finally:
        assert helper.stop() == 0
