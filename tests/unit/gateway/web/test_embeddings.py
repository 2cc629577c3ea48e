"""Vectors from somebody else's model: behind the guards, paid for, on record."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import Embed, Embeddings
from cosilo.boundary.meter import Price
from cosilo.errors import UnreachableError
from cosilo.gateway.accounts.accounts import Limits
from cosilo.gateway.serving.points import Serving
from cosilo.models.base import Access, Vectors
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from house import House, Reply, house

MAIL = "ada@lovelace.example"


class Counting(ScriptedModel):
    """A vector of a text: how many characters, words and digits it has."""

    def __init__(self, *, tokens: int | None = None, fail: Exception | None = None) -> None:
        super().__init__({}, access=Access.TEXT, fail=fail)
        self.texts: list[Sequence[str]] = []
        self.tokens = tokens

    async def vectors(self, texts: Sequence[str], dimensions: int | None = None) -> Vectors:
        self.texts.append(texts)
        if self.fail is not None:
            raise self.fail
        rows = [[len(t), len(t.split()), sum(c.isdigit() for c in t)] for t in texts]
        tokens = sum(map(len, texts)) if self.tokens is None else self.tokens
        return Vectors(np.array(rows, np.float32)[:, :dimensions], prompt_tokens=tokens)


async def ask(h: House, given: Any, **more: Any) -> Reply:
    options = {k: more.pop(k) for k in ("headers", "leave") if k in more}
    return await h.send("/v1/embeddings", {"model": "cosilo/x", "input": given, **more}, **options)


async def test_vectors_come_over_the_boundary_and_are_paid_for() -> None:
    model = Counting()
    h = await house(remote_embedder=model, price=Price(1.0, 2.0))
    told = await ask(h, ["one two", "7"])
    assert told.status == 200
    assert told.json["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert [d["embedding"] for d in told.json["data"]] == [[7, 2, 0], [1, 1, 1]]
    assert told.headers["x-cosilo-processed"] == "home, emb in this process"
    assert (told.headers["x-cosilo-by"], told.headers["x-cosilo-usd"]) == ("large", "0.000008")
    [(reservation, spent, facts)] = h.books.settled
    assert (spent.tokens_in, spent.tokens_out, spent.usd) == (8, 0, 8e-6)
    assert reservation.most.tokens_in >= 8
    assert (facts.upstream, facts.lm_calls, facts.endpoint) == ("emb", 1, "embeddings")
    up, down = h.books.ledgers["x"].entries()
    assert (up.kind, down.kind) == ("Embed", "Embeddings")
    assert h.books.open == {}


async def test_base64_holds_the_same_numbers_and_dimensions_are_passed_on() -> None:
    h = await house(remote_embedder=Counting())
    told = await ask(h, "one two", encoding_format="base64", dimensions=2)
    [item] = told.json["data"]
    assert np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() == [7, 2]


async def test_a_private_value_leaves_as_the_same_placeholder_in_every_text(tmp_path: Path) -> None:
    model = Counting()
    options = {
        "detectors": ["patterns"], "key_file": str(tmp_path / "key"), "conversation": "first-turn",
    }  # fmt: skip
    h = await house(remote_embedder=model, around=(DefenceConfig("hide", "pseudonym", options),))
    assert (await ask(h, [f"Write to {MAIL}.", f"{MAIL} wrote", "no one"])).status == 200
    assert (await ask(h, f"Who is {MAIL}?")).status == 200
    (first, second, third), (question,) = model.texts
    assert "lovelace" not in repr(model.texts)
    assert third == "no one"
    placeholder = second.removesuffix(" wrote")
    assert first == f"Write to {placeholder}."
    assert question == f"Who is {placeholder}?"  # else it would not be found
    assert h.books.used.entities == 2
    assert (await ask(h, f"Who is {MAIL}?", user="another")).status == 200
    assert placeholder not in repr(model.texts[-1])


@pytest.mark.parametrize("tokens", [10**6, -1, 0])
async def test_a_claim_that_cannot_be_is_booked_at_the_most_and_told(tokens: int) -> None:
    h = await house(remote_embedder=Counting(tokens=tokens))
    told = await ask(h, "seven b")
    most = Embed(texts=("seven b",)).tokens_bound()[0]
    assert told.json["usage"]["prompt_tokens"] == most
    assert ("x-cosilo-disputed" in told.headers) == (tokens != 0)


async def test_no_budget_no_vectors() -> None:
    model = Counting()
    h = await house(remote_embedder=model, limits=Limits(tokens=5))
    assert (await ask(h, "far too long for five tokens")).status == 429
    assert model.texts == []


async def test_what_fails_is_told_and_booked_as_far_as_it_was_worked_on() -> None:
    h = await house(remote_embedder=Counting(fail=UnreachableError("down", worked=0)))
    assert (await ask(h, "one")).error["code"] == "upstream_unreachable"
    [(_, spent, facts)] = h.books.settled
    assert (spent.usd, facts.outcome) == (0, "error")


async def test_vectors_of_another_length_are_the_upstreams_fault() -> None:
    h = await house(remote_embedder=Counting())
    told = await ask(h, "one", dimensions=64)
    assert (told.status, told.error["code"]) == (502, "upstream_rejected")


async def test_one_that_may_not_leave_gets_none() -> None:
    model = Counting()
    h = await house(remote_embedder=model)
    for more in ({"headers": [(b"x-cosilo-local-only", b"1")]}, {"cosilo_local_only": True}):
        told = await ask(h, "one", **more)
        assert (told.status, told.error["code"]) == (403, "local_only")
    assert model.texts == []
    at_home = await house(embedder=_AtHome())
    told = await ask(at_home, "one", cosilo_local_only=True)
    assert (told.status, told.headers["x-cosilo-processed"]) == (200, "home")
    assert (await ask(at_home, "one", dimensions=2)).error["param"] == "dimensions"


class _AtHome:
    def embed(self, texts: Sequence[str]) -> Any:
        return np.ones((len(texts), 3), np.float32)


async def test_one_that_does_not_come_in_time_is_given_up() -> None:
    class Slow(Counting):
        async def vectors(self, texts: Sequence[str], dimensions: int | None = None) -> Vectors:
            await asyncio.Event().wait()
            raise AssertionError

    h = await house(remote_embedder=Slow(), serving=Serving(timeout_seconds=0.05))
    assert (await ask(h, "one")).status == 504
    assert h.books.used.tokens_in > 0  # it may have been worked on


async def test_a_client_that_leaves_cancels_it() -> None:
    started, gone = asyncio.Event(), asyncio.Event()

    class Slow(Counting):
        async def vectors(self, texts: Sequence[str], dimensions: int | None = None) -> Vectors:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

    h = await house(remote_embedder=Slow())
    waiting = asyncio.create_task(ask(h, "one", leave=gone))
    await started.wait()
    gone.set()
    assert (await waiting).status == 0
    assert h.books.settled[0][2].outcome == "cancelled"


async def test_what_is_no_text_is_refused_and_fields_about_replies_are_dropped() -> None:
    model = Counting()
    h = await house(remote_embedder=model)
    told = await ask(h, [[1, 2], [3]])
    assert (told.status, told.error["param"], told.error["code"]) == (
        400, "input", "unsupported_content",
    )  # fmt: skip
    assert "arrays of tokens" in told.error["message"]
    assert model.texts == []
    told = await ask(h, "one", metadata={"for": MAIL})
    assert (told.status, told.headers["x-cosilo-dropped"]) == (200, "metadata")
    assert (await ask(await house(), "one")).error["code"] == "not_supported_by_point"
    small = await house(remote_embedder=model, serving=Serving(most_kb=0.1))
    assert (await ask(small, "x" * 200)).status == 413


def test_a_reply_for_other_texts_is_none() -> None:
    asked = Embed(texts=("a", "b"), dimensions=2)
    asked.check_reply(Embeddings(packed=np.ones((2, 2), "<f4").tobytes()))
    for wrong in (
        b"", b"1234567", np.ones((3, 2), "<f4").tobytes(), np.ones((2, 3), "<f4").tobytes(),
        np.full((2, 2), np.nan, "<f4").tobytes(), np.full((2, 2), np.inf, "<f4").tobytes(),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="vectors"):
            asked.check_reply(Embeddings(packed=wrong))


def test_what_tampering_does_to_vectors() -> None:
    rows = np.array([[1, 2], [3, 4]], "<f4")
    swapped = Embeddings(packed=rows.tobytes()).tampered(Embed(texts=("a", "b")), str)
    assert swapped.rows(2).tolist() == [[3, 4], [1, 2]]
    alone = Embeddings(packed=rows[:1].tobytes()).tampered(Embed(texts=("a",)), str)
    assert alone.rows(1).tolist() == [[-1, -2]]
