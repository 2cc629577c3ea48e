"""The same owners, strategy and coordinator over Flower's SuperLink and SuperNodes as over our own."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.integration.flowers import OWNERS, coordinator, party, python, way

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CapabilityError, RejectedError
from cosilo.host.config import load_host
from cosilo.host.process import Listener, listening
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.kind import NoModel
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Demonstration, Sampling, user
from white_box import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LABELS = ("refund", "billing", "delivery")
HOW: dict[str, Any] = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "rank": 2}


def owner(of: int, seed: int = 1) -> DataOwner:
    private = tuple(
        Demonstration(f"{of}-{i}", user(f"about {i % 5}"), LABELS[of if i % 4 else (of + 1) % 3])
        for i in range(8)
    )
    return DataOwner(tiny(seed), private=private)


async def takes_part(
    peer: Any, of: int, folder: Path, ledger: Any = None, seed: int = 1
) -> Session:
    strategy = strategies.create("federated", checkpoints=folder / f"owner-{of}", **HOW)
    session = open_session(
        owner(of, seed), peer, strategy, sampling=Sampling(choices=LABELS), ledger=ledger
    )
    return (await strategy.prepare(session))[1]


def adapters(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as db:
        return [packed for (packed,) in db.execute("SELECT packed FROM rounds ORDER BY number")]


def undisturbed(folder: Path, rounds: int) -> list[bytes]:
    """The adapter of each round where all is in this process."""
    path = folder / "undisturbed.sqlite"
    settings = FederationSettings(owners=OWNERS, rounds=rounds, rank=2, momentum=0.7)

    async def run() -> None:
        at = Federation(settings, path)
        parties = [LMOwner(ScriptedModel(), client=name, federation=at) for name in OWNERS]
        await asyncio.gather(*(takes_part(p, of, folder / "there") for of, p in enumerate(parties)))
        at.close()

    asyncio.run(run())
    return adapters(path)


async def updates_in(path: Path, count: int) -> None:
    """Wait until so many updates have come."""
    while True:
        with sqlite3.connect(path) as db:
            if db.execute("SELECT count(*) FROM updates").fetchone()[0] >= count:
                return
        await asyncio.sleep(0.02)


async def closed(folder: Path, port: int) -> list[int]:
    """What the SuperLink says to who is no node: to start a run, to hand out a task, and so on."""
    context = ssl.create_default_context(cafile=folder / "certs" / "ca.pem")
    found = []
    for path, header in (
        ("/v1/control/start-run", "Content-Length: 0"),
        ("/v1/runtime/acquire-task", f"Cosilo-Key: {'0' * 64}"),
        ("/health", "Content-Length: 0"),
        ("/v1/fleet/pull-messages", f"Content-Length: {1 << 40}"),
        ("/v1/fleet/pull-messages", "Transfer-Encoding: chunked"),
        ("/v1/fleet/pull-messages", "Content-Length: 1\r\nTransfer-Encoding: chunked"),
        ("/v1/fleet/pull-messages", "Content-Length: 0"),
    ):
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        kind = "Content-Type: application/protobuf\r\nAccept: application/protobuf"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{kind}\r\n{header}\r\n\r\n".encode())
        found.append(int((await reader.readline()).split()[1]))
        writer.close()
    return found


def superlink(host: Listener) -> Any:
    return host._superlink._process  # type: ignore[union-attr]


def test_the_same_adapter_to_the_bit_also_where_superlink_and_supernodes_are_killed(
    tmp_path: Path,
) -> None:
    python()
    ledgers = [MemoryLedger(name) for name in OWNERS]
    file = coordinator(tmp_path, federation="momentum = 0.7")

    async def run() -> None:
        async with listening(load_host(file), NoModel()) as host:
            ways = [way(tmp_path, host.port, name) for name in OWNERS]
            book = tmp_path / "host" / "federation.sqlite"
            tasks = [
                asyncio.create_task(takes_part(party(w), of, tmp_path / "flower", ledgers[of]))
                for of, w in enumerate(ways)
            ]
            try:
                await updates_in(book, 2)
                os.kill(superlink(host).pid, signal.SIGKILL)
                await updates_in(book, 4)
                assert ways[1]._open is not None
                os.kill(ways[1]._open.node.pid, signal.SIGKILL)
                sessions = await asyncio.gather(*tasks)
            finally:
                await asyncio.gather(*(w.close() for w in ways))
            assert superlink(host).ends == 1
        for session in sessions:
            assert session.cards[-1].facts["updates taken"] == 2

    asyncio.run(run())
    book = tmp_path / "host" / "federation.sqlite"
    assert adapters(book) == undisturbed(tmp_path, 2)
    with sqlite3.connect(book) as db:
        found = db.execute("SELECT fate, count(*), count(packed) FROM updates GROUP BY fate")
        assert found.fetchall() == [("taken", 6, 0)]
    for ledger in ledgers:  # what crossed is on record as over any other way
        kinds = [entry.kind for entry in ledger.entries() if entry.direction == "up"]
        assert kinds.count("Contribute") == 2


def test_no_node_ends_what_is_carried_for_others() -> None:
    script = Path(__file__).with_name("hostile_nodes.py")
    done = subprocess.run([python(), str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_owner_with_another_base_is_refused_and_so_is_a_stranger(tmp_path: Path) -> None:
    python()

    async def run() -> None:
        async with listening(load_host(coordinator(tmp_path)), NoModel()) as host:
            first, other = (way(tmp_path, host.port, name) for name in OWNERS[:2])
            stranger = way(tmp_path, host.port, "stranger")
            waiting = asyncio.create_task(takes_part(party(first), 0, tmp_path))
            try:
                with pytest.raises(RejectedError, match="SuperNode does not run"):
                    await takes_part(party(stranger), 2, tmp_path)
                with pytest.raises(CapabilityError, match="all owners must have the same"):
                    await takes_part(party(other), 1, tmp_path, seed=2)
                assert await closed(tmp_path, host.port) == [404, 404, 404, 413, 413, 400, 401]
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await asyncio.gather(*(w.close() for w in (first, other, stranger)))

    asyncio.run(run())
