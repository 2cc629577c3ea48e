"""Processes of clients' keys: bounded, each client's its own, unknown once they are gone."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from cosilo.boundary.messages import EvaluationKeys
from cosilo.boundary.messages.encrypted import PART
from cosilo.engines.ckks.layout import Floats
from cosilo.errors import ModelError, RejectedError, UnknownKeysError
from cosilo.parties.encrypted import KeyedHeads


@dataclass
class FakeHead:
    weights: Floats
    bias: Floats
    public: bytes
    turning: bytes
    cpu_seconds: float = 0.0
    alive: bool = True
    dies: bool = False

    def logits(self, query: bytes, vectors: int = 1) -> bytes:
        if self.dies:
            self.alive = False
            raise ModelError("the process has ended")
        self.cpu_seconds += 0.5
        return self.public + query

    def close(self) -> None:
        self.alive = False


@dataclass
class Started:
    heads: list[FakeHead] = field(default_factory=list)

    def __call__(self, weights: Floats, bias: Floats, public: bytes, turning: bytes) -> FakeHead:
        self.heads.append(FakeHead(weights, bias, public, turning))
        return self.heads[-1]


def keyed(started: Started, most: int = 4) -> KeyedHeads:
    return KeyedHeads(np.zeros((2, 3)), np.zeros(2), most=most, starts=started)


def parts(turning: bytes, public: bytes) -> list[EvaluationKeys]:
    keys = turning + public
    name = hashlib.sha256(keys).hexdigest()
    count = -(-len(keys) // PART)
    return [
        EvaluationKeys(
            name=name,
            part=n,
            parts=count,
            turning=len(turning),
            packed=keys[n * PART : (n + 1) * PART],
        )
        for n in range(count)
    ]


async def take(heads: KeyedHeads, client: str, turning: bytes, public: bytes = b"p") -> str:
    sent = parts(turning, public)
    taken = [await heads.take(client, part) for part in sent]
    assert taken == [False] * (len(sent) - 1) + [True]
    return sent[0].name


async def test_keys_come_in_parts_in_any_order_and_are_put_together() -> None:
    started = Started()
    heads = keyed(started)
    turning, public = bytes(PART) + b"turn", b"public"
    first, second = parts(turning, public)
    assert not await heads.take("bank", second)
    assert await heads.take("bank", first)
    assert await heads.take("bank", first), "what is there need not come again"
    (head,) = started.heads
    assert (head.turning, head.public) == (turning, public)
    assert await heads.logits("bank", first.name, b"q") == (b"publicq", 0.5)


async def test_parts_of_other_keys_are_refused() -> None:
    started = Started()
    (part,) = parts(b"t", b"p")
    wrong = EvaluationKeys(name=part.name, part=0, parts=1, turning=1, packed=b"tx")
    with pytest.raises(RejectedError, match="together"):
        await keyed(started).take("bank", wrong)
    assert not started.heads


async def test_another_clients_keys_are_as_unknown_as_none() -> None:
    heads = keyed(Started())
    name = await take(heads, "bank", b"t")
    with pytest.raises(UnknownKeysError):
        await heads.logits("clinic", name, b"q")
    with pytest.raises(UnknownKeysError):
        await heads.logits("bank", 64 * "0", b"q")


async def test_the_least_recently_asked_are_ended_first() -> None:
    started = Started()
    heads = keyed(started, most=2)
    one, two = [await take(heads, client, client.encode()) for client in ("one", "two")]
    await heads.logits("one", one, b"q")
    await take(heads, "three", b"three")
    assert [head.alive for head in started.heads] == [True, False, True]
    with pytest.raises(UnknownKeysError):
        await heads.logits("two", two, b"q")
    await take(heads, "two", b"two")
    await heads.logits("two", two, b"q")


async def test_unfinished_keys_of_few_clients_are_held() -> None:
    heads = keyed(Started(), most=2)
    turning = bytes(PART) + b"t"
    for client in ("one", "two", "three"):
        assert not await heads.take(client, parts(turning, b"p")[0])
    assert [client for client, _ in heads._coming] == ["two", "three"]
    assert not await heads.take("one", parts(turning, b"p")[1]), "its first part is gone"
    await take(heads, "two", bytes(PART) + b"other")  # parts of two are not put together


async def test_a_process_that_a_client_ended_is_unknown_and_nobody_elses() -> None:
    started = Started()
    heads = keyed(started)
    bad, good = await take(heads, "bad", b"b"), await take(heads, "good", b"g")
    started.heads[0].dies = True
    with pytest.raises(ModelError, match="ended"):
        await heads.logits("bad", bad, b"q")
    with pytest.raises(UnknownKeysError):
        heads.require("bad", bad)
    assert (await heads.logits("good", good, b"q"))[0] == b"pq"


async def test_keys_that_are_ended_for_others_while_they_work_are_unknown() -> None:
    started = Started()
    heads = keyed(started, most=1)
    name = await take(heads, "bank", b"t")

    def ended(query: bytes, vectors: int = 1) -> bytes:
        heads._drop(("bank", name))  # as another client's keys do
        raise ModelError("the process has ended")

    started.heads[0].logits = ended  # type: ignore[method-assign]
    with pytest.raises(UnknownKeysError):
        await heads.logits("bank", name, b"q")


async def test_what_a_client_sent_can_be_forgotten() -> None:
    started = Started()
    heads = keyed(started)
    name, other = await take(heads, "bank", b"t"), await take(heads, "clinic", b"u")
    await heads.take("bank", parts(bytes(PART) + b"t", b"p")[0])
    heads.forget("bank")
    assert [head.alive for head in started.heads] == [False, True]
    assert not heads._coming
    with pytest.raises(UnknownKeysError):
        heads.require("bank", name)
    heads.require("clinic", other)
    heads.close()
    assert not started.heads[1].alive


class Held:
    """Calls that wait in their thread until they may go on."""

    def __init__(self) -> None:
        self.entered, self.may_go = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.entered.set()
        assert self.may_go.wait(30)


async def test_one_who_sends_many_keys_takes_nothing_from_others() -> None:
    started = Started()
    heads = keyed(started, most=2)
    first, second = parts(bytes(PART) + b"t", b"p")
    assert not await heads.take("good", first)
    good = await take(heads, "good", b"g")
    for n in range(3):
        await heads.take("bad", parts(bytes(PART) + bytes([n]), b"p")[0])
        await take(heads, "bad", bytes([n]))
    assert [head.alive for head in started.heads] == [True, False, False, True]
    heads.require("good", good)
    assert await heads.take("good", second), "its first part is still there"


async def test_keys_that_are_sent_twice_at_once_start_one_process() -> None:
    started = Started()
    heads = keyed(started)
    (part,) = parts(b"t", b"p")
    assert await asyncio.gather(*(heads.take("bank", part) for _ in range(3))) == [True] * 3
    assert len(started.heads) == 1


async def test_keys_are_forgotten_while_their_process_starts() -> None:
    started, held = Started(), Held()

    def starts(weights: Floats, bias: Floats, public: bytes, turning: bytes) -> FakeHead:
        held.wait()
        return started(weights, bias, public, turning)

    heads = KeyedHeads(np.zeros((2, 3)), np.zeros(2), starts=starts)
    (part,) = parts(b"t", b"p")
    taking = asyncio.create_task(heads.take("bank", part))
    await asyncio.to_thread(held.entered.wait, 30)
    heads.forget("bank")
    held.may_go.set()
    with pytest.raises(UnknownKeysError):
        await taking
    assert [head.alive for head in started.heads] == [False]
    with pytest.raises(UnknownKeysError):
        heads.require("bank", part.name)
    await take(heads, "bank", b"t")  # and can be sent again


async def test_vectors_at_once_are_worked_on_one_by_one_and_told_their_own_seconds() -> None:
    started, held = Started(), Held()
    heads = keyed(started)
    name = await take(heads, "bank", b"t")
    (head,) = started.heads
    answers = head.logits

    def waits(query: bytes, vectors: int = 1) -> bytes:
        held.wait()
        return answers(query, vectors)

    head.logits = waits  # type: ignore[method-assign]
    asked = [asyncio.create_task(heads.logits("bank", name, b"q")) for _ in range(3)]
    await asyncio.to_thread(held.entered.wait, 30)
    held.may_go.set()
    assert [took for _, took in await asyncio.gather(*asked)] == [0.5] * 3
