"""A host forgets what a client asks it to, signs what it says, and is killed in the midst of it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration import hosts
from tests.integration.hosts import CLIENT, Asking, HostProcess, a_host, the_way, write_host

import federations
from cosilo.boundary.messages import (
    Ask,
    Contributed,
    Enrolled,
    Forget,
    Forgotten,
    NextRound,
    RoundState,
    decode,
    encode,
)
from cosilo.boundary.messages.forget import ForgottenItem, InFederation
from cosilo.boundary.record.ledger import Entry, MemoryLedger, connect, keys_of, opened
from cosilo.boundary.record.signed import Trust, require_signed
from cosilo.boundary.transports.agreed import new_id
from cosilo.cli import main
from cosilo.errors import RejectedError, StoreError
from cosilo.host.forgets import ClientForgets
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.to_forget import StillOpen, ask_to_forget
from cosilo.types import Sampling, user

PRIVATE = "Patient Zillow-Quark has 38.4 °C"
KEEP = 'keep = "content"\n'


def ask(text: str = PRIVATE) -> Ask:
    return Ask(chat=user(text), sampling=Sampling(max_tokens=100))


def forget(*requests: str, **named: Any) -> Forget:
    return Forget(**{"forget": new_id(), "requests": requests, **named})


def trust(folder: Path) -> Trust:
    return Trust.of("https://localhost:1", folder / "certs" / "ca.pem")


def written(folder: Path, more: str = "", **options: Any) -> Path:
    path = write_host(folder, **options)
    path.write_text(KEEP + path.read_text() + "[clients.other]\n" + more)
    return path


def known(folder: Path, said: bytes) -> bool:
    """Whether it is in the books: as it stands in any file, or to who has all of them."""
    whole = b"".join(p.read_bytes() for p in sorted((folder / "host").iterdir()))
    path = folder / "host" / "ledger.sqlite"
    with closing(connect(path)) as db, closing(keys_of(db)) as keys:
        entries = [opened(Entry(*row), keys) for row in db.execute("SELECT * FROM entries")]
    return said in whole or any(said in e.payload for e in entries if e.payload is not None)


async def test_a_request_that_is_forgotten_is_in_no_file_of_the_hosts(
    tmp_path: Path, asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ScriptedModel({"Zillow": "Quark rests.", "Kept": "As ever."})
    limits = "total = {prompts = 10}"
    async with a_host(written(tmp_path, clients=limits), model) as host:
        way, first, second = asking(host.port), new_id(), new_id()
        await way.carry(encode(ask()), name=first)
        await way.carry(encode(ask("Kept for good")), name=second)
        assert known(tmp_path, b"Zillow")
        ledger = MemoryLedger()
        message = forget(first, 32 * "0")
        told = await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path), ledger=ledger)
        assert isinstance(told, Forgotten)
        assert (told.client, told.by, told.stands) == (CLIENT, "lm-owner", False)
        assert told.outcomes == (
            ForgottenItem(what="request", how="deleted", names=(first,), count=1),
            ForgottenItem(what="request", how="nothing", names=(32 * "0",)),
        )
        assert not known(tmp_path, b"Zillow")
        assert not known(tmp_path, b"Quark rests")
        assert known(tmp_path, b"Kept for good")
        assert [entry.kind for entry in ledger.entries()] == ["Forget", "Forgotten"]
        with pytest.raises(RejectedError, match="kept no longer"):
            await way.carry(encode(ask()), name=first)
        assert decode(await way.carry(encode(ask("Kept for good")), name=second))
        assert host.services[CLIENT].books.account.taken.prompts == 2, "what it saw counts"
        again = await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path))
        assert again == told, "the same bytes, whenever it is asked"
    assert main(["audit", "verify", str(tmp_path / "host")]) == 0, capsys.readouterr()
    kept = decode(encode(told))
    assert isinstance(kept, Forgotten)
    require_signed(kept, trust(tmp_path))  # later, and with no host


async def test_anothers_request_is_nothing(tmp_path: Path, asking: Asking) -> None:
    async with a_host(written(tmp_path), ScriptedModel({"Zillow": "Rest."})) as host:
        name = new_id()
        await asking(host.port).carry(encode(ask()), name=name)
        theirs = asking(host.port, client="other")
        told = await ask_to_forget(theirs, forget(name), until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)
        assert told.outcomes == (ForgottenItem(what="request", how="nothing", names=(name,)),)
        everything = forget(everything=True, requests=())
        told = await ask_to_forget(theirs, everything, until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)
        assert told.outcomes == ()
        assert known(tmp_path, b"Zillow")
        own = await ask_to_forget(
            asking(host.port), forget(everything=True), until=1e12, trust=trust(tmp_path)
        )
        assert isinstance(own, Forgotten)
        assert [(o.how, o.count) for o in own.outcomes] == [("deleted", 1)]
        assert not known(tmp_path, b"Zillow")


async def test_an_id_that_another_chose_too_is_forgotten_for_the_one_alone(
    tmp_path: Path, asking: Asking
) -> None:
    async with a_host(written(tmp_path), ScriptedModel({"Zillow": "Quark rests."})) as host:
        way, theirs, name = asking(host.port), asking(host.port, client="other"), new_id()
        await way.carry(encode(ask()), name=name)
        await theirs.carry(encode(ask("Kept for good")), name=name)
        told = await ask_to_forget(way, forget(name), until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)
        assert told.outcomes == (  # as if nobody else had it, so nobody learns that
            ForgottenItem(what="request", how="deleted", names=(name,), count=1),
        )
        assert not known(tmp_path, b"Zillow")
        assert known(tmp_path, b"Kept for good")
        with (
            closing(connect(tmp_path / "host" / "ledger.sqlite")) as db,
            closing(keys_of(db)) as keys,
        ):
            rows = db.execute("SELECT * FROM entries WHERE request = ?", (name,)).fetchall()
            left = {
                (e.chain, e.key == "forgotten") for e in (opened(Entry(*r), keys) for r in rows)
            }
        assert left == {(CLIENT, True), ("other", False)}
        assert decode(await theirs.carry(encode(ask("Kept for good")), name=name))


async def test_an_answer_that_was_kept_no_longer_is_in_no_free_page(
    tmp_path: Path, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = sqlite3.connect

    def as_built_elsewhere(*args: Any, **options: Any) -> sqlite3.Connection:
        db = inner(*args, **options)
        db.execute("PRAGMA secure_delete = OFF")
        return db

    monkeypatch.setattr(sqlite3, "connect", as_built_elsewhere)
    model = ScriptedModel({"Zillow": "Quark rests. " * 1000, "Kept": "As ever."})
    async with a_host(written(tmp_path, more="[answers]\ncount = 1\n"), model) as host:
        way, name = asking(host.port), new_id()
        await way.carry(encode(ask()), name=name)
        await way.carry(encode(ask("Kept for good")))
        assert not host.services[CLIENT].books.begun(name)
        told = await ask_to_forget(way, forget(name), until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)
        assert told.outcomes[0].how == "deleted"
        assert not known(tmp_path, b"Quark rests")


async def test_what_law_has_kept_is_told(tmp_path: Path, asking: Asking) -> None:
    path = written(tmp_path, more="[forget]\ncontents = false\n")
    async with a_host(path, ScriptedModel({"Zillow": "Rest."})) as host:
        way, name = asking(host.port), new_id()
        await way.carry(encode(ask()), name=name)
        told = await ask_to_forget(way, forget(name), until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)
        assert told.outcomes[0].how == "cannot"
        assert told.outcomes[0].left == ("digests", "contents")
        assert told.stands
        assert known(tmp_path, b"Zillow")
        with pytest.raises(RejectedError, match="kept no longer"):
            await way.carry(encode(ask()), name=name)


async def test_what_was_under_way_when_a_host_died_is_taken_and_gone(
    tmp_path: Path, asking: Asking
) -> None:
    path, name = written(tmp_path), new_id()
    async with a_host(path, ScriptedModel({"Zillow": "Rest."})) as host:
        await asking(host.port).carry(encode(ask()), name=name)
        taken = host.services[CLIENT].books.account.taken
    with sqlite3.connect(tmp_path / "host" / "ledger.sqlite") as db:  # as if it had died before
        db.execute("UPDATE requests SET answer = NULL")
        db.execute("DELETE FROM taken")
    db.close()
    async with a_host(path, ScriptedModel()) as host:
        account = host.services[CLIENT].books.account
        assert (account.taken.messages, account._held.messages) == (0, 1)
        told = await ask_to_forget(
            asking(host.port), forget(name), until=1e12, trust=trust(tmp_path)
        )
        assert isinstance(told, Forgotten)
        assert told.outcomes[0].how == "deleted"
        assert (account.taken.messages, account._held.messages) == (2, 0)
        assert account.taken.tokens_in >= taken.tokens_in
    async with a_host(path, ScriptedModel()) as host:
        assert host.services[CLIENT].books.account.taken.messages == 2
        assert not known(tmp_path, b"Zillow")


async def test_what_is_worked_on_stays_open(tmp_path: Path, asking: Asking) -> None:
    class Slow(ScriptedModel):
        async def generate(self, chat: Any, sampling: Any) -> Any:
            nonlocal told
            told = await ask_to_forget(way, message, until=0.0, trust=trust(tmp_path))
            return await super().generate(chat, sampling)

    told: object = None
    async with a_host(written(tmp_path), Slow({"Zillow": "Rest."})) as host:
        way, name = asking(host.port), new_id()
        message = forget(name)
        await way.carry(encode(ask()), name=name)
        assert isinstance(told, StillOpen)
        assert "worked on now" in told.why
        assert told.late()
        again = await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path))
        assert isinstance(again, Forgotten), again
        assert again.outcomes[0].how == "deleted"


async def test_a_host_that_is_away_or_signs_as_another_leaves_it_open(
    tmp_path: Path, asking: Asking
) -> None:
    message = forget(32 * "1")
    path = written(tmp_path)
    async with a_host(path, ScriptedModel()) as host:
        other = Trust(ca=trust(tmp_path).ca, host="lm.example")
        told = await ask_to_forget(asking(host.port), message, until=9.0, trust=other)
        assert isinstance(told, StillOpen)
        assert "not 'lm.example'" in told.why
        assert told.answer is not None
        port = host.port
    away = asking(port, patience_s=0.2)
    told = await ask_to_forget(away, message, until=9.0, trust=trust(tmp_path))
    assert isinstance(told, StillOpen)
    assert told.answer is None
    async with a_host(path, ScriptedModel()) as host:
        told = await ask_to_forget(asking(host.port), message, until=9.0, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)


async def test_books_from_before_there_was_forgetting_are_opened(
    tmp_path: Path, asking: Asking
) -> None:
    path = written(tmp_path, clients="total = {prompts = 10}")
    async with a_host(path, ScriptedModel({"Zillow": "Rest."})) as host:
        await asking(host.port).carry(encode(ask()))
    with sqlite3.connect(tmp_path / "host" / "ledger.sqlite") as db:
        db.execute("DROP TABLE forgets")
        db.execute("ALTER TABLE prompts DROP COLUMN request")
    db.close()
    async with a_host(path, ScriptedModel({"Zillow": "Rest."})) as host:
        way = asking(host.port)
        await way.carry(encode(ask()))
        assert host.services[CLIENT].books.account.taken.prompts == 1
        told = await ask_to_forget(way, forget(everything=True), until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)


DIES = """
import os, signal
from cosilo.host.forgets import ClientForgets
inner = ClientForgets.forget
def dies(self, *args):
    inner(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)
