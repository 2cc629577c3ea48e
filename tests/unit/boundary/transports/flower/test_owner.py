"""An owner's way over Flower, with couriers played by this test and no Flower."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.transports.agreed import OURS
from cosilo.boundary.transports.flower import child, owner
from cosilo.boundary.transports.flower.owner import OverFlower
from cosilo.errors import CapabilityError, ConfigError, RejectedError, UnreachableError
from cosilo.host.certificates import make_certificates


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flower") / "certs"
    make_certificates(folder, hosts=["localhost"], clients=["bank"])
    return folder


def way(certs: Path, **options: Any) -> OverFlower:
    given: dict[str, Any] = {"ca": certs / "ca.pem", "key": certs / "client-bank.key"}
    return OverFlower("localhost:1", **given | options)


class Node:
    """A SuperNode that runs, and does nothing."""

    ends = 0
    last = ""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    class Open:
        node = Node()

        def __init__(self, way: OverFlower) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(owner, "_Open", Open)
    monkeypatch.setattr(owner, "COURIER_WAITS_S", 0.05)


async def courier(made: OverFlower, words: dict[str, str], body: bytes = b"") -> tuple[Any, bytes]:
    """What one that brings `words` and `body` goes back with."""
    frame = await asyncio.to_thread(made.exchanged, words, body)
    reader = asyncio.StreamReader()
    reader.feed_data(frame)
    return await owner_frames(reader)


async def owner_frames(reader: asyncio.StreamReader) -> tuple[Any, bytes]:
    from cosilo.boundary.transports.flower.couriers import frames

    return await frames.read(reader)


@pytest.mark.usefixtures("opened")
async def test_a_courier_takes_the_request_and_another_brings_its_answer(certs: Path) -> None:
    made = way(certs)
    assert await courier(made, {}) == ({}, b"")  # nothing is asked yet
    asking = asyncio.create_task(made.carry(b"first", name="a" * 32))
    while (taken := await courier(made, {})) == ({}, b""):
        pass
    assert taken == ({"id": "a" * 32, "speaks": OURS.header}, b"first")
    assert await courier(made, {}) == taken  # lost on the way: it is taken once more
    stale = {"id": "b" * 32, "speaks": OURS.header}
    assert await courier(made, stale, b"of another") == taken
    answer = {"id": "a" * 32, "speaks": OURS.header}
    assert await courier(made, answer, b"answer") == ({}, b"")
    assert await asking == b"answer"


@pytest.mark.usefixtures("opened")
async def test_requests_go_one_after_another(certs: Path) -> None:
    made = way(certs)
    both = [asyncio.create_task(made.carry(b, name=b.decode() * 32)) for b in (b"a", b"b")]
    words: dict[str, str] = {}
    for _ in both:
        while not (taken := await courier(made, words))[0]:
            words = {}
        words = {"id": taken[0]["id"], "speaks": OURS.header}
        await courier(made, words, taken[1].upper())
        words = {}
    assert await asyncio.gather(*both) == [b"A", b"B"]


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"failed": "the client's certificate is over", "speaks": OURS.header}, "is over"),
        ({"failed": "\x1b[2Jgone", "speaks": OURS.header}, r": +\[2Jgone$"),
        ({"speaks": "9.9"}, "speaks another version"),
        ({}, "speaks another version"),
    ],
)
async def test_an_answer_that_is_none_is_raised(
    certs: Path, words: dict[str, str], why: str
) -> None:
    made = way(certs)
    asking = asyncio.create_task(made.carry(b"x", name="a" * 32))
    while not (await courier(made, {}))[0]:
        pass
    await courier(made, {"id": "a" * 32, **words}, b"answer")
    with pytest.raises(RejectedError, match=why):
        await asking


@pytest.mark.usefixtures("opened")
async def test_patience_ends(certs: Path) -> None:
    with pytest.raises(UnreachableError, match="did not answer"):
        await way(certs, patience_s=0.01).carry(b"x")


@pytest.mark.usefixtures("opened")
async def test_nothing_comes_in_pieces(certs: Path) -> None:
    with pytest.raises(CapabilityError, match="no replies in pieces"):
        await anext(aiter(way(certs).carry_stream(b"x")))


async def test_a_supernode_that_does_not_run_is_told(
    certs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nread given\necho no Flower here\nexit 1\n")
    python.chmod(0o700)
    monkeypatch.setattr(child, "AGAIN_S", 0.01)
    made = way(certs, python=str(python))
    with pytest.raises(RejectedError, match="does not run: no Flower here"):
        await made.carry(b"x")
    folder = made._open._folder  # type: ignore[union-attr]
    assert folder.stat().st_mode & 0o077 == 0
    await made.close()
    await made.close()
    assert not folder.exists()


async def test_what_is_opened_for_who_gave_up_is_closed(
    certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, closed = threading.Event(), threading.Event(), []

    class Open:
        node = Node()

        def __init__(self, way: OverFlower) -> None:
            begun.set()
            goes_on.wait(10.0)

        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr(owner, "_Open", Open)
    made = way(certs)
    asking = asyncio.create_task(made.carry(b"x"))
    await asyncio.to_thread(begun.wait)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    closing = asyncio.create_task(made.close())
    goes_on.set()
    await closing
    assert len(closed) == 1
    await made.close()
    assert len(closed) == 1


def test_who_is_reached_without_a_proxy_stays_so() -> None:
    assert child.quieted({})["NO_PROXY"] == "127.0.0.1,localhost,::1"
    found = child.quieted({"no_proxy": "silo.example", "PATH": "/bin"})
    assert found["NO_PROXY"] == found["no_proxy"] == "silo.example,127.0.0.1,localhost,::1"
    assert (found["PATH"], found["FLWR_TELEMETRY_ENABLED"]) == ("/bin", "0")


def test_nothing_is_left_where_there_is_no_python(
    certs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be run"):
        asyncio.run(way(certs, python=str(tmp_path / "none")).carry(b"x"))
    assert not list(tmp_path.iterdir())
    for thread in threading.enumerate():
        if thread.name == "flower-owner":
            thread.join(5.0)
            assert not thread.is_alive()


def test_the_key_is_told_to_the_supernode_and_no_file_holds_it(
    certs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {}

    class Process:
        def __init__(self, which: str, given: Any, *, folder: Path, python: str) -> None:
            told.update(given(), folder=folder)

        def stop(self) -> None: ...

    monkeypatch.setattr(owner, "FlowerProcess", Process)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = owner._Open(way(certs))
    assert "OPENSSH PRIVATE KEY" in told["key"]
    assert [file.name for file in told["folder"].iterdir()] == ["owner"]  # the socket
    assert told["folder"].stat().st_mode & 0o077 == 0
    opened.close()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_used_is_named(certs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        OverFlower("https://x", ca=certs / "ca.pem", key=certs / "client-bank.key")
    with pytest.raises(ConfigError, match="cannot read"):
        way(certs, key=tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot read"):
        way(certs, ca=tmp_path / "none")
    with pytest.raises(ConfigError, match="no time above 0"):
        way(certs, patience_s=0.0)
    shown = tmp_path / "shown.key"
    shown.write_bytes((certs / "client-bank.key").read_bytes())
    shown.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        way(certs, key=shown)
    shown.chmod(0o600)
    shown.write_text("no key")
    with pytest.raises(ConfigError, match="holds no key"):
        way(certs, key=shown)
