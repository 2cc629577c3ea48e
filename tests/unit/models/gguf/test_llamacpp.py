"""A real GGUF model: choices with true probabilities, streams that stop, errors that help."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosilo.errors import CatalogError, ConfigError, RejectedError
from cosilo.models import catalog
from cosilo.models.base import Access, TextModel, models
from cosilo.models.chat.fields import canonical
from cosilo.models.gguf.llamacpp import LlamaCppModel
from cosilo.registry import Loads
from cosilo.testing import ModelContract
from cosilo.types import Sampling, assemble, user

SECRET = "Ottilie-Katzenstein-7413"
real = pytest.mark.models
SHORT = {"n_ctx": 512, "threads": 1, "parallel": 2}


@pytest.fixture(scope="module")
def smol() -> Iterator[LlamaCppModel]:
    model = models.create("llamacpp", model="smollm2-135m-instruct", **SHORT)
    assert isinstance(model, LlamaCppModel)
    yield model
    asyncio.run(model.close())


@real
class TestLlamaCpp(ModelContract):
    def model(self) -> TextModel:
        return models.create("llamacpp", model="smollm2-135m-instruct", **SHORT)

    def loads(self) -> Loads:
        return models.loads("llamacpp", {"model": "smollm2-135m-instruct"})


@real
async def test_a_reply_shows_its_tokens_and_what_it_took(smol: LlamaCppModel) -> None:
    assert smol.access is Access.LOGPROBS
    reply = await smol.generate(user("Say hello."), Sampling(max_tokens=6, top_logprobs=3))
    assert reply.completion_tokens == len(reply.tokens) == 6
    assert "".join(t.token for t in reply.tokens) == reply.text
    assert reply.finish_reason == "length"
    assert all(len(t.top) == 3 and t.top[0] == (t.token, t.logprob) for t in reply.tokens)
    assert reply.prompt_tokens > 5
    assert reply.seconds > 0
    assert reply.cpu_seconds > 0


@real
async def test_further_fields_change_how_a_reply_is_drawn(smol: LlamaCppModel) -> None:
    wild = {"max_tokens": 8, "temperature": 1.9, "seed": 3}
    greedy = await smol.generate(user("Name a colour."), Sampling(max_tokens=8))
    for fields in ({"top_k": 1}, {"min_p": 1.0}):
        drawn = await smol.generate(
            user("Name a colour."), Sampling(**wild, fields=canonical(fields))
        )
        assert drawn.text == greedy.text
    free = await smol.generate(user("Name a colour."), Sampling(**wild))
    assert free.text != greedy.text
    said = Sampling(max_tokens=24, fields=canonical({"repetition_penalty": 5.0}))
    again = await smol.generate(user("Say yes, again and again: yes yes yes yes"), said)
    assert again.text.lower().count("yes") <= 1


@real
async def test_a_field_that_it_does_not_know_is_refused(smol: LlamaCppModel) -> None:
    with pytest.raises(RejectedError, match="reasoning_effort") as caught:
        await smol.generate(user("q"), Sampling(fields=canonical({"reasoning_effort": "low"})))
    assert caught.value.param == "reasoning_effort"


@real
async def test_choices_have_the_probabilities_of_constrained_decoding(smol: LlamaCppModel) -> None:
    """Against the whole vocabulary's log-probabilities, renormalised by hand."""
    choices = ("billing", "refund", "delivery")
    chat = user("Where is my parcel?", system="Answer billing, refund or delivery.")
    reply = await smol.generate(chat, Sampling(choices=choices))
    (token,) = reply.tokens
    assert reply.text == token.token == token.top[0][0]
    assert reply.text in choices
    engine = smol._opened()
    first = [engine.tokens(c)[0][0] for c in choices]
    assert len(set(first)) == 3, "they part at their first token"
    raw = engine._server.handle_chat_completions(
        {
            "messages": [
                {"role": "system", "content": chat[0].content},
                {"role": "user", "content": chat[1].content},
            ],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 49152,
        }
    )
    top = raw["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    known = {t["id"]: math.exp(t["logprob"]) for t in top}
    total = sum(known[t] for t in first)
    for choice, number in zip(choices, first, strict=True):
        assert math.exp(dict(token.top)[choice]) == pytest.approx(known[number] / total, abs=1e-3)


@real
async def test_choices_that_begin_with_another_one(smol: LlamaCppModel) -> None:
    choices = ("card", "card lost", "card lost or stolen")
    chat = user("I lost my card!", system="Reply with: card, card lost, card lost or stolen.")
    reply = await smol.generate(chat, Sampling(choices=choices))
    found = {c: math.exp(p) for c, p in reply.tokens[0].top}
    assert set(found) == set(choices)
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    assert max(found, key=found.__getitem__) == reply.text


@real
async def test_choices_are_drawn_by_seed(smol: LlamaCppModel) -> None:
    chat = user("Heads or tails?")
    drawn = [
        (
            await smol.generate(chat, Sampling(choices=("heads", "tails"), temperature=2.0, seed=s))
        ).text
        for s in (*range(12), 3)
    ]
    assert set(drawn) == {"heads", "tails"}
    assert drawn[12] == drawn[3]


@real
async def test_a_schema_holds(smol: LlamaCppModel) -> None:
    schema = {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "schema": {
                "type": "object",
                "properties": {"n": {"enum": [7]}},
                "required": ["n"],
            },
        },
    }
    reply = await smol.generate(
        user("A number?"), Sampling(max_tokens=24, response_format=json.dumps(schema))
    )
    assert json.loads(reply.text) == {"n": 7}