ClientForgets.forget = dies
"""
MOMENTS = [(which, after) for which in ("plan", "forget", "answered") for after in (False, True)]


@pytest.mark.parametrize(("which", "after"), MOMENTS)
async def test_a_fault_at_any_moment_leaves_it_open_and_changes_no_answer(
    tmp_path: Path, asking: Asking, which: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = written(tmp_path), new_id()
    message, inner = forget(name), getattr(ClientForgets, which)

    def fails(*args: Any) -> None:
        if after:
            inner(*args)
        raise StoreError("the disk is full")

    async with a_host(path, ScriptedModel({"Zillow": "Quark rests."})) as host:
        way = asking(host.port)
        await way.carry(encode(ask()), name=name)
        with monkeypatch.context() as now:
            now.setattr(ClientForgets, which, fails)
            told = await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path))
        assert isinstance(told, StillOpen)
    async with a_host(path, ScriptedModel()) as host:
        way = asking(host.port)
        told = await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path))
        assert isinstance(told, Forgotten)
        assert told.outcomes == (
            ForgottenItem(what="request", how="deleted", names=(name,), count=1),
        )
        assert not known(tmp_path, b"Zillow")


def test_killed_in_the_midst_it_ends_in_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, model='kind = "scripted"\nreplies = {Zillow = "Quark rests."}')
    name, message = new_id(), forget()

    async def carried(port: int) -> None:
        way = the_way(tmp_path, port)
        await way.carry(encode(ask()), name=name)
        await way.close()

    async def asked(port: int, patience_s: float = 20.0) -> object:
        way = the_way(tmp_path, port, patience_s=patience_s)
        try:
            return await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path))
        finally:
            await way.close()

    message = forget(name)
    usual = hosts.MAIN
    monkeypatch.setattr(hosts, "MAIN", DIES + usual)
    host = HostProcess(path)
    try:
        asyncio.run(carried(host.port))
        assert isinstance(asyncio.run(asked(host.port, patience_s=0.5)), StillOpen)
    finally:
        host.kill()
    monkeypatch.setattr(hosts, "MAIN", usual)
    host = HostProcess(path)
    try:
        told = asyncio.run(asked(host.port))
        assert isinstance(told, Forgotten), told
        assert told.outcomes == (
            ForgottenItem(what="request", how="deleted", names=(name,), count=1),
        )
        assert not known(tmp_path, b"Zillow")
        assert asyncio.run(asked(host.port)) == told
    finally:
        host.kill()
    assert main(["audit", "verify", str(tmp_path / "host")]) == 0


FEDERATION = "[federation]\nrounds = 2\nrank = 2\nkeep_updates = 1\n"
KILLS = """
import os, signal
from cosilo.parties.coordinating.book import FederationBook
inner = FederationBook.take_back
def dies(self, *args):
    inner(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)
