"""The small model is asked once per question, and every item is charged for it all the same."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cosilo.benchmark.small import noting, remembering
from cosilo.clock import install
from cosilo.models.base import (
    Access,
    Array,
    Classifier,
    Embedder,
    TextModel,
    Tokens,
    Trainable,
    require,
    splits,
)
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Chat, Demonstration, Generation, Sampling, user


@pytest.fixture(autouse=True)
async def clocked() -> None:
    install(asyncio.get_running_loop())


class Plain:
    name = "plain"
    access = Access.TEXT

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        return Generation("x", seconds=2.0, cpu_seconds=1.5)

    async def close(self) -> None: ...


class Local(Plain):
    @property
    def labels(self) -> tuple[str, ...]:
        return ("a",)

    def probabilities(self, texts: list[str]) -> Array:
        return np.ones((len(texts), 1), np.float32)

    def embed(self, texts: list[str]) -> Array:
        return np.ones((len(texts), 2), np.float32)


async def test_one_question_is_asked_once_and_charged_each_time() -> None:
    inner = ScriptedModel({"q": "yes"}, seconds=3.0)
    model = remembering(inner)
    totals = []
    for _ in range(2):
        with noting(user("q")) as note:
            assert (await model.generate(user("q"), Sampling())).text == "yes"
        totals.append((note.text, note.clock.seconds))
    assert len(inner.seen) == 1
    assert totals == [("yes", 3.0), ("yes", 3.0)]


async def test_another_sampling_is_another_question() -> None:
    inner = ScriptedModel()
    model = remembering(inner)
    await model.generate(user("q"), Sampling())
    await model.generate(user("q"), Sampling(choices=("a", "b")))
    assert len(inner.seen) == 2


async def test_only_the_items_own_question_gives_its_answer() -> None:
    model = remembering(ScriptedModel({"q": "own", "sketch": "other"}))
    with noting(user("q")) as note:
        await model.generate(user("sketch"), Sampling())
        assert note.text == ""
        await model.generate(user("q"), Sampling())
    assert note.text == "own"


async def test_what_a_back_end_states_of_its_own_threads_counts() -> None:
    model = remembering(Plain())
    with noting(user("q")) as note:
        await model.generate(user("q"), Sampling())
    assert (note.clock.seconds, note.clock.cpu_seconds) == (2.0, 1.5)


def test_it_shows_exactly_what_the_model_shows() -> None:
    plain, local, scripted = remembering(Plain()), remembering(Local()), ScriptedModel()
    for kind in (Trainable, Classifier, Embedder):
        assert not isinstance(plain, kind)
        assert isinstance(remembering(scripted), kind) == isinstance(scripted, kind)
    assert isinstance(local, TextModel)
    assert isinstance(local, Classifier)
    assert isinstance(local, Embedder)
    assert local.labels == ("a",)
    assert local.probabilities(["t"]).shape == (1, 1)
    assert local.embed(["t"]).shape == (1, 2)


async def test_a_trained_copy_has_a_memory_of_its_own() -> None:
    model = remembering(ScriptedModel({"q": "before"}))
    await model.generate(user("q"), Sampling())
    assert isinstance(model, Trainable)
    trained = model.fit([Demonstration("1", user("q"), "after")])
    assert (await trained.generate(user("q"), Sampling())).text == "after"
    assert (await model.generate(user("q"), Sampling())).text == "before"


class WhiteBox(Plain):
    access = Access.WEIGHTS
    vocabulary = "hash"
    vocabulary_size = 3
    module = object()
    saved = ""

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        return Tokens(np.array([1, 2], np.int32), 1, (reply.encode(),))

    async def logits(self, sequences: list[Tokens]) -> list[Array]:
        return [np.zeros((len(s.pieces), 3), np.float32) for s in sequences]

    async def activations(self, sequences: list[Tokens], layer: int) -> list[Array]:
        return [np.full((len(s), 2), layer, np.float32) for s in sequences]

    def save(self, folder: str) -> None:
        self.saved = folder


async def test_every_rung_of_the_ladder_is_passed_on() -> None:
    inner = WhiteBox()
    model = require(remembering(inner), Access.WEIGHTS, by="test")
    tokens = model.tokenize(user("q"), "yes")
    assert (model.vocabulary, model.vocabulary_size, tokens.pieces) == ("hash", 3, (b"yes",))
    assert [x.shape for x in await model.logits([tokens])] == [(1, 3)]
    assert [x.tolist() for x in await model.activations([tokens], 4)] == [[[4, 4], [4, 4]]]
    assert model.module is inner.module
    model.save("there")
    assert inner.saved == "there"


async def test_layers_run_by_themselves_and_the_item_is_charged() -> None:
    pytest.importorskip("torch")
    from white_box import tiny

    inner = tiny(3, layers=2)
    model = remembering(inner)
    assert splits(model)
    assert (model.width, model.layers) == (inner.width, 2)
    given = np.ones((3, inner.width), np.float32)
    with noting(user("q")) as note:
        past, found = await model.forward(None, given, 0, 1)
        said = await model.predict(found, 2)
        await model.backward(past, given, 0, 1)
    assert (found.shape, said.ids.shape) == (given.shape, (3, 2))
    assert note.clock.seconds > 0
    assert not splits(remembering(Plain()))
    await model.close()


def test_a_rung_the_model_lacks_is_not_made_up() -> None:
    assert not hasattr(remembering(Plain()), "logits")
