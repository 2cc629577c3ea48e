"""An LM owner behind HTTPS: who gets an answer, and who gets nothing."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import msgspec
import numpy as np
import pytest
from tests.integration.hosts import CLIENT, Asking, a_host, host_process, the_way, write_host

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import (
    Ask,
    Completion,
    Piece,
    Read,
    Refused,
    Score,
    Scored,
    Step,
    Steps,
    decode,
    encode,
)
from cosilo.boundary.messages.step import ThreadName
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports import agreed, tls
from cosilo.boundary.transports.agreed import HELLO, ID, SPEAKS, new_id
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    RejectedError,
    UnreachableError,
)
from cosilo.host import certificates
from cosilo.models.base import Access, Tokens
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, user
from toy_lm import ToyLM
from toy_thread import ToyThreads

PRIVATE = "Patient Zillow-Quark has 38.4 °C"


def ask(text: str = PRIVATE) -> Ask:
    return Ask(chat=user(text), sampling=Sampling(max_tokens=100))


def model() -> ScriptedModel:
    return ScriptedModel({"Patient": "Rest and drink."})


async def test_the_same_answers_and_the_same_bytes_as_in_process(
    tmp_path: Path, asking: Asking
) -> None:
    async def crossed(boundary: Boundary) -> list[tuple[str, bytes]]:
        channel = boundary.bind("item")
        await channel.send(ask())
        async for _ in channel.stream(ask("and then?")):
            pass
        with pytest.raises(CapabilityError, match="exposes text"):
            await channel.send(Read(texts=("a",)))
        ledger = boundary.ledger
        assert isinstance(ledger, MemoryLedger)
        return [(entry.direction, entry.payload or b"") for entry in ledger.entries()]

    declared = frozenset({Ask, Read})
    inside = Boundary(InProcess(LMOwner(model())), declared=declared)
    path = write_host(tmp_path)
    async with a_host(path, model()) as host:
        way = asking(host.port)
        there = Boundary(way, declared=declared)
        assert await crossed(there) == await crossed(inside)
        assert there.totals == inside.totals


def test_two_processes(tmp_path: Path) -> None:
    path = write_host(tmp_path, model='kind = "scripted"\nreplies = {Patient = "Rest."}')

    async def talk(port: int) -> tuple[str, str]:
        way = the_way(tmp_path, port)
        said = await way.hello()
        reply = decode(await way.carry(encode(ask())))
        assert isinstance(reply, Completion)
        pieces = [decode(piece) async for piece in way.carry_stream(encode(ask()))]
        await way.close()
        assert all(isinstance(piece, Piece) for piece in pieces)
        return said.model, reply.generation.text

    with host_process(path) as host:
        assert asyncio.run(talk(host.port)) == ("scripted", "Rest.")
        assert host.stop() == 0
        lines = "".join(host.process.lines)
    assert "Zillow" not in lines
    assert len(lines.splitlines()) == 1


Spoil = Callable[[Path], dict[str, str]]


def expired(folder: Path) -> dict[str, str]:
    authority = certificates._read(folder)
    long_ago = datetime.now(UTC) - timedelta(days=9)
    signed = certificates.issue(authority, "client", CLIENT, days=3, since=long_ago)
    certificates._write(folder, "expired", signed)
    return {"cert": "expired.pem", "key": "expired.key"}


def of_another_authority(folder: Path) -> dict[str, str]:
    signed = certificates.issue(certificates.new_authority(), "client", CLIENT)
    certificates._write(folder, "stranger", signed)
    return {"cert": "stranger.pem", "key": "stranger.key"}


def of_a_host(folder: Path) -> dict[str, str]:
    return {"cert": "host-localhost.pem", "key": "host-localhost.key"}


def of_another_name(folder: Path) -> dict[str, str]:
    return {"cert": "client-other.pem", "key": "client-other.key"}


@pytest.mark.parametrize("spoil", [expired, of_another_authority, of_a_host, of_another_name])
async def test_a_certificate_that_is_not_a_clients_gets_nothing(
    tmp_path: Path, asking: Asking, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_require_in_time", lambda _: None)  # a client that does not look
    lm = model()
    async with a_host(write_host(tmp_path), lm) as host:
        certs = tmp_path / "certs"
        files = {"ca": "ca.pem", **spoil(certs)}
        way = asking(host.port, **{k: certs / v for k, v in files.items()}, patience_s=0.2)
        with pytest.raises((RejectedError, UnreachableError), match="certificate"):
            await way.carry(encode(ask()))
        assert not lm.seen
        assert not list(host.services[CLIENT].books.ledger.entries())


async def test_an_own_certificate_whose_time_is_over_is_told_at_once(
    tmp_path: Path, asking: Asking
) -> None:
    async with a_host(write_host(tmp_path), model()) as host:
        certs = tmp_path / "certs"
        files = {"ca": "ca.pem", **expired(certs)}
        with pytest.raises(
            ConfigError, match=r"'.*expired\.pem' was over at .* UTC; get a new one"
        ):
            await asking(host.port, **{k: certs / v for k, v in files.items()}).carry(encode(ask()))


async def test_without_a_certificate_there_is_no_word(tmp_path: Path) -> None:
    async with a_host(write_host(tmp_path), model()) as host:
        context = ssl.create_default_context(cafile=tmp_path / "certs" / "ca.pem")
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"https://localhost:{host.port}{HELLO}", ssl=context)


async def test_a_host_of_another_name_is_sent_nothing(tmp_path: Path, asking: Asking) -> None:
    path = write_host(tmp_path)
    certificates.make_certificates(tmp_path / "certs", hosts=["elsewhere.example"], clients=[])
    path.write_text(path.read_text().replace("host-localhost", "host-elsewhere.example"))
    lm = model()
    async with a_host(path, lm) as host:
        way = asking(host.port)
        with pytest.raises(RejectedError, match=r"not accepted \(.*mismatch.*nothing was sent"):
            await way.carry(encode(ask()))
        way = asking(host.port, server_name="elsewhere.example")
        assert isinstance(decode(await way.carry(encode(ask()))), Completion)


async def test_another_version_is_named_on_both_sides_and_nothing_is_sent(
    tmp_path: Path, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = model()
    async with a_host(write_host(tmp_path), lm) as host:
        said = host._server._said
        host._server._said = msgspec.structs.replace(said, protocol=7)
        way = asking(host.port)
        with pytest.raises(
            RejectedError, match=r"speaks protocol 7, messages 1; here it is protocol 1, messages 1"
        ):
            await way.carry(encode(ask()))
        assert not lm.seen
        host._server._said = said
        # A client that does not look: the host does.
        monkeypatch.setattr(
            "cosilo.boundary.transports.http.OURS", agreed.Versions(protocol=1, messages=9)
        )
        host._server._said = msgspec.structs.replace(said, messages=9)
        way = asking(host.port)
        with pytest.raises(
            RejectedError, match=r"speaks protocol 1, messages 1; the client .* 1\.9"
        ):
            await way.carry(encode(ask()))
        assert not lm.seen


async def test_a_host_that_changes_its_version_is_noticed_before_anything_is_sent(
    tmp_path: Path,
    asking: Asking,
) -> None:
    path = write_host(tmp_path)
    lm = model()
    async with a_host(path, lm) as host:
        way = asking(host.port)
        await way.carry(encode(ask()))
    path = write_host(tmp_path, port=host.port)
    async with a_host(path, lm) as host:
        host._server._said = msgspec.structs.replace(host._server._said, messages=2)
        with pytest.raises(RejectedError, match="messages 2"):
            await way.carry(encode(ask()))
    assert len(lm.seen) == 1


async def test_a_clock_that_differs_is_said_and_no_error(
    tmp_path: Path,
    asking: Asking,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_host(write_host(tmp_path), model()) as host:
        monkeypatch.setattr("cosilo.host.server.time", SimpleNamespace(time=lambda: 86400.0))
        way = asking(host.port)
        with caplog.at_level(logging.WARNING):
            await way.hello()
    assert "clock of the host at localhost" in caplog.text


async def test_a_request_is_answered_once(tmp_path: Path, asking: Asking) -> None:
    lm = model()
    async with a_host(write_host(tmp_path), lm) as host:
        service = host.services[CLIENT]
        name, payload = new_id(), encode(ask())
        first, second = await asyncio.gather(*(service.answer(name, payload) for _ in range(2)))
        assert first == second == await service.answer(name, payload)
        assert len(lm.seen) == 1
        assert len(list(service.books.ledger.entries())) == 2
        assert service.books.account.taken.messages == 1
        way = asking(host.port)
        with pytest.raises(RejectedError, match="belongs to another request"):
            async with way._post("/v1/carry", encode(ask("Patient two")), {ID: name}):
                pass


async def test_an_answer_outlives_the_host(tmp_path: Path) -> None:
    path, lm = write_host(tmp_path, clients="total = {usd = 1.0}"), model()
    name, payload = new_id(), encode(ask())
    async with a_host(path, lm) as host:
        answer = await host.services[CLIENT].answer(name, payload)
        pieces = [f async for f in host.services[CLIENT].answer_in_pieces(new_id(), payload)]
        taken = host.services[CLIENT].books.account.taken
    async with a_host(path, lm) as host:
        assert await host.services[CLIENT].answer(name, payload) == answer
        assert host.services[CLIENT].books.account.taken == taken
        assert len(pieces) == 5
        assert len(lm.seen) == 2


async def test_an_answer_that_is_kept_no_longer_is_not_worked_out_again(tmp_path: Path) -> None:
    path, lm = write_host(tmp_path), model()
    path.write_text(path.read_text() + "\n[answers]\ncount = 1\n")
    async with a_host(path, lm) as host:
        service = host.services[CLIENT]
        name = new_id()
        await service.answer(name, encode(ask()))
        await service.answer(new_id(), encode(ask()))
        with pytest.raises(Exception, match="kept no longer"):
            await service.answer(name, encode(ask()))
    assert len(lm.seen) == 2


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ("total = {messages = 2}", "2 messages in all"),
        ("day = {messages = 2}", "2 messages a day"),
        ("total = {tokens_out = 103}", "103 tokens_out in all"),
        ("total = {usd = 0.000349}", "0.000349 usd in all"),
        ("total = {prompts = 2}", "2 prompts in all"),
    ],
)
async def test_more_than_a_client_may_take_is_refused_before_the_model_works(
    tmp_path: Path, asking: Asking, limits: str, what: str
) -> None:
    path, lm = write_host(tmp_path, clients=limits), model()
    async with a_host(path, lm) as host:
        way = asking(host.port)
        boundary = Boundary(way, declared=frozenset({Ask}))

        async def ask_often() -> None:
            for number in range(5):
                await boundary.send(ask(f"Patient {number}"))

        with pytest.raises(BudgetExceededError, match=what) as refused:
            await ask_often()
        assert "The model was not asked" in str(refused.value)
        assert CLIENT in str(refused.value)
        assert boundary.totals.usd == 0
        worked = len(lm.seen)
        assert 0 < worked < 5
    async with a_host(path, lm) as host:  # and neither after a restart
        way = asking(host.port)
        reply = decode(await way.carry(encode(ask("Patient nine"))))
        assert isinstance(reply, Refused)
        assert len(lm.seen) == worked


@pytest.mark.parametrize(
    ("limits", "request_", "what"),
    [
        (
            "total = {logits = 700}",
            Score(items=(Scored(user("a"), "b"),), top=64),
            "700 logits in all",
        ),
        ("day = {states = 5}", Read(texts=("one", "two", "three")), "5 states a day"),
        ("total = {prompts = 5}", Read(texts=("one", "two", "three")), ""),
    ],
)
async def test_more_than_its_exposure_allowance_is_refused_before_the_model_works(
    tmp_path: Path, asking: Asking, limits: str, request_: Score | Read, what: str
) -> None:
    class Shown(ToyLM):
        """Counts how often it is run, and shows states that are its output layer's."""

        access = Access.ACTIVATIONS
        layers, runs = 1, 0

        async def logits(self, sequences):  # type: ignore[no-untyped-def]
            self.runs += 1
            return await super().logits(sequences)

        def plain(self, text: str) -> Tokens:
            return self.tokenize(user(text), "")

        async def activations(self, sequences, layer):  # type: ignore[no-untyped-def]
            self.runs += 1
            return [np.ones((len(tokens), 4), np.float32) for tokens in sequences]

    lm = Shown()
    served = 'kind = "scripted"\nexposes = "activations"'
    async with a_host(write_host(tmp_path, model=served, clients=limits), lm) as host:
        way = asking(host.port)
        answers = [decode(await way.carry(encode(request_))) for _ in range(3)]
        kinds = [type(answer) for answer in answers]
        taken = host.services[CLIENT].books.account.taken
        if not what:  # the same texts again are no new ones
            assert Refused not in kinds
            assert (taken.prompts, taken.states) == (3, 9)
            return
        assert kinds == [request_.reply, Refused, Refused]
        assert isinstance(answers[1], Refused)
        assert what in answers[1].text
        assert "The model was not asked" in answers[1].text
        assert lm.runs == 1
        assert 0 < taken.logits + taken.states < 700