@real
async def test_requests_at_once_all_come_back(smol: LlamaCppModel) -> None:
    replies = await asyncio.gather(
        *(smol.generate(user(f"Count from {i}."), Sampling(max_tokens=3)) for i in range(5))
    )
    assert all(r.completion_tokens == 3 for r in replies)


@real
async def test_a_stream_that_is_left_stops_the_engine(smol: LlamaCppModel) -> None:
    pieces = smol.stream(user("Write a very long story."), Sampling(max_tokens=400))
    await anext(pieces)
    await pieces.aclose()  # type: ignore[attr-defined]
    assert not smol._stops
    after = await smol.generate(user("Say hello."), Sampling(max_tokens=2))
    assert after.completion_tokens == 2


@real
async def test_a_prompt_beyond_the_context_is_refused_without_quoting_it(
    smol: LlamaCppModel,
) -> None:
    for sampling in (Sampling(max_tokens=2), Sampling(choices=("a", "b"))):
        with pytest.raises(RejectedError, match="n_ctx") as caught:
            await smol.generate(user(f"{SECRET} " * 400), sampling)
        assert SECRET not in str(caught.value)
    with pytest.raises(RejectedError, match="n_ctx"):
        _ = [d async for d in smol.stream(user(f"{SECRET} " * 400), Sampling(max_tokens=2))]


@real
async def test_a_schema_it_cannot_follow_is_refused_without_quoting_it(smol: LlamaCppModel) -> None:
    bad = json.dumps({"type": "json_schema", "json_schema": {"schema": {"$ref": SECRET}}})
    with pytest.raises(RejectedError) as caught:
        await smol.generate(user("x"), Sampling(max_tokens=2, response_format=bad))
    assert SECRET not in str(caught.value)


@real
async def test_a_stream_says_what_the_reply_says(smol: LlamaCppModel) -> None:
    sampling = Sampling(max_tokens=8)
    whole = await smol.generate(user("Say hello."), sampling)
    pieces = [d async for d in smol.stream(user("Say hello."), sampling)]
    again = assemble(pieces)
    assert again.text == whole.text
    assert (again.prompt_tokens, again.completion_tokens) == (
        whole.prompt_tokens,
        whole.completion_tokens,
    )
    assert sum(p.finish_reason is not None for p in pieces) == 1
    assert pieces[-1].completion_tokens == 8


SILENT = f"""
import asyncio
from cosilo.models.base import models
from cosilo.types import Sampling, user

async def main():
    model = models.create("llamacpp", model="smollm2-135m-instruct", n_ctx=512, threads=1)
    await model.generate(user("{SECRET}"), Sampling(max_tokens=2))
    await model.generate(user("{SECRET}"), Sampling(choices=("a", "b")))
    await model.close()

asyncio.run(main())
"""


@real
def test_nothing_is_printed() -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, check=False)
    assert done.returncode == 0
    assert (done.stdout, done.stderr) == (b"", b"")


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none\.gguf"):
        models.create("llamacpp", path=tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(CatalogError, match="no GGUF"):
        models.create("llamacpp", path=tmp_path / "text.gguf")
    for options in ({}, {"model": "x", "path": tmp_path}):
        with pytest.raises(ConfigError, match="either"):
            models.create("llamacpp", **options)
    (tmp_path / "ok.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="n_ctx"):
        models.create("llamacpp", path=tmp_path / "ok.gguf", n_ctx=0)


@real
async def test_a_broken_file_is_named(tmp_path: Path) -> None:
    whole = catalog.path("smollm2-135m-instruct").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: 1 << 20])
    model = models.create("llamacpp", path=tmp_path / "cut.gguf", **SHORT)
    with pytest.raises(CatalogError, match=r"cut\.gguf"):
        await model.generate(user("x"), Sampling(max_tokens=1))
    await model.close()


@pytest.mark.parametrize("place", [4, 80_000, 3_000_000, 6_000_000 - 1])
def test_another_file_of_the_same_name_and_size_is_another_model(
    tmp_path: Path, place: int
) -> None:
    """Its recorded answers must not be taken for this one's."""
    data = bytearray(b"GGUF" + bytes(6_000_000 - 4))
    path = tmp_path / "own.gguf"
    path.write_bytes(data)
    before = LlamaCppModel(path).identity
    assert LlamaCppModel(path).identity == before
    data[place] = 1
    path.write_bytes(data)
    assert LlamaCppModel(path).identity != before


@real
async def test_a_reply_is_drawn_from_the_whole_distribution(smol: LlamaCppModel) -> None:
    """llama.cpp's own defaults would leave forty tokens to choose from, at the most."""
    chat = user("Say anything.")
    drawn = {
        (await smol.generate(chat, Sampling(max_tokens=1, temperature=3.0, seed=s))).text
        for s in range(60)
    }
    assert len(drawn) > 45