FederationBook.take_back = dies
"""


async def gave(way: Any, number: int, seed: int, have: int = 0, epoch: int = 0) -> str:
    """An owner enrols and gives an update; the federation's name."""
    enrolled = decode(await way.carry(encode(federations.enrol(epoch=epoch))))
    assert isinstance(enrolled, Enrolled)
    update = federations.update(enrolled.federation, number, seed, epoch=epoch)
    told = decode(await way.carry(encode(update)))
    assert isinstance(told, Contributed), told
    assert told.fate == "taken"
    return enrolled.federation


def test_a_coordinator_killed_in_the_midst_tells_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, more=FEDERATION)
    message = forget(32 * "0")
    packed = federations.update("x", 1, seed=1).packed

    async def rounds(port: int) -> str:
        mine, theirs = (the_way(tmp_path, port, client=name) for name in (CLIENT, "other"))
        await theirs.carry(encode(federations.enrol()))
        name = await gave(mine, 1, seed=1)
        await gave(theirs, 1, seed=2)
        await mine.close()
        await theirs.close()
        return name

    async def asked(port: int, client: str = CLIENT, patience_s: float = 20.0) -> Any:
        way = the_way(tmp_path, port, client=client, patience_s=patience_s)
        try:
            return await ask_to_forget(way, message, until=1e12, trust=trust(tmp_path))
        finally:
            await way.close()

    usual = hosts.MAIN
    monkeypatch.setattr(hosts, "MAIN", KILLS + usual)
    host = HostProcess(path)
    try:
        name = asyncio.run(rounds(host.port))
        assert known(tmp_path, packed[200:260])
        own = InFederation(federation=name)
        message = Forget(forget=new_id(), federations=(own, InFederation(federation=32 * "0")))
        assert isinstance(asyncio.run(asked(host.port, patience_s=0.5)), StillOpen)
    finally:
        host.kill()
    monkeypatch.setattr(hosts, "MAIN", usual)
    host = HostProcess(path)
    try:
        told = asyncio.run(asked(host.port))
        assert isinstance(told, Forgotten), told
        found, nothing = told.outcomes
        assert (found.how, found.first, found.last, found.names) == ("redone", 1, 1, (name,))
        assert found.before != found.after != ""
        assert found.left == ("others were given it", "others' records")
        assert nothing.how == "nothing"
        assert not known(tmp_path, packed[200:260])

        async def goes_on() -> None:
            other = the_way(tmp_path, host.port, client="other")
            state = decode(await other.carry(encode(NextRound(federation=name, have=0, most=9999))))
            assert isinstance(state, RoundState)
            assert (state.state, state.closed, state.epoch) == ("back", 1, 1)
            await gave(other, 2, seed=4, epoch=1)
            last = NextRound(federation=name, have=1, most=9999, epoch=1)
            state = decode(await other.carry(encode(last)))
            assert isinstance(state, RoundState)
            assert (state.state, state.closed) == ("ended", 2)
            await other.close()

        asyncio.run(goes_on())
    finally:
        host.kill()
    assert main(["audit", "verify", str(tmp_path / "host")]) == 0