async def test_a_prompt_sent_before_is_no_new_one(tmp_path: Path) -> None:
    path, lm = write_host(tmp_path, clients="total = {prompts = 1}"), model()
    async with a_host(path, lm) as host:
        service = host.services[CLIENT]
        for _ in range(3):
            assert isinstance(decode(await service.answer(new_id(), encode(ask()))), Completion)
        assert isinstance(decode(await service.answer(new_id(), encode(ask("two")))), Refused)


async def test_one_clients_requests_do_not_hold_up_anothers(tmp_path: Path, asking: Asking) -> None:
    path = write_host(tmp_path, clients="at_once = 1")
    path.write_text(path.read_text() + "\n[clients.other]\n")
    waiting = asyncio.Event()

    class Slow(ScriptedModel):
        async def generate(self, chat, sampling):  # type: ignore[no-untyped-def]
            if "slow" in chat[-1].content:
                await waiting.wait()
            return await super().generate(chat, sampling)

    async with a_host(path, Slow()) as host:
        one, two = asking(host.port), asking(host.port, client="other")
        slow = [asyncio.create_task(one.carry(encode(ask(f"slow {n}")))) for n in range(9)]
        assert isinstance(decode(await two.carry(encode(ask("quick")))), Completion)
        assert not any(task.done() for task in slow)
        waiting.set()
        await asyncio.gather(*slow)


async def test_what_a_client_may_see_can_be_less_than_the_owner_exposes(
    tmp_path: Path, asking: Asking
) -> None:
    path = write_host(tmp_path, model='kind = "scripted"\nexposes = "logprobs"')
    path.write_text(path.read_text() + '\n[clients.other]\nexposes = "text"\n')
    async with a_host(path, model()) as host:
        for client, shown in ((CLIENT, True), ("other", False)):
            way = asking(host.port, client=client)
            reply = decode(await way.carry(encode(ask())))
            assert isinstance(reply, Completion)
            assert bool(reply.generation.tokens) is shown
            assert (await way.hello()).exposes == ("logprobs" if shown else "text")


async def test_limits_are_read_again(tmp_path: Path, asking: Asking) -> None:
    from cosilo.host.config import load_host

    path = write_host(tmp_path)
    async with a_host(path, model()) as host:
        way = asking(host.port)
        assert isinstance(decode(await way.carry(encode(ask()))), Completion)
        write_host(tmp_path, clients="total = {messages = 1}")
        host.read_again(lambda: load_host(path))
        assert isinstance(decode(await way.carry(encode(ask()))), Refused)
        path.write_text("nonsense")
        host.read_again(lambda: load_host(path))  # stays as it was
        assert isinstance(decode(await way.carry(encode(ask()))), Refused)
        path = write_host(tmp_path)
        path.write_text(path.read_text().replace(f"[clients.{CLIENT}]", "[clients.other]"))
        host.read_again(lambda: load_host(path))
        with pytest.raises(RejectedError, match="knows no client"):
            await way.carry(encode(ask()))


async def test_what_is_no_request_is_refused_and_nothing_else(
    tmp_path: Path, asking: Asking
) -> None:
    async with a_host(write_host(tmp_path, listen="max_body_bytes = 1000"), model()) as host:
        way = asking(host.port)
        for payload in (b"", b"nonsense", encode(Refused(kind="", text=""))):
            refused = decode(await way.carry(payload))
            assert isinstance(refused, Refused)
            assert refused.kind == "UnexpectedReplyError"
        with pytest.raises(RejectedError, match=r"413.*more than a request may have"):
            await way.carry(bytes(1001))
        for headers, status in (({ID: "x"}, 400), ({ID: new_id(), SPEAKS: "0.1"}, 426)):
            with pytest.raises(RejectedError, match=f"HTTP {status}"):
                async with way._post("/v1/carry", b"", headers):
                    pass
        pieces = [decode(p) async for p in way.carry_stream(encode(Read(texts=("a",))))]
        assert [type(piece) for piece in pieces] == [Refused]
        entries = list(host.services[CLIENT].books.ledger.entries())
        assert not entries


async def test_an_error_of_the_model_says_nothing_of_what_it_failed_on(
    tmp_path: Path, asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    lm = model()
    lm.fail = RuntimeError(PRIVATE)
    async with a_host(write_host(tmp_path), lm) as host:
        way = asking(host.port)
        answer = await way.carry(encode(ask()))
        assert b"Zillow" not in answer
        assert isinstance(decode(answer), Refused)
        taken = host.services[CLIENT].books.account.taken
        assert taken.tokens_out > 0  # it may have worked
    assert "Zillow" not in caplog.text


async def test_a_thread_of_another_client_is_unknown(tmp_path: Path, asking: Asking) -> None:
    path = write_host(tmp_path, model='kind = "scripted"\nexposes = "logits"')
    path.write_text(path.read_text() + "\n[clients.other]\n")
    chat = user("Why?")
    async with a_host(path, ToyThreads()) as host:
        one, other = asking(host.port), asking(host.port, client="other")
        opened = decode(await one.carry(encode(Step(chat=chat, top=3))))
        assert isinstance(opened, Steps)
        on = encode(Step(thread=bytes(ThreadName(chat)), text=" the", top=3))
        refused = decode(await other.carry(on))
        assert isinstance(refused, Refused)
        assert refused.kind == "UnknownThreadError"
        assert isinstance(decode(await one.carry(on)), Steps)
